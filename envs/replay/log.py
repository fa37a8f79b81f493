"""The log as a replay walks it: frozen arrays of the decisions whose reward the log identifies, slot by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys, mix
from crosschannel.histories.churn import GONE_EVENTS, NEVER, gone_at
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.guardrails import Guardrails, guarded
from crosschannel.histories.history import DecisionLog, History
from crosschannel.reward.frame import GONE as LATE
from crosschannel.reward.frame import IDENTIFIED, REASONS, RewardFrame

MIN_STEPS = 2

GONE = REASONS[LATE]
NOT_FINITE = "reward or its standard error is not a finite number"
FEW_STEPS = "user has too few steps"
SKIPPED = (*REASONS, NOT_FINITE, FEW_STEPS)


class Observed(Protocol):
    """What was known at each decision of a history, such as `agents.Observations`."""

    @property
    def context(self) -> npt.NDArray[np.float32]:
        """Context features (n, D)."""
        ...

    @property
    def action_mask(self) -> BoolArray:
        """Eligible actions (n, sum of actions)."""
        ...


@dataclass(frozen=True, eq=False)
class ReplayLog:
    """Steps of U users, one row a decision whose reward is identified; all arrays are read-only.

    Rows are sorted by (slot, user): first every user's first step, then the second steps of those who have one, and so
    on. Many users replayed together then read memory from front to back, which is several times as fast as jumping
    from user to user. User u begins at row u, and `following` leads from step to step.

    Attributes:
        modules: What could be chosen.
        user_ids: Ids of the users that are replayed (U,).
        user_keys: Stable 64-bit hashes of these ids (U,).
        gone: Whether a user's steps end because the user unsubscribed or left, (U,); otherwise the log ends.
        user: Whose step it is, codes into `user_ids` (n,).
        slot: Which of its user's steps each row is, from 0 on (n,).
        following: Row of the same user's next step, -1 after the last (n,).
        context: What was known strictly before each slot (n, D) float32, within +-10.
        action_mask: The eligible actions, without the choices that lead nowhere (n, sum of actions).
        actions: Logged actions, canonical codes (n, M).
        rewards: Their incremental rewards (n,), finite.
        se: The rewards' standard errors (n,), finite.
        keys: Stable 64-bit hashes of the decision ids (n,).
        propensity: Logged probability of each module's choice given the earlier ones (n, M); NaN where unknown.
        joint: Logged probability of the whole action (n,); NaN where unknown.
        time: When the decision was made, microseconds since 1970 UTC (n,).
        available_at: When the reward is known, in the same unit (n,).
        decided_next: When the user's next decision was made, a step or not; the largest integer after the last (n,).
        decision_row: Which row of `History.decisions` each step is (n,).
        skipped: How many decisions are no steps, for each reason.
        dropped_users: How many users of the history are not replayed.
        propensity_source: Where the propensities come from.
        name: The history's name.
    """

    modules: ActionSpace
    user_ids: ObjectArray
    user_keys: UIntArray
    gone: BoolArray
    user: IntArray
    slot: IntArray
    following: IntArray
    context: npt.NDArray[np.float32]
    action_mask: BoolArray
    actions: IntArray
    rewards: FloatArray
    se: FloatArray
    keys: UIntArray
    propensity: FloatArray
    joint: FloatArray
    time: IntArray
    available_at: IntArray
    decided_next: IntArray
    decision_row: IntArray
    skipped: Mapping[str, int]
    dropped_users: int
    propensity_source: str
    name: str

    def __post_init__(self) -> None:
        self._freeze()

    def _freeze(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    def __getstate__(self) -> dict[str, Any]:
        # What is made of the other arrays is made anew, not kept twice.
        return {name: value for name, value in self.__dict__.items() if name != "steps"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Pickling does not keep the flag that makes arrays read-only.
        self.__dict__.update(state)
        self._freeze()

    def __deepcopy__(self, memo: dict[int, Any]) -> ReplayLog:
        # Gymnasium deep-copies an env's arguments; nothing here can change, so one log serves all its envs.
        return self

    def __repr__(self) -> str:
        return f"ReplayLog({self.name}: {self.n_users:,} users, {len(self):,} steps)"

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def n_users(self) -> int:
        """How many users are replayed."""
        return len(self.user_ids)

    @property
    def fingerprint(self) -> int:
        """One number that differs between logs of different decisions."""
        with np.errstate(over="ignore"):
            place = np.arange(len(self), dtype=np.uint64)
            return int(mix(np.add(self.keys, place, dtype=np.uint64)).sum())

    @property
    def outside(self) -> int:
        """How many logged actions are not eligible themselves: the guardrails forbid what the log did."""
        return int((executable(self.modules, self.action_mask, self.actions) != self.actions).any(axis=1).sum())

    @cached_property
    def steps(self) -> npt.NDArray[np.void]:
        """What a step tells of each row, side by side (n,): one jump to a row reads it all."""
        m = len(self.modules)
        columns: dict[str, tuple[Any, Any]] = {
            "executed_action": (self.actions, (np.int64, (m,))),
            "propensities": (self.propensity, (np.float64, (m,))),
            "propensity": (self.joint, np.float64),
            "se": (self.se, np.float64),
            "key": (self.keys, np.uint64),
            "decision_row": (self.decision_row, np.int64),
            "available_at": (self.available_at, np.int64),
            "slot": (self.slot, np.int64),
            "known_propensity": (np.isfinite(self.joint), np.bool_),
            "known_propensities": (np.isfinite(self.propensity).all(axis=1), np.bool_),
        }
        layout = [(name, *(kind if isinstance(kind, tuple) else (kind,))) for name, (_, kind) in columns.items()]
        out = np.empty(len(self), dtype=np.dtype(layout, align=True))
        for name, (column, _) in columns.items():
            out[name] = column
        out.setflags(write=False)
        return out

    @classmethod
    def build(
        cls,
        history: History,
        rewards: RewardFrame,
        features: ContextFeatures,
        *,
        gone_events: Sequence[str] = GONE_EVENTS,
        min_steps: int = MIN_STEPS,
        guardrails: Guardrails | None = None,
        observations: Observed | None = None,
    ) -> ReplayLog:
        """Prepares a history for replay.

        A decision without an identified reward is no step: it is never paid as 0, but skipped and counted. A user
        with fewer than `min_steps` steps is dropped and counted: an episode that is truncated at its first step
        breaks what learners may expect of an env.

        Args:
            history: Decisions and events.
            rewards: The rewards of the history's decisions, in its order.
            features: Context features, fitted on this or on another history.
            gone_events: Events after which a user is gone; slots after the first of them are no steps.
            min_steps: The fewest steps that a user may have, at least 1.
            guardrails: What narrows the log's eligibility further, or None.
            observations: What `features` and `guardrails` give at every decision, where that was made already.

        Raises:
            ConfigError: If the rewards belong to another history, a named event is unknown, or no step is left.
        """
        if len(rewards) != len(history.decisions):
            raise ConfigError(
                f"there are {len(rewards):,} rewards for {len(history.decisions):,} decisions: "
                "compute the rewards from the history that is to be replayed"
            )
        if min_steps < 1:
            raise ConfigError(f"min_steps is {min_steps}, but an episode has at least one step")
        d = history.decisions
        left_at = gone_at(history, gone_events)
        why = _reasons(rewards, late=d.time > left_at[d.user])
        per_user = np.bincount(d.user[why == IDENTIFIED], minlength=history.n_users)
        kept_user = per_user >= min_steps
        why[(why == IDENTIFIED) & ~kept_user[d.user]] = SKIPPED.index(FEW_STEPS)
        rows = np.flatnonzero(why == IDENTIFIED)
        counts = np.bincount(why, minlength=len(SKIPPED))
        skipped = {name: int(n) for name, n in zip(SKIPPED, counts, strict=True) if n and name != SKIPPED[IDENTIFIED]}
        if len(rows) == 0:
            raise ConfigError(
                f"{history.name} has nothing to replay: of {len(d):,} decisions none is a step of a user with at least "
                f"{min_steps} of them ({_listed(skipped)}). Use shorter reward windows, a longer history or a reward "
                "model that needs fewer controls"
            )
        rows, slot, following = _slot_by_slot(rows, d.user[rows])
        if observations is None:
            context = features.at(history, d.user[rows], d.time[rows])
            action_mask = guarded(guardrails or Guardrails(), history)[rows]
        else:
            context, action_mask = observations.context[rows], observations.action_mask[rows]
        user_ids = history.user_ids[kept_user]
        return cls(
            modules=history.modules,
            user_ids=user_ids if user_ids.dtype.kind in "iu" else user_ids.astype(object),
            user_keys=history.user_keys[kept_user],
            gone=left_at[kept_user] < NEVER,
            user=(np.cumsum(kept_user) - 1)[d.user[rows]],
            slot=slot,
            following=following,
            context=context,
            action_mask=action_mask,
            actions=d.actions[rows],
            rewards=rewards.reward[rows],
            se=rewards.se[rows],
            keys=d.key[rows],
            propensity=d.propensity[rows],
            joint=d.joint[rows],
            time=d.time[rows],
            available_at=rewards.available_at[rows],
            decided_next=_decided_next(d)[rows],
            decision_row=rows,
            skipped=skipped,
            dropped_users=int(history.n_users - kept_user.sum()),
            propensity_source=history.propensity_source,
            name=history.name,
        )

    def users_of(self, ids: Sequence[Any] | ObjectArray) -> IntArray:
        """Codes of users (k,) into `user_ids`, by their ids (k,).

        Raises:
            ConfigError: If a user is not replayed.
        """
        wanted = np.empty(len(ids), dtype=object)
        wanted[:] = [str(name) for name in ids]
        hashed = keys(wanted)
        order = np.argsort(self.user_keys)
        place = np.minimum(np.searchsorted(self.user_keys, hashed, sorter=order), self.n_users - 1)
        codes = order[place]
        missing = self.user_keys[codes] != hashed
        if missing.any():
            shown = ", ".join(repr(name) for name in wanted[missing][:5])
            raise ConfigError(
                f"the log does not replay {int(missing.sum()):,} of the users asked for ({shown}): "
                f"it has {self.n_users:,} users, such as {str(self.user_ids[0])!r}, and dropped {self.dropped_users:,}"
            )
        return codes.astype(np.int64)

    def summary(self) -> str:
        """What is replayed, what was skipped for which reason, and how many users were dropped."""
        steps, users, lost = len(self), self.n_users, sum(self.skipped.values())
        return (
            f"{self.name}: {users:,} of {users + self.dropped_users:,} users and {steps:,} of {steps + lost:,} "
            f"decisions are replayed ({int(self.gone.sum()):,} users end gone, the others with the log). "
            f"Skipped: {_listed(self.skipped)}. Propensities {self.propensity_source}"
            + (f". {outside:,} logged actions are not eligible" if (outside := self.outside) else "")
        )


def executable(modules: ActionSpace, mask: BoolArray, actions: IntArray) -> IntArray:
    """Actions (N, M) as they would be executed: one that is not eligible sends nothing, as in the market. (N, M)."""
    rows = np.arange(len(actions))
    ok = modules.valid(actions)
    for m, part in enumerate(modules.split(mask)):
        ok &= part[rows, actions[:, m]]
    out = modules.canonical(actions)
    out[~ok] = 0
    return out


def _decided_next(d: DecisionLog) -> IntArray:
    """The time of the same user's next decision, `NEVER` after the last, (n,)."""
    out = np.full(len(d), NEVER, dtype=np.int64)
    same = d.user[1:] == d.user[:-1]
    out[:-1][same] = d.time[1:][same]
    return out


def _reasons(rewards: RewardFrame, late: BoolArray) -> IntArray:
    why = np.array(rewards.reason, dtype=np.int64)
    why[(why == IDENTIFIED) & ~(np.isfinite(rewards.reward) & np.isfinite(rewards.se))] = SKIPPED.index(NOT_FINITE)
    why[late] = LATE
    return why


def _slot_by_slot(rows: IntArray, user: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Rows (n,) of users (n,), sorted by (user, time), sorted anew by (slot, user), with slots and followers."""
    n = len(rows)
    begins = np.flatnonzero(np.diff(user, prepend=-1))
    slot = np.arange(n) - np.repeat(begins, np.diff(begins, append=n))
    order = np.argsort(slot, kind="stable")
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    following = np.append(place[1:], -1)
    following[np.append(begins[1:], n) - 1] = -1
    return rows[order].astype(np.int64), slot[order], following[order]


def _listed(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in skipped.items()) or "none"
