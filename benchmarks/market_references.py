"""Policies to compare the agents with on the market: the best constant message, and boosted trees on the DiD reward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import ContextPolicy, FreshUsers, Market, MarketState, PolicyChoice
from crosschannel.envs.market.dynamics.responses import Every
from crosschannel.envs.market.state import ROWS_PER_CHUNK
from crosschannel.envs.market.vocabulary import CHANNELS
from crosschannel.pipeline.building import TrainingData

#: One letter for each axis of arrays over all messages: users, channel, block, service, offer, tone (k) and greeting.
_LETTERS = "ncbsokg"

#: Settings of the boosted trees: of 11, the best on the seeds 100 and 101 (.38 and .42; with scikit-learn's own .18).
BOOSTING: dict[str, Any] = {"max_iter": 300, "max_leaf_nodes": 3, "min_samples_leaf": 200, "early_stopping": False}
N_SWEEPS = 2

Context = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Constant:
    """Send one and the same message to everybody at every slot at which it may be sent.

    Attributes:
        message: Codes of the message (M,).
        name: The policy's name.
    """

    message: IntArray
    name: str = "best_constant"

    def choose(self, market: Market, state: MarketState) -> PolicyChoice:
        """Choose the message for each user; where it is not eligible the market sends nothing."""
        actions = np.tile(self.message, (len(state), 1))
        return PolicyChoice(actions, np.ones(actions.shape))


def best_constant(users: FreshUsers) -> Constant:
    """Return the constant message with the largest true value of all, for the very users that it is deployed to."""
    value = constant_values(users)
    best = np.unravel_index(int(value.argmax()), value.shape)
    return Constant(np.array(list(best), dtype=np.int64))


def constant_values(users: FreshUsers) -> FloatArray:
    """Return the true value of every constant message per user, with one axis for each module.

    A message is sent at the first slot and then whenever the gap is over, so that fatigue is the same for all users of
    a channel, and only unsubscribing is random: the value is the sum over these slots of the effect, weighted by the
    probability of being subscribed still. It is exact unless an action has dates (scenario `refresh`).
    """
    market, start = users.market, users.start
    config, retention = market.config, market.dynamics.fatigue_retention
    total = np.zeros(market.modules.sizes)
    for first in range(0, len(start), ROWS_PER_CHUNK):
        chunk = start.slots(np.arange(first, min(first + ROWS_PER_CHUNK, len(start))))
        subscribed, fatigue = np.ones((len(chunk), len(CHANNELS))), 0.0
        for slot in range(0, config.days, config.min_gap_days + 1):
            at = replace(chunk, day=chunk.day + slot, fatigue=np.full(len(chunk), fatigue))
            open_value, content = market.open_value(at), market.content_value(at)
            weight = Every().per_action(subscribed, 0)
            value = _sum_over_users(weight, open_value.event_value)
            value = value + _sum_over_users(weight, open_value.acting, content)
            offered = market.scenario.offered(np.array([slot]))
            for module, part in enumerate(market.modules.split(offered)):
                value = np.where(Every().per_action(part, module)[0], value, 0.0)
            total += value
            subscribed = subscribed * (1.0 - open_value.unsubscribe_probability)
            fatigue = retention ** (config.min_gap_days + 1) * (fatigue + 1.0)
    return total / len(start)


def _sum_over_users(*factors: FloatArray) -> FloatArray:
    """Sum the product of arrays over all messages over their first axis; other axes may have length 1."""
    axes = [[0, *(axis for axis in range(1, factor.ndim) if factor.shape[axis] > 1)] for factor in factors]
    operands = [f.reshape([f.shape[axis] for axis in each]) for f, each in zip(factors, axes, strict=True)]
    found = sorted({axis for each in axes for axis in each} - {0})
    subscripts = ",".join("".join(_LETTERS[axis] for axis in each) for each in axes)
    out = np.einsum(f"{subscripts}->{''.join(_LETTERS[axis] for axis in found)}", *operands, optimize="greedy")
    shape = [1] * (len(_LETTERS) - 1)
    for axis, size in zip(found, out.shape, strict=True):
        shape[axis - 1] = size
    return np.asarray(out.reshape(shape))


@dataclass(frozen=True)
class TLearner:
    """One regression for each channel of the DiD reward on the context and the other modules' actions.

    A T-learner (Kunzel et al. 2019, PNAS): what a channel does is learned from its own messages alone; sending nothing
    has a reward of 0 by construction. Each user gets the message with the largest prediction, none if it is not above
    0: on each channel, one module after another takes its best action given the others, in `N_SWEEPS` rounds.

    Attributes:
        modules: The modules of the log.
        models: A fitted regression for each channel that was sent.
    """

    modules: ActionSpace
    models: dict[int, Any]

    @classmethod
    def fit(cls, data: TrainingData, seed: int) -> TLearner:
        """Fit scikit-learn's gradient boosting to the training users' rewards.

        Raises:
            ConfigError: If scikit-learn is not installed.
        """
        try:
            from sklearn.ensemble import HistGradientBoostingRegressor
        except ImportError as error:
            raise ConfigError("t_learner needs scikit-learn: pip install 'crosschannel[baselines]'") from error
        modules, actions = data.history.modules, data.train.history.decisions.actions
        rewards, context = data.train.rewards, data.train.observations.context
        models = {}
        for channel in range(1, modules.sizes[0]):
            rows = np.flatnonzero((actions[:, 0] == channel) & rewards.identified)
            if len(rows):
                model = HistGradientBoostingRegressor(random_state=seed, **BOOSTING)
                models[channel] = model.fit(_inputs(modules, context[rows], actions[rows]), rewards.reward[rows])
        return cls(modules, models)

    def policy(self, data: TrainingData) -> ContextPolicy:
        """Return the greedy policy."""
        return ContextPolicy("t_learner", data.features, self.act)

    def act(self, context: Context, mask: BoolArray) -> PolicyChoice:
        """Return the eligible message with the largest prediction for each user, or none."""
        best = np.zeros((len(context), len(self.modules)), dtype=np.int64)
        value, eligible = np.zeros(len(context)), self.modules.split(mask)
        for channel, model in self.models.items():
            rows = np.flatnonzero(eligible[0][:, channel])
            if len(rows) == 0:
                continue
            actions = np.zeros((len(rows), len(self.modules)), dtype=np.int64)
            actions[:, 0] = channel
            for module in [*range(1, len(self.modules))] * N_SWEEPS:
                predicted = np.full((len(rows), self.modules.sizes[module]), -np.inf)
                for action in range(self.modules.sizes[module]):
                    actions[:, module] = action
                    can = eligible[module][rows, action]
                    if can.any():
                        inputs = _inputs(self.modules, context[rows[can]], actions[can])
                        predicted[can, action] = model.predict(inputs)
                actions[:, module] = predicted.argmax(1)
            better = predicted.max(1) > value[rows]
            value[rows[better]], best[rows[better]] = predicted.max(1)[better], actions[better]
        return PolicyChoice(best, np.ones(best.shape))


def _inputs(modules: ActionSpace, context: Context, actions: IntArray) -> npt.NDArray[np.float32]:
    """Return the inputs of a channel's regression (n, D + actions of the other modules)."""
    hot = [np.eye(size, dtype=np.float32)[actions[:, m]] for m, size in enumerate(modules.sizes) if m > 0]
    return np.hstack([context, *hot])
