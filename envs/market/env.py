"""`CrossChannelMarket-v0`: one simulated user an episode, one decision slot a step."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market.config import MarketConfig
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.observables import attribute_columns, context_of
from crosschannel.envs.market.state import MarketState
from crosschannel.envs.market.vocabulary import MODULES
from crosschannel.histories.features import MAX_ABS_FEATURE, ContextFeatures

Observation = dict[str, npt.NDArray[Any]]

FEATURE_USERS = 300


@lru_cache(maxsize=8)
def default_features(config: MarketConfig) -> ContextFeatures:
    """Context features fitted on a small history of the market: the same for every env of a config."""
    history, _ = Market(replace(config, users=FEATURE_USERS)).history()
    return ContextFeatures.fit(history)


def observation_space(features: ContextFeatures) -> spaces.Dict:
    """What a policy sees of one slot."""
    return spaces.Dict(
        {
            "context": spaces.Box(-MAX_ABS_FEATURE, MAX_ABS_FEATURE, (features.dim,), np.float32),
            "action_mask": spaces.MultiBinary(MODULES.total),
        }
    )


def action_space() -> spaces.MultiDiscrete[Any]:
    """One choice a module."""
    return spaces.MultiDiscrete(np.array(MODULES.sizes))


def refuse_options(options: dict[str, Any] | None) -> None:
    """The market's resets know no options.

    Raises:
        ConfigError: If there are any.
    """
    if options:
        raise ConfigError(f"reset knows no options, but got {sorted(options)}: leave them out")


def observe(
    market: Market, features: ContextFeatures, state: MarketState, attributes: dict[str, FloatArray]
) -> Observation:
    """New arrays of what a policy sees of N slots: `context` (N, D) float32, `action_mask` (N, sum of actions) int8."""
    return {
        "context": context_of(features, state, attributes),
        "action_mask": market.mask(state).astype(np.int8),
    }


def draw_key(generator: np.random.Generator) -> np.uint64:
    """The key of a fresh user."""
    return np.uint64(generator.integers(2**64, dtype=np.uint64))


class MarketEnv(gym.Env[Observation, IntArray]):
    """A simulated user of a multi-service app, to whom a message may be sent once a day, with known effects.

    The app has four services, each a funnel from visit to order. Users visit by themselves; a message may bring
    extra visits, and may make a user unsubscribe. `envs.market.dynamics` has the formulas.

    ## Action Space
    `MultiDiscrete([5, 5, 4, 5, 4, 3])`: channel (none, email, push, sms, in_app), send_time (morning, midday,
    afternoon, evening, night), service (food, groceries, rides, payments), offer, tone and greeting
    (`envs.market.vocabulary` says what is in them). With channel 0 nothing is sent and the other choices have no
    meaning. A slot a day and five send times a day make 35 times a week. An action of which any choice is not eligible
    is executed as sending nothing.

    ## Observation Space
    `Dict(context=Box(-10, 10, (D,), float32), action_mask=MultiBinary(26))`. The context holds standardised counts,
    recencies and attributes that were known strictly before the slot. The mask has the actions of all modules one
    after the other: channels that do not reach the user are 0, all but `none` within `min_gap_days` after a message,
    and actions before their start and after their end (scenario `refresh`).

    ## Rewards
    The goal value of the slot's day: what an app can see, by default 1 for an order, 0.1 for a visit, -3 for an
    unsubscribe, whether or not the message caused it.

    The sum of these rewards over an episode is **not** what the policy is worth. An episode ends where a user
    unsubscribes, and what that user would have gone on doing without messages is then not paid, although in the market
    it goes on: so a lost user costs more here than in truth, and returns of two policies can differ the other way
    round. A policy's worth is the sum of `info["true_effect"]` (or, with the noise of single events,
    `info["incremental"]`), which `envs.market.evaluate_policy` adds up on fresh users. `info["incremental"]` paid as
    the reward makes the return the policy's worth.

    ## Starting State
    A fresh user, drawn from the env's random numbers, after 14 days of organic behaviour. The calendar is that of the
    config's seed and the same in every episode.

    ## Episode End
    Terminated when the user unsubscribes; truncated after the last day (28 slots by default).

    ## Information
    - `true_effect`: expected incremental goal value of the executed action at this slot, in closed form.
    - `incremental`: the part of the reward that the message caused.
    - `executed_action`: the action that was executed, in canonical form.
    - `eligible`: whether it is the chosen one.

    A reset gives no information.

    ## Arguments
    - `config`: a `MarketConfig`; by default that of the scenario `default`; the others are `null`, `dip`, `fatigue`,
      `drift` and `refresh` (`envs.market.scenarios`). Its number of users has no meaning here.
    - `features`: the `ContextFeatures` of the context; by default fitted on a small history of the config.

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
        self.render_mode = render_mode
        self.observation_space: gym.Space[Any] = observation_space(self.features)
        self.action_space = action_space()
        self._state: MarketState | None = None
        self._attributes: dict[str, FloatArray] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins the episode of a fresh user; there are no options."""
        super().reset(seed=seed, options=options)
        refuse_options(options)
        self._state = self.market.reset(np.array([draw_key(self.np_random)]))
        self._attributes = attribute_columns(self.features, self._state.users)
        return self._observe(self._state), {}

    def step(self, action: IntArray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Executes an action at the slot and goes on to the next day's.

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
        outcome = self.market.step(state, chosen[None])
        terminated = bool(outcome.unsubscribed[0])
        truncated = bool(self.market.done(state)[0]) and not terminated
        info = {
            "true_effect": float(outcome.true_effect[0]),
            "incremental": float(outcome.incremental[0]),
            "executed_action": outcome.executed[0].copy(),
            "eligible": bool(outcome.eligible[0]),
        }
        return self._observe(state), float(outcome.value[0]), terminated, truncated, info

    def _observe(self, state: MarketState) -> Observation:
        batch = observe(self.market, self.features, state, self._attributes)
        return {name: array[0].copy() for name, array in batch.items()}
