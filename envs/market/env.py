"""`CrossChannelMarket-v0`: one episode is one simulated user, one step is one decision slot."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market.config import MarketConfig
from crosschannel.envs.market.history import simulate_history
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.observables import attribute_features, build_context
from crosschannel.envs.market.state import MarketState
from crosschannel.envs.market.vocabulary import MODULES
from crosschannel.envs.rendering import supported_render_mode
from crosschannel.histories.features import MAX_ABS_FEATURE, ContextFeatures

Observation = dict[str, npt.NDArray[Any]]

#: Number of simulated users that the default context features are fitted on.
N_FEATURE_USERS = 300


@lru_cache(maxsize=8)
def default_features(config: MarketConfig) -> ContextFeatures:
    """Return context features fitted on a small history of the market: the same for every env of a config."""
    history, _ = simulate_history(Market(replace(config, users=N_FEATURE_USERS)))
    return ContextFeatures.fit(history)


def observation_space(features: ContextFeatures) -> spaces.Dict:
    """Return the space of the observations of one slot."""
    return spaces.Dict(
        {
            "context": spaces.Box(-MAX_ABS_FEATURE, MAX_ABS_FEATURE, (features.dim,), np.float32),
            "action_mask": spaces.MultiBinary(MODULES.total),
        }
    )


def action_space() -> spaces.MultiDiscrete[Any]:
    """Return the space of one choice per module."""
    return spaces.MultiDiscrete(np.array(MODULES.sizes))


def refuse_options(options: dict[str, Any] | None) -> None:
    """Check that no options are given: the market's resets have none.

    Raises:
        ConfigError: If there are any.
    """
    if options:
        raise ConfigError(f"reset takes no options, but got {sorted(options)}: leave them out")


def observe(
    market: Market, features: ContextFeatures, state: MarketState, attributes: dict[str, FloatArray]
) -> Observation:
    """Return observations of N slots, new arrays: `context` (N, D) float32, `action_mask` (N, sum of actions) int8."""
    return {
        "context": build_context(features, state, attributes),
        "action_mask": market.mask(state).astype(np.int8),
    }


def draw_key(generator: np.random.Generator) -> np.uint64:
    """Draw the key of a new user."""
    return np.uint64(generator.integers(2**64, dtype=np.uint64))


class MarketEnv(gym.Env[Observation, IntArray]):
    """A simulated user of a multi-service app who may get one message per day, with known effects.

    ## Description
    The app has four services, each a funnel from visit to order. Users visit without messages too; a message may cause
    extra visits, and may make the user unsubscribe. One episode is one user, one step is one decision slot, one slot is
    one day. `envs.market.dynamics.responses` has the formulas.

    ## Action Space
    `MultiDiscrete([5, 5, 4, 5, 4, 3])`: channel (none, email, push, sms, in_app), send_time (morning, midday,
    afternoon, evening, night), service (food, groceries, rides, payments), offer, tone and greeting
    (`envs.market.vocabulary` lists their actions). With channel 0 nothing is sent and the other choices have no
    meaning. With one slot per day and five send times, a week has 35 times to send at. An action of which any choice is
    not eligible is executed as sending nothing.

    ## Observation Space
    `Dict(context=Box(-10, 10, (D,), float32), action_mask=MultiBinary(26))`. The context holds standardised counts,
    recencies and attributes that were known strictly before the slot. The mask has the actions of all modules one
    after the other. It is 0 for channels that do not reach the user, for all channels except `none` within
    `min_gap_days` after a message, and for actions before their start and after their end (scenario `refresh`).

    ## Rewards
    The goal value of the slot's day, which an app can see: by default 1 for an order, 0.1 for a visit and -3 for an
    unsubscribe, whether or not the message caused it. In the scenario `slow` a part of what a message causes is in the
    rewards of later steps.

    The sum of these rewards over an episode is **not** the value of the policy. An episode ends when the user
    unsubscribes, so that the user's later organic visits and orders are not rewarded, although they still happen: a
    lost user costs more here than in truth, and two policies may be ranked the wrong way round by their returns. The
    value of a policy is the expected sum of `info["true_effect"]` (or, with the noise of single events, of
    `info["incremental"]`), which `envs.market.evaluate_policy` computes on new users. With `info["incremental"]` as
    the reward, the expected return equals the value of the policy.

    ## Starting State
    A new user, drawn from the env's random numbers, after 14 days of organic behaviour. The calendar depends on the
    config's seed alone and is the same in every episode.

    ## Episode Termination
    Terminated when the user unsubscribes; truncated after the last day (28 slots by default).

    ## Information
    - `true_effect`: expected incremental goal value of the executed action at this slot, in closed form.
    - `incremental`: the goal value that this slot's message caused: a part of the reward and, in the scenario `slow`,
      of later ones.
    - `executed_action`: the action that was executed, in canonical form.
    - `eligible`: whether the chosen action was eligible, so that it was executed.

    `reset` returns no information.

    ## Arguments
    - `config`: a `MarketConfig`; by default of the scenario `default`. `envs.market.scenarios` describes the others.
      Its number of users is not used here.
    - `features`: the `ContextFeatures` of the context; by default fitted on a small history of the config.
    - `render_mode`: None; the env has no render modes. Gymnasium's modes are None, with a warning.

    ## Version History
    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        config: MarketConfig | None = None,
        features: ContextFeatures | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.market = Market(config)
        self.features = features or default_features(self.market.config)
        self.render_mode = supported_render_mode(render_mode, self.metadata["render_modes"])
        self.observation_space: gym.Space[Any] = observation_space(self.features)
        self.action_space = action_space()
        self._state: MarketState | None = None
        self._attributes: dict[str, FloatArray] = {}

    @property
    def modules(self) -> ActionSpace:
        """The modules and the names of their actions."""
        return self.market.modules

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the episode of a new user; there are no options."""
        super().reset(seed=seed, options=options)
        refuse_options(options)
        self._state = self.market.reset(np.array([draw_key(self.np_random)]))
        self._attributes = attribute_features(self.features, self._state.users)
        return self._observe(self._state), {}

    def step(self, action: IntArray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute an action at the slot and advance to the slot of the next day.

        Raises:
            ResetNeeded: If the episode has not begun or is over.
            InvalidAction: If the action is not in the action space.
        """
        state = self._state
        if state is None or self.market.done(state)[0]:
            raise gym.error.ResetNeeded("the episode has not begun or is over: call reset")
        chosen = np.asarray(action)
        if chosen.dtype.kind not in "iu" or not self.action_space.contains(chosen.astype(np.int64)):
            raise gym.error.InvalidAction(f"action {action!r} is not in {self.action_space}")
        result = self.market.step(state, chosen[None])
        terminated = bool(result.unsubscribed[0])
        truncated = bool(self.market.done(state)[0]) and not terminated
        info = {
            "true_effect": float(result.true_effect[0]),
            "incremental": float(result.incremental[0]),
            "executed_action": result.executed[0].copy(),
            "eligible": bool(result.eligible[0]),
        }
        return self._observe(state), float(result.value[0]), terminated, truncated, info

    def _observe(self, state: MarketState) -> Observation:
        batch = observe(self.market, self.features, state, self._attributes)
        return {name: array[0].copy() for name, array in batch.items()}
