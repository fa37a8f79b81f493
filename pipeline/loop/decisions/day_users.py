"""What is decided for a day, and what users look like then: who is decided for, and what may be sent to whom."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.agents import Observations
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.hashing import row_fingerprints
from crosschannel.histories.arms import AGENT, BUSINESS_AS_USUAL, Arms, assign_arms
from crosschannel.histories.eligibility import without_churned
from crosschannel.histories.guardrails import Guardrails, allowed_actions
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows, without_decisions
from crosschannel.pipeline.loop.decisions.eligible import own_decisions
from crosschannel.pipeline.run_files import TrainedWith

USERS_FILE = "users.json"


@dataclass(frozen=True)
class DayRequest:
    """What is decided for a day.

    Attributes:
        at: Time of the decisions, microseconds since 1970 UTC.
        guardrails: Limits on what is sent.
        explore: Whether the policy explores.
        device: Where the agent computes.
        seed: Seed of the draws.
        clear_ids: Whether decision ids have the users' ids in them, instead of a keyed hash.
    """

    at: int
    guardrails: Guardrails = field(default_factory=Guardrails)
    explore: bool = True
    device: str = "cpu"
    seed: int = 0
    clear_ids: bool = False


@dataclass(frozen=True)
class DayPolicy:
    """The policy that decides for a day, and for whom.

    Attributes:
        trained_with: What it has learned with.
        version: Its version.
        arms: The arms; it decides for the users of one of them.
    """

    trained_with: TrainedWith
    version: str
    arms: Arms


@dataclass(frozen=True)
class DayUsers:
    """All users of a log at the time of decisions; N of them have a row.

    Attributes:
        user_ids: Ids of all users (U,).
        arm: Their arms (U,).
        users: The user of each row (N,).
        decides: Which rows the agent decides for (N,).
        waits: Which are of the agent's arm and wait for the roll-out (N,).
        churned: Which have churned (N,).
        unguarded: What may be sent before guardrails (N, sum of actions).
        eligible: What may be sent (N, sum of actions).
        contexts: Hashes of what the policy sees (N,).
        modules: The action space.
        log_ends: End of the log, microseconds since 1970 UTC.
    """

    user_ids: ObjectArray
    arm: ObjectArray
    users: IntArray
    decides: BoolArray
    waits: BoolArray
    churned: BoolArray
    unguarded: BoolArray
    eligible: BoolArray
    contexts: ObjectArray
    modules: ActionSpace
    log_ends: int

    def without_choice(self) -> dict[str, int]:
        """Return how many users whom the agent decides for can be sent nothing, by the first reason that holds."""
        closed = self.decides & ~self._sendable(self.eligible)
        open_before = self._sendable(self.unguarded)
        return {
            "churned": int((closed & self.churned).sum()),
            "not eligible": int((closed & ~self.churned & ~open_before).sum()),
            "guardrails": int((closed & ~self.churned & open_before).sum()),
        }

    def _sendable(self, mask: BoolArray) -> BoolArray:
        first = self.modules.slices[0]
        return np.asarray(self.modules.feasible_mask(mask)[:, first][:, 1:].any(axis=1))

    def write(self, folder: Path) -> None:
        """Write it into a folder, one file for each column, texts with a fixed width."""
        for name, column in self._columns().items():
            np.save(folder / f"{name}.npy", column.astype(str) if column.dtype == object else column)
        other = {"columns": list(self._columns()), "modules": self.modules.to_dict(), "log_ends": self.log_ends}
        (folder / USERS_FILE).write_text(json.dumps(other), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> DayUsers:
        """Return what `write` wrote."""
        other = json.loads((folder / USERS_FILE).read_text(encoding="utf-8"))
        columns = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in other["columns"]}
        texts = {name: column.astype(object) for name, column in columns.items() if column.dtype.kind == "U"}
        return cls(**{**columns, **texts}, modules=ActionSpace.from_dict(other["modules"]), log_ends=other["log_ends"])

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: column for name, column in found.items() if isinstance(column, np.ndarray)}


@dataclass(frozen=True)
class Deciders:
    """The users whom the agent decides for.

    Attributes:
        seen: What it sees of them.
        has_slot: Which of them can get a message at all, and so count for a limit per user (n,).
    """

    seen: Observations
    has_slot: BoolArray


def users_of_day(
    request: DayRequest,
    policy: DayPolicy,
    history: History,
    eligible: BoolArray,
    may_receive: BoolArray | None = None,
) -> tuple[DayUsers, Deciders]:
    """Return all users at a time, and what the agent sees of those whom it decides for; each user's part is its own.

    Args:
        request: What is decided.
        policy: The policy that decides.
        history: What is known of the users, and earlier decisions.
        eligible: What may be sent to whom (U, sum of actions), before guardrails.
        may_receive: Which users may get messages yet (U,); None for all.
    """
    at = request.at
    history = known_at(history, at)
    arm = assign_arms(history.user_ids, policy.arms, history.users)
    ended = history.observed_until < min(at, history.span[1])
    users = np.flatnonzero((arm != BUSINESS_AS_USUAL) & ~ended)
    time = np.full(len(users), at, dtype=np.int64)
    is_agent = np.asarray(arm[users] == AGENT)
    decides = is_agent if may_receive is None else is_agent & may_receive[users]
    mask = without_churned(eligible, history, at)[users]
    # A microsecond later, so that a message of this very moment counts towards caps and gaps as well.
    mask &= allowed_actions(request.guardrails, history, users, time + 1)
    mask[~decides, 1:] = False
    context = policy.trained_with.features.at(history, users, time)
    seen = Observations(context, mask, history.user_keys[users])
    found = DayUsers(
        user_ids=history.user_ids,
        arm=arm,
        users=users,
        decides=decides,
        waits=is_agent & ~decides,
        churned=history.churned_at[users] < at,
        unguarded=eligible[users],
        eligible=mask,
        contexts=row_fingerprints(context),
        modules=history.modules,
        log_ends=history.span[1],
    )
    return found, Deciders(seen[decides], (history.churned_at >= at)[users[decides]])


def known_at(history: History, at: int) -> History:
    """Return a history without what this package decided for a time or later: what a decision for it may see."""
    d = history.decisions
    late = np.flatnonzero(d.time >= at)
    dropped = np.zeros(len(d), dtype=bool)
    dropped[late] = own_decisions(take_rows(d, late))
    if not dropped.any():
        return history
    decisions, events = without_decisions(d, history.events, dropped)
    return replace(history, decisions=decisions, events=events)
