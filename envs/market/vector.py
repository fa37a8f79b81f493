"""`CrossChannelMarket-v0` for many users at once, stepped by array operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market.config import MarketConfig
from crosschannel.envs.market.env import (
    Observation,
    action_space,
    default_features,
    draw_key,
    observation_space,
    observe,
    refuse_options,
)
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.observables import attribute_features
from crosschannel.envs.market.state import MarketState
from crosschannel.envs.market.vocabulary import MODULES
from crosschannel.envs.rendering import supported_render_mode
from crosschannel.histories.features import ContextFeatures


class MarketVectorEnv(VectorEnv[Observation, IntArray, npt.NDArray[Any]]):
    """Many simulated users side by side: the native vector form of `MarketEnv`.

    ## Description
    Equal to the last bit to as many single `MarketEnv` with the same seeds, and many times as fast.

    ## Action Space
    `MultiDiscrete` of the single env for each of the users, (N, 6) int64.

    ## Observation Space
    `context` (N, D) float32 and `action_mask` (N, 26) int8, as in the single env.

    ## Rewards
    Goal values of the slots' days (N,), as in the single env; 0 for rows that start a new episode.

    ## Starting State
    A new user for each row. With an integer seed s, row i starts like a single env with seed s + i.

    ## Episode Termination
    As in the single env. A row whose episode has ended starts a new one at the next step, which ignores its action
    (`AutoresetMode.NEXT_STEP`).

    ## Information
    As in the single env: the values (N, ...) of each key, and under `_key` which rows have them (N,): all except those
    that start a new episode.

    ## Arguments
    - `num_envs`: number of users.
    - `config`, `features`, `render_mode`: as in the single env.

    ## Version History
    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        config: MarketConfig | None = None,
        features: ContextFeatures | None = None,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs {num_envs} is below 1: give at least one user")
        self.num_envs = num_envs
        self.market = Market(config)
        self.features = features or default_features(self.market.config)
        self.render_mode = supported_render_mode(render_mode, self.metadata["render_modes"])
        self.single_observation_space = observation_space(self.features)
        self.single_action_space = action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._state: MarketState | None = None
        self._attributes: dict[str, FloatArray] = {}
        self._over: BoolArray = np.zeros(num_envs, dtype=bool)

    @property
    def modules(self) -> ActionSpace:
        """The modules and the names of their actions."""
        return self.market.modules

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the episodes of new users.

        Args:
            seed: One for each row, or an integer s for s, s + 1, ...; rows without a seed keep their random generator.
            options: `reset_mask` (N,) bool: reset only these rows, without seeds; the others stay as they are.

        Raises:
            ConfigError: If the number of seeds or the mask does not fit the rows, or another option is given.
        """
        mask = (options or {}).get("reset_mask")
        refuse_options({name: value for name, value in (options or {}).items() if name != "reset_mask"})
        if mask is not None:
            return self._reset_some(mask, seed)
        seeds: Sequence[int | None]
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = seed
        if len(seeds) != self.num_envs:
            raise ConfigError(f"{len(seeds)} seeds for {self.num_envs} rows: give one per row, or one integer")
        for i, single in enumerate(seeds):
            if single is not None or self._generators[i] is None:
                self._generators[i] = seeding.np_random(single)[0]
        self._state = self.market.reset(self._new_user_keys(np.arange(self.num_envs)))
        self._attributes = attribute_features(self.features, self._state.users)
        self._over = np.zeros(self.num_envs, dtype=bool)
        return observe(self.market, self.features, self._state, self._attributes), {}

    def step(self, actions: IntArray) -> tuple[Observation, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Execute one action per row (N, M); rows whose episode has ended start a new one instead.

        Raises:
            ResetNeeded: If the env was never reset.
            InvalidAction: If an action is not in the action space.
        """
        state = self._state
        if state is None:
            raise gym.error.ResetNeeded("the episodes have not begun: call reset")
        active = ~self._over
        if np.asarray(actions).dtype.kind not in "iu":
            raise gym.error.InvalidAction(f"actions are {np.asarray(actions).dtype}, not integers")
        chosen = np.array(actions, dtype=np.int64)
        if chosen.shape != (self.num_envs, len(MODULES)):
            raise gym.error.InvalidAction(f"actions have shape {chosen.shape}, not {(self.num_envs, len(MODULES))}")
        chosen[self._over] = 0
        if not self.action_space.contains(chosen):
            raise gym.error.InvalidAction(f"an action is not in {self.single_action_space}")

        result = self.market.step(state, chosen, active)
        terminated = result.unsubscribed
        truncated = active & self.market.done(state) & ~terminated
        if self._over.any():
            self._replace(state, np.flatnonzero(self._over))
        self._over = terminated | truncated
        info = {
            "true_effect": result.true_effect,
            "incremental": result.incremental,
            "executed_action": result.executed,
            "eligible": result.eligible,
        }
        marks = {f"_{name}": active.copy() for name in info}
        observation = observe(self.market, self.features, state, self._attributes)
        return observation, result.value, terminated.copy(), truncated, info | marks if active.any() else {}

    def _reset_some(self, mask: BoolArray, seed: Any) -> tuple[Observation, dict[str, Any]]:
        if self._state is None or seed is not None:
            raise ConfigError("option 'reset_mask' needs started rows and takes no seeds: reset them all first")
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ConfigError(f"option 'reset_mask' is not an array of {self.num_envs} bools: {mask!r}")
        self._replace(self._state, np.flatnonzero(mask))
        self._over = self._over & ~mask
        return observe(self.market, self.features, self._state, self._attributes), {}

    def _replace(self, state: MarketState, rows: IntArray) -> None:
        new = self.market.reset(self._new_user_keys(rows))
        state.put(rows, new)
        for name, column in attribute_features(self.features, new.users).items():
            self._attributes[name][rows] = column

    def _new_user_keys(self, rows: IntArray) -> UIntArray:
        generators = [self._generators[row] for row in rows]
        return np.array([draw_key(generator) for generator in generators if generator is not None], dtype=np.uint64)
