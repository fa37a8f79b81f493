"""Replay of a history as a Gymnasium environment: one episode is one user, one step is one decision slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.rendering import supported_render_mode
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
    rejection_bound,
    replay_spaces,
    terminal_mask,
)
from crosschannel.envs.replay.timeline import timeline

Observation = dict[str, npt.NDArray[Any]]

EPISODE_REJECTED = (
    "the last slot was rejected, which truncates the episode: what comes next in the log follows the action that was "
    "logged, not the agent's, so later slots would not be distributed as under the agent (their fatigue, gaps and "
    "earlier orders are those of another policy). Call reset() for the next user"
)


class CrossChannelReplay(gym.Env[Observation, IntArray]):
    """A logged history as sequential decisions.

    ## Description
    One episode is one user, one step is one decision slot of the log. The log's actions were executed, not those of the
    agent: mode `logged` replays them as they are, mode `reject` accepts slots so that they are distributed as under the
    agent.

    ## Action Space
    `MultiDiscrete`, one entry per module. Action 0 of the first module sends nothing; then the other entries have no
    meaning.

    ## Observation Space
    `Dict(context=Box, action_mask=MultiBinary)`. `context` (D,) float32 within +-10 is what was known strictly
    before the slot. `action_mask` (sum of actions,) int8 has the modules one after the other, 1 for an eligible
    action; if a module depends on another, `ActionSpace.conditional_mask` restricts its part to what the earlier
    choices allow. All arrays are copies. After an episode's last step there is no further slot: that observation
    repeats the last context, with a mask that allows only sending nothing.

    ## Rewards
    Mode `logged`: the logged incremental reward of the *logged* action, whatever action was passed to `step`.
    The sum of these rewards is the return of the logged policy, and **never that of the agent**: a learner
    learns from `info["executed_action"]`, and a policy's value comes from `evaluation`, which weights by
    `info["propensity"]`. Every step has a reward that the log identifies; other slots are not steps
    (`ReplayLog.summary` counts them).

    Mode `reject`: the logged reward if the slot is accepted, so that the accepted slots are distributed as if the
    agent had decided them (`envs.replay.rejection` has the formula); 0 if it is rejected, which **is not a reward**:
    only steps with `info["accepted"]` count. An action that is not eligible counts as sending nothing.
    Take averages slot by slot: early slots are overrepresented among the accepted ones, since a slot can only be
    accepted if those before it were.

    ## Starting State
    The first slot of the next user. Each pass replays every chosen user once, in an order of its own that is drawn from
    `np_random` when the env is seeded. `reset(options=...)` takes `user`: replay the user with this id out of turn;
    `among`: from now on replay only the users with these ids; `order`: `shuffled`, or `listed` for the order of `among`
    (without it, of the log). A seed, `among` or `order` starts a new sequence of passes over the chosen users.

    ## Episode Termination
    `terminated` after the last slot of a user who unsubscribed or left; `truncated` if the log ends. In mode `logged`
    an action that differs from the logged one never ends an episode. In mode `reject`, if a user's first slot is
    rejected, the episode continues with the first slot of the next user (it is truncated for a user out of turn). A
    later slot that is rejected truncates the episode, and a further `step` raises an error: what would have followed is
    unknown.

    ## Information
    `reset`: `user` (the id), `pass` (number of the pass, -1 out of turn) and `mode`.
    `step`: these, and for the decision that was just replayed: `executed_action` (M,), `propensity` (of the whole
    executed action), `propensities` (M,) (of each module's choice given the earlier ones), `matched` (the action
    passed equals the executed one), `matched_modules` (M,), `se` (the reward's standard error), `slot` (which of
    the user's steps, from 0), `key` (hash of the decision id), `row` (row of the `ReplayLog`), `decision_row` (row of
    the history's decisions) and `available_at` (when the reward is known, microseconds since 1970 UTC). A propensity
    that the log does not have is left out. Mode `reject` adds `accepted`, `weight` and `acceptance` (the probability of
    acceptance); `step_distribution` and `step_logged` leave out `matched` and `matched_modules`.

    ## Arguments
    - `log`: the log to replay; by default a small simulated one.
    - `mode`: `logged` or `reject`: see the rewards above.
    - `shard`: `(i, n)`: take every n-th user of the shared order, starting at the i-th. n envs with the shards 0 to
      n - 1 and the same seed replay each user once in a pass, and equal `CrossChannelReplayVector` with n sub-envs.
    - `largest_weight`: for mode `reject`, a bound that no weight of the policy exceeds; its inverse is the expected
      share of accepted slots. By default 1 / the smallest propensity, which holds for every policy;
      `envs.replay.largest_weight` computes the bound of a fixed policy.
    - `render_mode`: None, or `ansi`: `render()` returns the user's timeline as text. Gymnasium's other modes are None,
      with a warning.

    ## Version History
    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        log: ReplayLog | None = None,
        mode: str = "logged",
        shard: tuple[int, int] = (0, 1),
        largest_weight: float | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.log = default_log() if log is None else log
        self.mode = check_mode(mode)
        self.largest_weight = rejection_bound(self.log, mode, largest_weight)
        self.render_mode = supported_render_mode(render_mode, self.metadata["render_modes"])
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
        self._rejected = False
        self._tally = np.zeros(3)
        self._shown: list[tuple[int, IntArray | None, str]] = []

    @property
    def passes_completed(self) -> int:
        """Number of complete passes over the chosen users of this env's shard."""
        under_way = not self._done and self._pass != OUT_OF_TURN
        served = self._next - self.shard[1] * under_way
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
        """Start the next user's episode; with a seed, that of the first user of a new order.

        Args:
            seed: Seed for `np_random` and a new order.
            options: `user`: replay the user with this id out of turn. `among`: ids of the users to replay from now on.
                `order`: `shuffled` or `listed`.

        Raises:
            ConfigError: If an option or a user is unknown.
        """
        super().reset(seed=seed)
        options = check_options(options, ("user", "among", "order"))
        if seed is not None or self._order is None or chooses_users(options):
            self._order = draw_order(self.log, self.np_random, self.shard[1], options)
            self._next = self.shard[0]
            self._tally[:] = 0
        if "user" in options:
            self._begin(int(self.log.users_of([options["user"]])[0]), OUT_OF_TURN)
        else:
            self._begin_next()
        return self._observation(), self._episode()

    def step(self, action: IntArray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Replay one slot; the action is only compared with the logged one.

        Raises:
            ResetNeeded: If no episode is active.
            InvalidAction: If the action is not in the action space.
        """
        self._check_under_way()
        if not self.action_space.contains(action):
            raise gym.error.InvalidAction(f"action {action!r} is not in {self.action_space}")
        log, row, chosen = self.log, self._row, np.asarray(action)
        # `matching` of one row, without its array operations.
        logged = log.actions[row]
        sends, sent = bool(chosen[0] != 0), bool(logged[0] != 0)
        same = chosen == logged if sends and sent else np.full(len(logged), sends == sent)
        info = {"matched": bool(same.all()), "matched_modules": same}
        weights = action_weights(log, np.array([row]), chosen[None]) if self.mode == "reject" else None
        return self._advance(weights, chosen, info)

    def step_distribution(
        self, probabilities: Sequence[FloatArray]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Replay one slot in mode `reject`, given the agent's probabilities instead of an action sampled from them.

        Args:
            probabilities: One array (A_m,) per module, given the parent's choice if it has one.

        Raises:
            ConfigError: In mode `logged`, or if a weight exceeds `largest_weight`.
            ResetNeeded: If no episode is active.
            InvalidAction: If these are not probabilities of eligible actions.
        """
        check_distribution_mode(self.mode)
        self._check_under_way()
        given = [np.asarray(p)[None] for p in probabilities]
        return self._advance(distribution_weights(self.log, np.array([self._row]), given), None, {})

    def step_logged(self) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Replay one slot like `step` in mode `logged`, for a learner that need not choose an action.

        Raises:
            ConfigError: In mode `reject`.
            ResetNeeded: If no episode is active.
        """
        check_logged_mode(self.mode)
        self._check_under_way()
        return self._advance(None, None, {})

    def render(self) -> str | None:
        """Return the user's timeline so far, in render mode `ansi`."""
        if self.render_mode is None:
            return None
        rows = [row for row, _, _ in self._shown] + ([] if self._done else [self._row])
        head = f"mode {self.mode}" if self._pass == OUT_OF_TURN else f"pass {self._pass} | mode {self.mode}"
        chosen, answers = [c for _, c, _ in self._shown], [a for _, _, a in self._shown]
        return timeline(self.log, self._user, rows, answers, chosen, head)

    def _check_under_way(self) -> None:
        if self._done:
            raise gym.error.ResetNeeded(
                EPISODE_REJECTED if self._rejected else "no episode is active: call reset() first"
            )

    def _advance(
        self, weights: FloatArray | None, chosen: IntArray | None, extra_info: dict[str, Any]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Pay the reward of the slot, collect its information, and advance to the next slot."""
        log, row = self.log, self._row
        info = self._episode() | self._decision(row) | extra_info
        kept = True
        if weights is not None:
            assert self._order is not None
            likely = acceptance(weights, self.largest_weight)
            kept = bool(accepted(log, np.array([row]), np.array([self._pass]), self._order.seed, likely)[0])
            self._tally += (1, kept, weights[0])
            info |= {"accepted": kept, "weight": float(weights[0]), "acceptance": float(likely[0])}
        answer = "matched" if extra_info.get("matched") else "-"
        if weights is not None:
            answer = "accepted" if kept else "rejected"
        self._shown.append((row, chosen, answer))
        reward = float(log.rewards[row]) if kept else 0.0
        if not kept and row == self._user and self._pass != OUT_OF_TURN:
            self._begin_next()
            return self._observation(), reward, False, False, info
        next_row = int(log.next_row[row])
        self._rejected = not kept
        self._done = self._rejected or next_row < 0
        terminated = kept and self._done and bool(log.churned[self._user])
        if not self._done:
            self._row = next_row
        return self._observation(), reward, terminated, self._done and not terminated, info

    def _begin_next(self) -> None:
        assert self._order is not None
        position, self._next = self._next, self._next + self.shard[1]
        self._begin(int(self._order.users(np.array([position]))[0]), position // len(self._order))

    def _begin(self, user: int, number: int) -> None:
        self._user, self._pass = user, number
        self._row = user  # a user's first step is the row of the user's code
        self._done = self._rejected = False
        self._shown = []

    def _observation(self) -> Observation:
        mask = self._nowhere if self._done else self.log.action_mask[self._row]
        return {"context": self.log.context[self._row].copy(), "action_mask": mask.astype(np.int8)}

    def _episode(self) -> dict[str, Any]:
        return {"user": self.log.user_ids[self._user], "pass": self._pass, "mode": self.mode}

    def _decision(self, row: int) -> dict[str, Any]:
        log = self.log
        info = {
            "executed_action": log.actions[row].copy(),
            "se": float(log.se[row]),
            "slot": log.slot[row],
            "key": log.keys[row],
            "row": row,
            "decision_row": log.decision_row[row],
            "available_at": log.available_at[row],
        }
        if np.isfinite(log.joint[row]):
            info["propensity"] = float(log.joint[row])
        if np.isfinite(log.propensity[row]).all():
            info["propensities"] = log.propensity[row].copy()
        return info
