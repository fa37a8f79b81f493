"""What may be sent now, before guardrails, where nobody gives it: as the log has it, and as earlier days were given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import Fault, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import DAY
from crosschannel.core.wording import counted
from crosschannel.histories.arms import WAITING
from crosschannel.histories.eligibility import last_eligible
from crosschannel.histories.history import History
from crosschannel.histories.logs import DecisionLog
from crosschannel.histories.readers.decided.days import DECISIONS_FILE, day_name
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.histories.values.action_columns import eligible_mask
from crosschannel.pipeline.command_line import logger

#: Prefix of the columns of what could be sent before guardrails, churn, arms and roll-out.
UNGUARDED = "unguarded"
_VERSION = rf"[0-9a-f]{{12}}({re.escape(WAITING)})?"


def own_decisions(decisions: DecisionLog) -> BoolArray:
    """Return which decisions (n,) a policy of this package made: their `policy` is the version of one."""
    if decisions.policy is None:
        return np.zeros(len(decisions), dtype=bool)
    codes, names = pd.factorize(decisions.policy)
    ours = pd.Series(names, dtype=object).astype(str).str.fullmatch(_VERSION).to_numpy(dtype=bool)
    return np.append(ours, False)[codes]


@dataclass(frozen=True)
class EligibleSource:
    """Where what may be sent is from; `|` adds other users, and its text is for a reader.

    Attributes:
        logged: Whether decisions of others say what was eligible.
        given: Whether days of a folder say what a policy was given.
    """

    logged: bool
    given: bool

    def __or__(self, other: EligibleSource) -> EligibleSource:
        return EligibleSource(self.logged or other.logged, self.given or other.given)

    def __str__(self) -> str:
        what = "what was eligible at each user's last slot" if self.logged else "everything: the log does not say"
        return f"{what}; where a policy has decided, what it was given then" if self.given else what


@dataclass(frozen=True)
class Unsaid:
    """Users and actions of whom nobody says that anything may be sent; `+` adds other users, its text is a sentence.

    Such users are new, or were within a gap that the log has as eligibility. Such actions are new as well.

    Attributes:
        users: Number of such users.
        actions: The actions, each with its module, in their order.
    """

    users: int
    actions: tuple[str, ...]

    @classmethod
    def of_users(cls, history: History, eligible: BoolArray) -> Unsaid:
        """Return what nobody says of the users of a log, given what may be sent (U, sum of actions)."""
        modules = history.modules
        here = history.observed_until >= history.span[1]
        silent = here & ~modules.split(eligible)[0][:, 1:].any(1)
        decided = np.zeros(history.n_users, dtype=bool)
        decided[history.decisions.user[~own_decisions(history.decisions)]] = True
        never: list[str] = []
        for module, part in zip(modules, modules.split(eligible), strict=True):
            never += [f"{module.name} {module.actions[code]}" for code in np.flatnonzero(part.sum(0) == 0)]
        return cls(int((silent & ~decided).sum()), tuple(never))

    def __add__(self, other: Unsaid) -> Unsaid:
        return Unsaid(self.users + other.users, tuple(name for name in self.actions if name in other.actions))

    def __str__(self) -> str:
        new = f"to {counted(self.users, 'user')}, for whom nothing was eligible at the last slot or who had none"
        parts = [new] if self.users else []
        parts += [f"of {', '.join(self.actions)}, to anybody"] if self.actions else []
        return "; ".join(parts)


def eligible_before_guardrails(history: History, at: int, folder: Path | None) -> tuple[BoolArray, EligibleSource]:
    """Return what may be sent (U, sum of actions), before guardrails, and where that is from.

    What the decisions of this package have as eligible is after guardrails: a user within the gap after a message had
    nothing, and would never have anything again. So it is what was eligible at each user's last slot that others
    decided; and for later decisions of this package what they were made from, which the folder has.

    Args:
        history: The log, with the decisions of this package.
        at: The time, microseconds since 1970 UTC.
        folder: Folder of these decisions by date; None if there is none.

    Raises:
        InputError: If a day of the folder has no such columns, or names an action that the log does not have.
    """
    d = history.decisions
    own = own_decisions(d)
    mask = last_eligible(history, at, own)
    theirs = d.eligible is not None and not d.eligible[~own].all()
    if folder is None or not (own & (d.time < at)).any():
        return mask, EligibleSource(theirs, given=False)
    last, last_own = (_last_time(history, rows & (d.time < at)) for rows in (~own, own))
    times = np.where(last_own > last, last_own, -1)
    for time in np.unique(times[times >= 0]).tolist():
        files = [folder / day_name(time, period) / DECISIONS_FILE for period in (DAY, 0)]
        if (file := next((one for one in files if one.is_file()), None)) is not None:
            given, row = _unguarded(file, history)
            known = (times == time) & (row >= 0)
            mask[known] = given[row[known]]
    return mask, EligibleSource(theirs, given=True)


def note_eligible(source: EligibleSource, silent: Unsaid) -> None:
    """Say where what is eligible comes from, and of whom nobody says that anything is."""
    logger.info(f"eligible is {source}; a file of what is eligible now is better: --eligible FILE")
    if str(silent):
        logger.warning(f"nothing is eligible: {silent}; give --eligible FILE, which says what may be sent")


def _last_time(history: History, rows: BoolArray) -> IntArray:
    """Return the time of each user's last decision among some rows (n,), -1 where there is none (U,)."""
    out = np.full(history.n_users, -1, dtype=np.int64)
    np.maximum.at(out, history.decisions.user[rows], history.decisions.time[rows])
    return out


def _unguarded(file: Path, history: History) -> tuple[BoolArray, IntArray]:
    """Return the masks of a day's rows, and each user's row there (U,), -1 where there is none."""
    modules, faults = history.modules, list[Fault]()
    frame = read_parquet(file)
    columns = {f"{UNGUARDED}_{name}": f"eligible_{name}" for name in modules.names}
    table = TableValidator(frame, str(file), faults)
    table.require(["user_id", *columns])
    raise_faults(faults)
    listed = TableValidator(frame[list(columns)].rename(columns=columns), str(file), faults)
    mask = eligible_mask(listed, modules, np.zeros((len(table), len(modules)), dtype=np.int64))
    raise_faults(faults)
    assert mask is not None
    row = pd.Index(table.texts("user_id").astype(str)).get_indexer(pd.Index(history.user_ids.astype(str)))
    return mask, row.astype(np.int64)
