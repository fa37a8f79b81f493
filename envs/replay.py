"""Replay of a history as a Gymnasium environment: one episode a user, one step a decision slot."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from envs.embedded import embedded_log
from envs.replay_log import ReplayLog
from envs.replay_order import PassOrder
from histories.context import CLIP
from histories.errors import ConfigError, nearest
from histories.modules import BoolArray, IntArray, Modules

Observation = dict[str, npt.NDArray[Any]]

MODES = ("logged",)
OUT_OF_TURN = -1


class CrossChannelReplay(gym.Env[Observation, IntArray]):
    """A logged history as sequential decisions: one episode is one user, one step is one decision slot.

    ## Action Space
    `MultiDiscrete`, one entry a module. Action 0 of the first module sends nothing; then the other entries have no
    meaning.

    ## Observation Space
    `Dict(context=Box, action_mask=MultiBinary)`. `context` (D,) float32 within +-10 is what was known strictly
    before the slot. `action_mask` (sum of actions,) int8 has the modules one after the other, 1 for an eligible
    action. All arrays are copies. After an episode's last step there is no further slot: that observation repeats the
    last context, with a mask under which only sending nothing is eligible.

    ## Rewards
    Mode `logged`: the logged incremental reward of the *logged* action, whatever action was passed to `step`.
    The sum of these rewards is a fact about the logged policy and **never the agent's return**: a learner
    learns from `info["executed_action"]`, and a policy's value comes from `evaluation`, which weights by
    `info["propensity"]`. Every step has a reward that the log identifies; other slots are no steps
    (`ReplayLog.summary` counts them).

    ## Starting State
    The first slot of the next user. Each pass serves every user once, in an order of its own that is drawn from
    `np_random` when the env is seeded. `reset(options={"user": id})` replays one user out of turn.

    ## Episode End
    `terminated` after the last slot of a user who unsubscribed or left; `truncated` where the log ends. An action that
    differs from the logged one never ends an episode.

    ## Information
    `reset`: `user` (the id), `pass` (number of the pass, -1 out of turn) and `mode`.
    `step`: these, and of the decision that was just replayed: `executed_action` (M,), `propensity` (of the whole
    executed action), `propensities` (M,) (of each module's choice given the earlier ones), `matched` (the action
    passed equals the executed one), `matched_modules` (M,), `se` (the reward's standard error), `key` (hash of
    the decision id), `decision_row` (row of the history's decisions) and `available_at` (when the reward is known,
    microseconds since 1970 UTC). A propensity that the log does not give is left out.

    ## Arguments
    log: What to replay; by default a small embedded market history.
    mode: What a step pays; `logged` is the only mode.
    shard: `(i, n)`: take every n-th user of the shared order from the i-th on. n envs with the shards 0 to n - 1
    and the same seed serve each user once in a pass, and equal `CrossChannelReplayVector` with n sub-envs.

    ## Version History
    v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, log: ReplayLog | None = None, mode: str = "logged", shard: tuple[int, int] = (0, 1)) -> None:
        self.log = embedded_log() if log is None else log
        self.mode = known_mode(mode)
        first, stride = shard
        if not 0 <= first < stride:
            raise ConfigError(f"shard {shard} is not (i, n) with 0 <= i < n")
        self.shard = (int(first), int(stride))
        self.observation_space: gym.Space[Any]
        self.observation_space, self.action_space = replay_spaces(self.log)
        self._nowhere = terminal_mask(self.log.modules)
        self._order: PassOrder | None = None
        self._next = self.shard[0]
        self._pass = OUT_OF_TURN
        self._user = 0
        self._row = 0
        self._done = True

    @property
    def passes_completed(self) -> int:
        """How many passes over all users are complete, as far as this env's shard is concerned."""
        under_way = not self._done and self._pass != OUT_OF_TURN
        return (self._next - self.shard[1] * under_way) // self.log.n_users

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins the next user's episode; with a seed, the first user's of a new order.

        Args:
            seed: Seeds `np_random` and draws a new order.
            options: `user`: replay the user with this id out of turn.

        Raises:
            ConfigError: If an option or the user is unknown.
        """
        super().reset(seed=seed)
        options = known_options(options, ("user",))
        if seed is not None or self._order is None:
            self._order = draw_order(self.log, self.np_random, self.shard[1])
            self._next = self.shard[0]
        if "user" in options:
            self._user, self._pass = int(self.log.users_of([options["user"]])[0]), OUT_OF_TURN
        else:
            self._user = int(self._order.users(np.array([self._next]))[0])
            self._pass = self._next // self.log.n_users
            self._next += self.shard[1]
        self._row = self._user  # a user's first step is the row of the user's code
        self._done = False
        return self._observation(), self._episode()

    def step(self, action: IntArray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Replays one slot; the action is only compared with the logged one.

        Raises:
            ResetNeeded: If no episode is under way.
            InvalidAction: If the action is not in the action space.
        """
        if self._done:
            raise gym.error.ResetNeeded("no episode is under way: call reset() first")
        if not self.action_space.contains(action):
            raise gym.error.InvalidAction(f"action {action!r} is not in {self.action_space}")
        log, row = self.log, self._row
        following = int(log.following[row])
        self._done = following < 0
        terminated = self._done and bool(log.gone[self._user])
        info = self._episode() | self._decision(row, np.asarray(action))
        if not self._done:
            self._row = following
        return self._observation(), float(log.rewards[row]), terminated, self._done and not terminated, info

    def _observation(self) -> Observation:
        mask = self._nowhere if self._done else self.log.action_mask[self._row]
        return {"context": self.log.context[self._row].copy(), "action_mask": mask.astype(np.int8)}

    def _episode(self) -> dict[str, Any]:
        return {"user": self.log.user_ids[self._user], "pass": self._pass, "mode": self.mode}

    def _decision(self, row: int, action: IntArray) -> dict[str, Any]:
        log = self.log
        same = matching(log.modules, action[None], log.actions[row : row + 1])[0]
        info = {
            "executed_action": log.actions[row].copy(),
            "matched": bool(same.all()),
            "matched_modules": same,
            "se": float(log.se[row]),
            "key": log.keys[row],
            "decision_row": log.decision_row[row],
            "available_at": log.available_at[row],
        }
        if np.isfinite(log.joint[row]):
            info["propensity"] = float(log.joint[row])
        if np.isfinite(log.propensity[row]).all():
            info["propensities"] = log.propensity[row].copy()
        return info


def known_mode(mode: str) -> str:
    """The mode itself.

    Raises:
        ConfigError: If replay has no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"replay has no mode {mode!r}. {nearest(mode, MODES)}")
    return mode


def known_options(options: dict[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """The options of `reset`, {} if there are none.

    Raises:
        ConfigError: If one is unknown.
    """
    for name in options or {}:
        if name not in known:
            raise ConfigError(f"reset has no option {name!r}. {nearest(name, known)}")
    return options or {}


def replay_spaces(log: ReplayLog) -> tuple[spaces.Dict, spaces.MultiDiscrete]:
    """Observation and action space of one env that replays a log."""
    observation = spaces.Dict(
        {
            "context": spaces.Box(-CLIP, CLIP, (log.context.shape[1],), np.float32),
            "action_mask": spaces.MultiBinary(log.modules.total),
        }
    )
    return observation, spaces.MultiDiscrete(np.array(log.modules.sizes, dtype=np.int64))


def draw_order(log: ReplayLog, rng: np.random.Generator, block: int) -> PassOrder:
    """An order of the log's users in all passes, `block` users at a time."""
    return PassOrder(log.user_keys, int(rng.integers(2**63)), block)


def terminal_mask(modules: Modules) -> BoolArray:
    """The mask (sum of actions,) under which only sending nothing is eligible."""
    return np.asarray(modules.closed(np.zeros((1, modules.total), dtype=bool))[0])


def matching(modules: Modules, chosen: IntArray, executed: IntArray) -> BoolArray:
    """For each module, whether the chosen action equals the executed one, (N, M).

    Where nothing is sent the later modules make no choice, so that they match only if neither sends or both do.
    """
    first, second = modules.sent(chosen), modules.sent(executed)
    same = (chosen == executed) & (first & second)[:, None]
    return np.asarray(same | ~(first | second)[:, None])
