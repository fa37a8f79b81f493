"""Log of a replay: read-only arrays of the decisions whose reward the log identifies, slot by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, Float32Array, FloatArray, IntArray, ObjectArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys, mix
from crosschannel.core.times import NEVER
from crosschannel.core.wording import counted
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.guardrails import Guardrails, guarded_mask
from crosschannel.histories.history import DecisionLog, History
from crosschannel.histories.propensities.sources import count_sources, describe_sources
from crosschannel.reward import Components, Reason, RewardFrame
from crosschannel.reward.reason import REWARD_REASONS

MIN_STEPS = 2

CHURNED = Reason.CHURNED.text
NOT_FINITE = "reward or its standard error is not a finite number"
FEW_STEPS = "user has too few steps"
SKIPPED = (*(reason.text for reason in REWARD_REASONS), NOT_FINITE, FEW_STEPS)


class Observed(Protocol):
    """What was known at each decision of a history, such as `agents.Observations`."""

    @property
    def context(self) -> Float32Array:
        """Context features (n, D)."""
        ...

    @property
    def action_mask(self) -> BoolArray:
        """Eligible actions (n, sum of actions)."""
        ...


@dataclass(frozen=True, eq=False)
class ReplayLog:
    """Steps of U users, one row for each decision whose reward is identified; all arrays are read-only.

    Rows are sorted by (slot, user): first every user's first step, then the second steps of those who have one, and so
    on. Many users replayed together then read memory from front to back, which is several times as fast as jumping
    from user to user. User u begins at row u, and `next_row` leads from step to step.

    Attributes:
        modules: What could be chosen.
        user_ids: Ids of the users that are replayed (U,).
        user_keys: Stable 64-bit hashes of these ids (U,).
        churned: Whether a user's steps end because the user churned, (U,); otherwise the log ends.
        user: Whose step it is, codes into `user_ids` (n,).
        slot: Which of its user's steps each row is, from 0 on (n,).
        next_row: Row of the same user's next step, -1 after the last (n,).
        context: What was known strictly before each slot (n, D) float32, within +-10.
        action_mask: The eligible actions, without those that have no eligible child (n, sum of actions).
        actions: Logged actions, canonical codes (n, M).
        rewards: Their incremental rewards (n,), finite.
        se: The rewards' standard errors (n,), finite.
        keys: Stable 64-bit hashes of the decision ids (n,).
        propensity: Logged probability of each module's choice given the earlier ones (n, M); NaN where unknown.
        joint: Logged probability of the whole action (n,); NaN where unknown.
        time: When the decision was made, microseconds since 1970 UTC (n,).
        available_at: When the reward is known, in the same unit (n,).
        decided_next: Time of the user's next decision, a step or not; the largest integer after the last (n,).
        decision_row: Row of `History.decisions` of each step (n,).
        skipped: Number of decisions that are not steps, by reason.
        dropped_users: Number of users of the history that are not replayed.
        propensity_source: Where each step's propensities come from (n,), codes into `PROPENSITY_SOURCES`.
        name: The history's name.
        components: The rewards' parts along a funnel, or None without one.
    """

    modules: ActionSpace
    user_ids: ObjectArray
    user_keys: UIntArray
    churned: BoolArray
    user: IntArray
    slot: IntArray
    next_row: IntArray
    context: Float32Array
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
    propensity_source: IntArray
    name: str
    components: Components | None = None

    def __post_init__(self) -> None:
        self._freeze()

    def _freeze(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    def __getstate__(self) -> dict[str, Any]:
        # Arrays that are computed from others are not stored.
        return {name: value for name, value in self.__dict__.items() if name != "steps"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Pickling does not keep the flag that makes arrays read-only.
        self.__dict__.update(state)
        self._freeze()

    def __deepcopy__(self, memo: dict[int, Any]) -> ReplayLog:
        # Gymnasium deep-copies an env's arguments; nothing here can change, so one log serves all its envs.
        return self

    def __repr__(self) -> str:
        return f"ReplayLog({self.name}: {counted(self.n_users, 'user')}, {len(self):,} steps)"

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def n_users(self) -> int:
        """Number of users that are replayed."""
        return len(self.user_ids)

    @property
    def fingerprint(self) -> int:
        """One number that differs between logs of different decisions."""
        with np.errstate(over="ignore"):
            place = np.arange(len(self), dtype=np.uint64)
            return int(mix(np.add(self.keys, place, dtype=np.uint64)).sum())

    @property
    def outside(self) -> int:
        """Number of logged actions that are not eligible, such as those that the guardrails forbid."""
        return int((executable(self.modules, self.action_mask, self.actions) != self.actions).any(axis=1).sum())

    @cached_property
    def steps(self) -> npt.NDArray[np.void]:
        """Information of a step for each row, in one structured array (n,): one memory access reads a whole row."""
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
        min_steps: int = MIN_STEPS,
        guardrails: Guardrails | None = None,
        observations: Observed | None = None,
    ) -> ReplayLog:
        """Prepare a history for replay.

        A decision without an identified reward is not a step: it is never paid as 0, but skipped and counted. A user
        with fewer than `min_steps` steps is dropped and counted: learners may not expect an episode that is truncated
        at its first step.

        Args:
            history: Decisions and events.
            rewards: The rewards of the history's decisions, in its order.
            features: Context features, fitted on this or on another history.
            min_steps: The fewest steps that a user may have, at least 1.
            guardrails: Further limits on the log's eligible actions, or None.
            observations: Output of `features` and `guardrails` at every decision, if it has been computed already.

        Raises:
            ConfigError: If the rewards belong to another history, or there are no steps.
        """
        if len(rewards) != len(history.decisions):
            raise ConfigError(
                f"there are {len(rewards):,} rewards for {len(history.decisions):,} decisions: "
                "compute the rewards from the history that is to be replayed"
            )
        if min_steps < 1:
            raise ConfigError(f"min_steps is {min_steps}, but an episode has at least one step")
        d = history.decisions
        why = _reasons(rewards, late=d.time > history.churned_at[d.user])
        per_user = np.bincount(d.user[why == Reason.IDENTIFIED], minlength=history.n_users)
        kept_user = per_user >= min_steps
        why[(why == Reason.IDENTIFIED) & ~kept_user[d.user]] = SKIPPED.index(FEW_STEPS)
        rows = np.flatnonzero(why == Reason.IDENTIFIED)
        counts = np.bincount(why, minlength=len(SKIPPED))
        skipped = {
            name: int(n) for name, n in zip(SKIPPED, counts, strict=True) if n and name != SKIPPED[Reason.IDENTIFIED]
        }
        if len(rows) == 0:
            raise ConfigError(
                f"{history.name} has nothing to replay: of {len(d):,} decisions none is a step of a user with at least "
                f"{min_steps} of them ({_listed(skipped)}). Use shorter reward windows, a longer history or a reward "
                "model that needs fewer controls"
            )
        rows, slot, next_row = _slot_by_slot(rows, d.user[rows])
        if observations is None:
            context = features.at(history, d.user[rows], d.time[rows])
            action_mask = guarded_mask(guardrails or Guardrails(), history)[rows]
        else:
            context, action_mask = observations.context[rows], observations.action_mask[rows]
        user_ids = history.user_ids[kept_user]
        return cls(
            modules=history.modules,
            user_ids=user_ids if user_ids.dtype.kind in "iu" else user_ids.astype(object),
            user_keys=history.user_keys[kept_user],
            churned=history.churned_at[kept_user] < NEVER,
            user=(np.cumsum(kept_user) - 1)[d.user[rows]],
            slot=slot,
            next_row=next_row,
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
            propensity_source=d.propensity_source[rows],
            name=history.name,
            components=None if rewards.components is None else rewards.components.select(rows),
        )

    @property
    def propensities(self) -> str:
        """Where the propensities come from, in words."""
        return describe_sources(count_sources(self.propensity_source))

    def users_of(self, ids: Sequence[Any] | ObjectArray) -> IntArray:
        """Return codes of users (k,) into `user_ids`, by their ids (k,).

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
                f"it has {counted(self.n_users, 'user')}, such as {str(self.user_ids[0])!r}, "
                f"and dropped {self.dropped_users:,}"
            )
        return codes.astype(np.int64)

    def summary(self) -> str:
        """Describe what is replayed, what was skipped for which reason, and how many users were dropped."""
        steps, users, lost = len(self), self.n_users, sum(self.skipped.values())
        return (
            f"{self.name}: {users:,} of {users + self.dropped_users:,} users and {steps:,} of {steps + lost:,} "
            f"decisions are replayed ({int(self.churned.sum()):,} users end by churn, the others with the log). "
            f"Skipped: {_listed(self.skipped)}. Propensities {self.propensities}"
            + (f". {outside:,} logged actions are not eligible" if (outside := self.outside) else "")
        )


def executable(modules: ActionSpace, mask: BoolArray, actions: IntArray) -> IntArray:
    """Return actions (N, M) as they would be executed: an ineligible one sends nothing, as in the market."""
    rows = np.arange(len(actions))
    ok = modules.valid(actions)
    for m, part in enumerate(modules.split(mask)):
        ok &= part[rows, actions[:, m]]
    out = modules.canonical(actions)
    out[~ok] = 0
    return out


def _decided_next(d: DecisionLog) -> IntArray:
    """Return the time of the same user's next decision, `NEVER` after the last, (n,)."""
    out = np.full(len(d), NEVER, dtype=np.int64)
    same = d.user[1:] == d.user[:-1]
    out[:-1][same] = d.time[1:][same]
    return out


def _reasons(rewards: RewardFrame, late: BoolArray) -> IntArray:
    why = np.array(rewards.reason, dtype=np.int64)
    finite = np.isfinite(rewards.reward) & np.isfinite(rewards.se)
    why[(why == Reason.IDENTIFIED) & ~finite] = SKIPPED.index(NOT_FINITE)
    why[late] = Reason.CHURNED
    return why


def _slot_by_slot(rows: IntArray, user: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Sort rows (n,) of users (n,) by (slot, user) instead of (user, time); return rows, slots and next rows."""
    n = len(rows)
    begins = np.flatnonzero(np.diff(user, prepend=-1))
    slot = np.arange(n) - np.repeat(begins, np.diff(begins, append=n))
    order = np.argsort(slot, kind="stable")
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    next_row = np.append(place[1:], -1)
    next_row[np.append(begins[1:], n) - 1] = -1
    return rows[order].astype(np.int64), slot[order], next_row[order]


def _listed(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in skipped.items()) or "none"
