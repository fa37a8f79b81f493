"""Replay of many users at once with array operations: the native vector form of `CrossChannelReplay-v0`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.rendering import supported_render_mode
from crosschannel.envs.replay.env import Observation
from crosschannel.envs.replay.lazy_info import LazyInfo
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.envs.replay.order import PassOrder
from crosschannel.envs.replay.rejection import Acceptance, acceptance, accepted, action_weights, distribution_weights
from crosschannel.envs.replay.settings import (
    OUT_OF_TURN,
    acceptance_of,
    check_distribution_mode,
    check_logged_mode,
    check_mode,
    check_options,
    chooses_users,
    default_log,
    draw_order,
    matching,
    rejection_bound,
    replay_spaces,
    terminal_mask,
)

CURSOR_FIELDS = ("next", "pass", "user", "row", "done", "tally")
DECISION_INFO = ("executed_action", "se", "slot", "key", "decision_row", "available_at", "propensity", "propensities")
PROPENSITY_FLAGS = ("known_propensity", "known_propensities")


class CrossChannelReplayVector(VectorEnv[Observation, IntArray, Any]):
    """N replays of one log side by side: the native vector form of `CrossChannelReplay`.

    ## Description
    Equal to the last bit to `SyncVectorEnv` over N envs with the shards (0, N) to (N - 1, N), each seeded with the
    same seed. The one difference: `step` always returns every key of the information, with a mask of all False if no
    sub-env has it, so that a loop needs no special case.

    Training on every user once takes::

        observation, info = env.reset(seed=seed)
        while env.passes_completed < passes:
            decisions = agent.act(...)  # of observation["context"] and observation["action_mask"].view(bool)
            next_observation, reward, _, _, info = env.step(decisions.actions)
            rows = info["_executed_action"] & (info["pass"] < passes)
            ...  # observation, info["executed_action"], reward, info["se"], info["key"] of these rows
            observation = next_observation

    `info["row"]` is the row of the log, which has all other data of the decision. In mode `logged`, `step_logged()`
    replays a slot for a learner that need not choose an action.

    A sub-env that has replayed its share of a pass starts the next one; `info["pass"]` has the number of the pass.

    ## Action Space
    `MultiDiscrete` of the single env for each of the sub-envs, (N, M) int64.

    ## Observation Space
    `context` (N, D) float32 and `action_mask` (N, sum of actions) int8, as in the single env.

    ## Rewards
    As in the single env (N,); 0 for sub-envs that start a new episode.

    ## Starting State
    The first slots of the next N users, in the same order of passes as in the single env.

    ## Episode Termination
    As in the single env. Autoreset is `NEXT_STEP`: the step after an episode's end ignores that sub-env's action, pays
    0 and returns the first slot of its next user; `info["_executed_action"]` is False there.

    ## Information
    As in the single env: the values (N, ...) of each key, and under `_key` which sub-envs have them (N,). It is
    computed when it is first read. Arrays are new ones at every step, or read-only if they seldom change (`pass`,
    `mode`, and which sub-envs have a key).

    ## Arguments
    - `num_envs`: number of users that are replayed at once; more than the log has are of no use.
    - `log`, `mode`, `largest_weight`: as in the single env.
    - `render_mode`: None; many users are not rendered.

    ## Version History
    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        log: ReplayLog | None = None,
        mode: str = "logged",
        largest_weight: float | None = None,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}; a vector env has at least one")
        self.num_envs = num_envs
        self.render_mode = supported_render_mode(render_mode, self.metadata["render_modes"])
        self.log = default_log() if log is None else log
        self.mode = check_mode(mode)
        self.largest_weight = rejection_bound(self.log, mode, largest_weight)
        self.single_observation_space, self.single_action_space = replay_spaces(self.log)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._nowhere = terminal_mask(self.log.modules)
        self._everyone = np.ones(num_envs, dtype=bool)
        self._modes = constant(np.full(num_envs, mode, dtype=object))
        # Small codes, and limits as wide as the actions: comparing them is a pass over few bytes.
        self._codes = self.log.actions.astype(np.min_scalar_type(max(self.log.modules.sizes)))
        self._limits = np.tile(np.array(self.log.modules.sizes, dtype=np.uint64), (num_envs, 1))
        self._order: PassOrder | None = None
        self._next = np.arange(num_envs, dtype=np.int64)
        self._pass = np.full(num_envs, OUT_OF_TURN, dtype=np.int64)
        self._user = np.zeros(num_envs, dtype=np.int64)
        self._row = np.zeros(num_envs, dtype=np.int64)
        self._done = np.ones(num_envs, dtype=bool)
        self._tally = np.zeros(3)

    @property
    def passes_completed(self) -> int:
        """Number of complete passes: each user was replayed to the last slot, unless `reset` ended an episode early."""
        under_way = ~self._done & (self._pass != OUT_OF_TURN)
        served = int((self._next - self.num_envs * under_way).min())
        return served // (self.log.n_users if self._order is None else len(self._order))

    @property
    def acceptance(self) -> Acceptance:
        """Share of the log that mode `reject` has accepted since the order was drawn."""
        return acceptance_of(self.log, self._tally, self.largest_weight)

    @property
    def modules(self) -> ActionSpace:
        """The modules and the names of their actions."""
        return self.log.modules

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the next user's episode in every sub-env; with a seed, from the start of a new order.

        Args:
            seed: Seed for `np_random` and a new order.
            options: `users`: replay the users with these ids (N,), out of turn. `among` and `order`: as in the single
                env. `reset_mask` (N,) bool: reset only these sub-envs.

        Raises:
            ConfigError: If an option or a user is unknown, or does not fit.
        """
        super().reset(seed=seed)
        options = check_options(options, ("users", "among", "order", "reset_mask"))
        new_order = seed is not None or self._order is None or chooses_users(options)
        chosen = self._reset_mask(options.get("reset_mask"), new_order)
        if new_order:
            self._order = draw_order(self.log, self.np_random, self.num_envs, options)
            self._next = np.arange(self.num_envs, dtype=np.int64)
            self._tally[:] = 0
        users = options.get("users")
        if users is not None and len(users) != self.num_envs:
            raise ConfigError(f"option 'users' has {len(users)} ids for {self.num_envs} sub-envs: give one for each")
        self._begin(np.flatnonzero(chosen), None if users is None else self.log.users_of(users)[chosen])
        return self.observations(), self._episode(chosen, self._user, self._pass)

    def step(self, actions: IntArray) -> tuple[Observation, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Replay one slot in every sub-env, or start the next user if the last episode has ended.

        Args:
            actions: Action codes (N, M); they are only compared with the logged ones.

        Raises:
            ResetNeeded: If the env was never reset.
            InvalidAction: If an action is not in the action space.
        """
        self._check_begun()
        chosen = self._valid(actions)
        weights = None
        if self.mode == "reject":
            acting = np.flatnonzero(~self._done)
            weights = action_weights(self.log, self._row[acting], chosen[acting])
        return self._advance(weights, chosen.astype(self._codes.dtype))

    def step_distribution(
        self, probabilities: Sequence[FloatArray]
    ) -> tuple[Observation, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Replay one slot in every sub-env in mode `reject`, given probabilities instead of actions sampled from them.

        Args:
            probabilities: One array (N, A_m) per module, given the parent's choice if it has one. Those of sub-envs
                that start their next user are ignored.

        Raises:
            ConfigError: In mode `logged`, or if a weight exceeds `largest_weight`.
            ResetNeeded: If the env was never reset.
            InvalidAction: If these are not probabilities of eligible actions.
        """
        check_distribution_mode(self.mode)
        self._check_begun()
        if any(len(p) != self.num_envs for p in probabilities):
            lengths = [len(p) for p in probabilities]
            raise gym.error.InvalidAction(f"probabilities are for {lengths} sub-envs, not all for {self.num_envs}")
        acting = np.flatnonzero(~self._done)
        given = [np.asarray(p)[acting] for p in probabilities]
        weights = distribution_weights(self.log, self._row[acting], given)
        return self._advance(weights, None)

    def step_logged(self) -> tuple[Observation, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Replay one slot like `step` in mode `logged`, for a learner that need not choose actions.

        Raises:
            ConfigError: In mode `reject`.
            ResetNeeded: If the env was never reset.
        """
        check_logged_mode(self.mode)
        self._check_begun()
        return self._advance(None, None)

    def _check_begun(self) -> None:
        if self._order is None:
            raise gym.error.ResetNeeded("no episode is active: call reset() first")

    def _advance(
        self, weights: FloatArray | None, chosen: npt.NDArray[Any] | None
    ) -> tuple[Observation, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Pay the rewards of the slots, collect their information, and advance to the next slot or the next user.

        Args:
            weights: In mode `reject`, the weights of the sub-envs with a slot to judge.
            chosen: The agent's actions (N, M), as small integers, or None if it gave none.
        """
        log, row, acting, begun = self.log, self._row, constant(~self._done), np.flatnonzero(self._done)
        next_row = log.next_row.take(row)
        last = acting & (next_row < 0)
        churned = last & log.churned.take(self._user)
        rewards = log.rewards.take(row)
        rewards[begun] = 0.0
        passed, judged = np.zeros(0, dtype=np.int64), {}
        if weights is not None:
            judged = self._judge(weights, acting)
            rejected = acting & ~judged["accepted"]
            over = rejected & (row == self._user) & (self._pass != OUT_OF_TURN)
            passed = np.flatnonzero(over)
            rewards[rejected] = 0.0
            last, churned = (last | rejected) & ~over, churned & ~rejected
        self._done = last
        self._row = np.where(last, row, next_row)
        self._begin(begun, None)
        info = LazyInfo(partial(self._step_info, row, acting, begun, chosen, judged, self._user, self._pass))
        self._begin(passed, None)
        return self.observations(), rewards, last & churned, last & ~churned, info

    def _step_info(
        self,
        row: IntArray,
        acting: BoolArray,
        begun: IntArray,
        chosen: npt.NDArray[Any] | None,
        judged: dict[str, npt.NDArray[Any]],
        user: IntArray,
        number: IntArray,
    ) -> dict[str, Any]:
        """Return the information of a step: users and executed actions; 0 for sub-envs that start a new episode.

        Its arguments are arrays of that step, which do not change afterwards.
        """
        taken = self.log.steps.take(row)
        taken[begun] = 0
        stood = row.copy()
        stood[begun] = 0
        info: dict[str, Any] = {name: taken[name] for name in DECISION_INFO} | {"row": stood} | judged
        if chosen is not None:
            same = matching(self.log.modules, chosen, self._codes.take(row, axis=0))
            same[begun] = False
            info |= {"matched": np.logical_and.reduce(same.T), "matched_modules": same}
        for name in tuple(info):
            known = f"known_{name}"
            info[f"_{name}"] = taken[known] if known in PROPENSITY_FLAGS else acting
        return info | self._episode(self._everyone, user, number)

    def _judge(self, weights: FloatArray, acting: BoolArray) -> dict[str, npt.NDArray[Any]]:
        """Accept or reject the slots of the acting sub-envs, given one weight for each."""
        assert self._order is not None
        rows = np.flatnonzero(acting)
        likely = acceptance(weights, self.largest_weight)
        kept = accepted(self.log, self._row[rows], self._pass[rows], self._order.seed, likely)
        self._tally += (len(rows), kept.sum(), weights.sum())
        out: dict[str, npt.NDArray[Any]] = {}
        for name, value in {"accepted": kept, "weight": weights, "acceptance": likely}.items():
            out[name] = np.zeros(self.num_envs, dtype=value.dtype)
            out[name][rows] = value
        return out

    def observations(self) -> Observation:
        """Return the current observations, as `reset` and `step` do: copies, (N, D) and (N, sum of actions)."""
        mask = self.log.action_mask.take(self._row, axis=0, mode="clip")
        mask[np.flatnonzero(self._done)] = self._nowhere
        return {"context": self.log.context.take(self._row, axis=0, mode="clip"), "action_mask": mask.view(np.int8)}

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to resume with the same bits, as plain values."""
        return {
            "log": self.log.fingerprint,
            "mode": self.mode,
            "largest_weight": self.largest_weight,
            "rng": self.np_random.bit_generator.state,
            "order": None if self._order is None else self._order.state_dict(),
            **{name: getattr(self, f"_{name}").tolist() for name in CURSOR_FIELDS},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state of `state_dict`; `observations()` then returns the current observations.

        Raises:
            ConfigError: If the state belongs to another log, mode, bound or number of sub-envs.
        """
        for name, mine, theirs in (
            ("log", self.log.fingerprint, state["log"]),
            ("mode", self.mode, state["mode"]),
            ("largest weight", self.largest_weight, state["largest_weight"]),
            ("number of sub-envs", self.num_envs, len(state["row"])),
        ):
            if mine != theirs:
                raise ConfigError(f"this replay's {name} is {mine!r}, but the saved state's is {theirs!r}")
        rng = np.random.Generator(np.random.PCG64(0))
        rng.bit_generator.state = state["rng"]
        self.np_random = rng
        order = state["order"]
        self._order = None if order is None else PassOrder.from_state_dict(order, self.log.user_keys, self.num_envs)
        for name in CURSOR_FIELDS:
            setattr(self, f"_{name}", np.array(state[name], dtype=getattr(self, f"_{name}").dtype))

    def _reset_mask(self, mask: BoolArray | None, new_order: bool) -> BoolArray:
        if mask is None:
            return np.ones(self.num_envs, dtype=bool)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ConfigError(f"option 'reset_mask' is not an array of {self.num_envs} bools: {mask!r}")
        if new_order:
            raise ConfigError("a new order is for all sub-envs: reset them all first, without 'reset_mask'")
        return mask

    def _begin(self, which: IntArray, users: IntArray | None) -> None:
        """Start an episode in the sub-envs `which` (k,), of the users with these codes (k,) or of the next ones."""
        if len(which) == 0:
            return
        if users is None:
            assert self._order is not None
            position = self._next[which]
            users, number = self._order.users(position), position // len(self._order)
            self._next[which] += self.num_envs
        else:
            number = np.full(len(users), OUT_OF_TURN)
        # New arrays, since the old ones are or will be part of a step's information.
        self._pass, self._user = self._pass.copy(), self._user.copy()
        self._pass[which], self._user[which] = number, users
        self._row[which] = users  # a user's first step is the row of the user's code
        self._done[which] = False

    def _valid(self, actions: IntArray) -> IntArray:
        sizes = self.log.modules.sizes
        actions, shape = np.asarray(actions), (self.num_envs, len(sizes))
        if actions.shape != shape or actions.dtype.kind not in "iu":
            raise gym.error.InvalidAction(f"actions are {actions.dtype} {actions.shape}, not integers {shape}")
        actions = actions.astype(np.int64, copy=False)
        if not (actions.view(np.uint64) < self._limits).all():  # a code below 0 becomes a very large one
            raise gym.error.InvalidAction(f"some actions are not in {self.single_action_space}")
        return actions

    def _episode(self, chosen: BoolArray, user: IntArray, number: IntArray) -> dict[str, Any]:
        """Return the information about the users that the chosen sub-envs replay."""
        info: dict[str, Any] = {"user": self.log.user_ids[user], "pass": constant(number), "mode": self._modes}
        for name, value in tuple(info.items()):
            if not chosen.all():
                info[name] = value.copy()
                info[name][~chosen] = None if value.dtype == object else 0
            info[f"_{name}"] = constant(chosen)
        return info


def constant(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only view of an array."""
    view = array.view()
    view.setflags(write=False)
    return view
