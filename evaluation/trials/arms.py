"""Which user is in which arm of a trial, since when, and with whom in a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import ConfigError, Fault, InputError, nearest, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import DAY, parse_moment, timestamps
from crosschannel.evaluation.trials.settings import TrialConfig
from crosschannel.histories.history import History
from crosschannel.histories.readers.decided.days import ARMS_FILE, decided_days
from crosschannel.histories.readers.source_files import read_file
from crosschannel.histories.values.identifiers import known_spelling, read_user_ids

ARM_COLUMN = "arm"


@dataclass(frozen=True)
class ArmTable:
    """Users and their arms, such as in the `arms.parquet` of `crosschannel decide`.

    Attributes:
        user_ids: Ids (n,), different from each other.
        arms: Names of their arms (n,).
        file: Where they were read.
        since: Since when each user was known to whom drew the arms, microseconds (n,); None where that is not known.
        changed: How many users were named with another arm later.
    """

    user_ids: ObjectArray
    arms: ObjectArray
    file: str = "arms"
    since: IntArray | None = None
    changed: int = 0


def read_arms(path: Path, start: int | None = None) -> ArmTable:
    """Read the arms of users: from a table, or from the folder of decisions by date that `crosschannel decide` wrote.

    A table has the columns `user_id` and `arm`; rows that repeat a user must name the same arm. In a folder of
    decisions each day has its `arms.parquet`, which names everybody who was known then; a user has the arm of the first
    day from the trial's start on that names the user, and enters the trial with that day.

    Args:
        path: The table, or the folder.
        start: Start of the trial, microseconds; earlier days of a folder only tell who was known then.

    Raises:
        InputError: If a file cannot be read, a column is missing, or a user has no arm or several in one table.
    """
    if not path.is_dir():
        return _read_table(path)
    days = decided_days(path)
    if not days:
        remedy = "Name a table with the columns user_id and arm, or the folder that `crosschannel decide --out` wrote."
        raise InputError([Fault(file=str(path), problem="the folder has no day of decisions", remedy=remedy)])
    tables = [(_time_of(day), _read_table(day / ARMS_FILE)) for day in days]
    named = pd.concat(
        [pd.DataFrame({"id": table.user_ids.astype(str), "arm": table.arms, "day": day}) for day, table in tables]
    )
    since = named.drop_duplicates("id").set_index("id")["day"]
    # The day of a start counts from its midnight on; if the trial starts after all days, the last one tells the arms.
    begin = tables[0][0] if start is None else min(start - DAY + 1, tables[-1][0])
    counted = named[named["day"] >= begin]
    first = counted.drop_duplicates("id")
    changed = int((counted.groupby("id", sort=False)["arm"].nunique() > 1).sum())
    ids, arms = (first[name].to_numpy(dtype=object) for name in ("id", "arm"))
    return ArmTable(
        user_ids=ids,
        arms=arms,
        file=str(path),
        since=np.asarray(since.loc[first["id"]].to_numpy(dtype=np.int64)),
        changed=changed,
    )


def _time_of(day: Path) -> int:
    """Return the time that the name of a day's folder tells, microseconds: 2026-03-02, or 2026-03-02T06-00."""
    date, _, clock = day.name.partition("T")
    return parse_moment(f"{date}T{clock.replace('-', ':')}" if clock else date)


def _read_table(path: Path) -> ArmTable:
    faults: list[Fault] = []
    table = TableValidator(read_file(path, text=("user_id", ARM_COLUMN)).frame, str(path), faults)
    table.require(("user_id", ARM_COLUMN))
    raise_faults(faults)
    (ids,) = read_user_ids([(table, "user_id")])
    arms = table.texts(ARM_COLUMN)
    remedy = "Give every user one arm, or leave the row out."
    table.flag_rows(ARM_COLUMN, arms == "", "the arm is missing", remedy)
    pairs = pd.DataFrame({"user": ids.code, "arm": arms})
    first = pairs.groupby("user")["arm"].transform("first")
    table.flag_rows(ARM_COLUMN, (pairs["arm"] != first).to_numpy(dtype=bool), "the user has another arm before", remedy)
    raise_faults(faults)
    once = ~pairs["user"].duplicated().to_numpy(dtype=bool)
    return ArmTable(np.asarray(ids.ids[once], dtype=object), arms[once], str(path))


@dataclass(frozen=True)
class TrialUsers:
    """The users of a trial.

    Attributes:
        arms: Names of the arms.
        user: Codes of the users in the history (n,).
        arm: Code of each one's arm (n,).
        enrolled: When each one entered the trial, microseconds (n,).
        known_before: Whether each one was observed before that (n,).
        cluster: Code of each one's cluster (n,), from 0 on, or None.
        start: Start of the trial, microseconds.
        entry: Users by when they entered and by arm (3, A): from the start on, later, never, because they are not in
            the log or were not observed in the trial. Of each cluster only one user is counted.
        changed: Which of them have decisions of another arm since the start (n,).
        notes: What was decided about users, in sentences.
    """

    arms: tuple[str, ...]
    user: IntArray
    arm: IntArray
    enrolled: IntArray
    known_before: BoolArray
    cluster: IntArray | None
    start: int
    entry: IntArray
    changed: BoolArray
    notes: tuple[str, ...]

    @property
    def counts(self) -> IntArray:
        """Users of each arm (A,)."""
        return np.bincount(self.arm, minlength=len(self.arms))


def trial_users(history: History, settings: TrialConfig, at: int, table: ArmTable | None = None) -> TrialUsers:
    """Return the users of a trial: everybody with an arm who was observed in it.

    The arms are those of a table, else of the users' column `arm`, else of the decisions.

    Args:
        history: The log.
        settings: The declaration of the trial.
        at: End of what is looked at, microseconds.
        table: A table of arms.

    Raises:
        ConfigError: If there are no arms, the declared start is outside the log, or an attribute is not in the log.
    """
    start = _start(history, settings)
    if not start < min(at, history.span[1]):
        first, last = timestamps(np.array([start, min(at, history.span[1])]))
        raise ConfigError(
            f"the trial starts at {first:%Y-%m-%d %H:%M} UTC, and what is looked at ends at {last:%Y-%m-%d %H:%M} (the "
            "log, or the time of the look): check trial.start, or read a newer log"
        )
    names, notes, missing, since = _arms_by_user(history, table, start)
    has_arm = np.array([name is not None for name in names], dtype=bool)
    if not has_arm.any():
        raise ConfigError(
            "the log has no arms: give --arms FILE with the columns user_id and arm, a column `arm` of the users, or "
            "decisions with an arm"
        )
    changed = _with_several_arms(history, names if table is None else None, start)
    if changed.any():
        notes.append(
            f"{changed.sum():,} users have decisions of several arms since the start; each counts in the first "
            "one, or in that of the table of users (intention to treat)"
        )
    arms = tuple(sorted({str(name) for name in names[has_arm]}))
    enrolled = np.maximum(history.observed_from, start)
    if settings.enrolment == "first_decision":
        enrolled = _first_decisions(history, start)
    elif since is not None:
        enrolled = np.maximum(since, start)
    chosen = has_arm & (enrolled < at) & (history.observed_until > start)
    if never := int((has_arm & ~chosen).sum()):
        notes.append(f"{never:,} users with an arm were not observed in the trial up to this look: they do not count")
    if without := int((~has_arm).sum()):
        notes.append(f"{without:,} users of the log have no arm: they do not count")
    user = np.flatnonzero(chosen)
    every = pd.Categorical(names, categories=list(arms)).codes.astype(np.int64)
    arm = every[user]
    counted = has_arm & _one_of_each_cluster(history, settings, has_arm)
    entry = np.stack(
        [
            np.bincount(every[counted & rows], minlength=len(arms))
            for rows in (chosen & (enrolled <= start), chosen & (enrolled > start), ~chosen)
        ]
    )
    entry[2] += [missing.get(name, 0) for name in arms]
    joined = int((enrolled[user] > start).sum())
    if start < history.span[0]:
        first = timestamps(np.array([history.span[0]]))[0]
        notes.append(f"the log begins after the start, at {first:%Y-%m-%d %H:%M} UTC: what happened before is missing")
    if joined:
        notes.append(f"{joined:,} of {len(user):,} users entered after the start: they count from then on")
    return TrialUsers(
        arms=arms,
        user=user,
        arm=arm,
        enrolled=enrolled[user],
        known_before=np.asarray(history.observed_from[user] < enrolled[user]),
        cluster=_clusters(history, settings, user),
        start=start,
        entry=entry,
        changed=changed[user],
        notes=tuple(notes),
    )


def _start(history: History, settings: TrialConfig) -> int:
    if settings.start is not None:
        return parse_moment(settings.start)
    arm = history.decisions.arm
    rows = np.zeros(0, dtype=np.int64) if arm is None else np.flatnonzero(~pd.isna(arm))
    if not len(rows):
        raise ConfigError(
            "trial.start: no decision of the log has an arm: name the decisions of the policy (--history.decided), or "
            "declare the start"
        )
    return int(history.decisions.time[rows].min())


def _arms_by_user(
    history: History, table: ArmTable | None, start: int
) -> tuple[ObjectArray, list[str], dict[str, int], IntArray | None]:
    """Find the arms of the users, among those of a table, of the users' column, and of the decisions since the start.

    Returns:
        Each user's arm (U,), None for none; notes; users of the table that the log does not have, by arm; and since
        when each user was known to whom drew the arms (U,), or None.
    """
    names = np.full(history.n_users, None, dtype=object)
    if table is not None:
        known = pd.Index(np.asarray(history.user_ids).astype(str))
        place = known.get_indexer(pd.Index(table.user_ids.astype(str)))
        names[place[place >= 0]] = table.arms[place >= 0]
        spelling = known_spelling(table.user_ids.astype(str), known.to_numpy())
        if (other := np.flatnonzero(spelling != "")).size:
            raise InputError(
                [
                    Fault(
                        file=table.file,
                        column="user_id",
                        value=str(table.user_ids[other[0]]),
                        count=len(other),
                        problem=f"the log writes this user {spelling[other[0]]!r}",
                        remedy="Write ids as the log does: users with another id would count as lost.",
                    )
                ]
            )
        if (place < 0).all():
            raise InputError(
                [
                    Fault(
                        file=table.file,
                        column="user_id",
                        value=str(table.user_ids[0]) if len(place) else None,
                        problem="no user of the table is in the log",
                        remedy=f"The log's users are named as {history.user_ids[0]!r}: use the same ids.",
                    )
                ]
            )
        lost = pd.Series(table.arms[place < 0]).value_counts()
        since = None
        if table.since is not None:
            since = np.full(history.n_users, np.iinfo(np.int64).max, dtype=np.int64)
            since[place[place >= 0]] = table.since[place >= 0]
        notes = []
        if table.changed:
            notes.append(f"{table.changed:,} users were given another arm later: each counts in the first one")
        return names, notes, {str(name): int(n) for name, n in lost.items()}, since
    if history.users is not None and ARM_COLUMN in history.users.columns:
        column = history.users[ARM_COLUMN]
        present = column.notna().to_numpy(dtype=bool)
        names[present] = column[present].astype(str).to_numpy(dtype=object)
        return names, [], {}, None
    decisions = history.decisions
    if decisions.arm is None:
        return names, [], {}, None
    rows = np.flatnonzero(~pd.isna(decisions.arm) & (decisions.time >= start))
    user, first = np.unique(decisions.user[rows], return_index=True)
    names[user] = decisions.arm[rows[first]]
    return names, [], {}, None


def _with_several_arms(history: History, names: ObjectArray | None, start: int) -> BoolArray:
    """Return which users (U,) have a decision of another arm than their own (`names`, or None) since the start.

    Nobody where a decision has an arm that nobody's own is: users' arms are then not those that decisions name.
    """
    decisions, found = history.decisions, np.zeros(history.n_users, dtype=bool)
    if decisions.arm is not None and names is not None:
        own = names[decisions.user]
        rows = ~pd.isna(decisions.arm) & ~pd.isna(own) & (decisions.time >= start)
        if set(decisions.arm[rows]) <= set(names[~pd.isna(names)]):
            found[decisions.user[rows & (decisions.arm != own)]] = True
    return found


def _first_decisions(history: History, start: int) -> IntArray:
    """Return the time of each user's first decision since the start, of those with an arm if any has; else never."""
    decisions = history.decisions
    counts = decisions.time >= start
    if decisions.arm is not None and (~pd.isna(decisions.arm)).any():
        counts &= ~pd.isna(decisions.arm)
    rows = np.flatnonzero(counts)
    out = np.full(history.n_users, np.iinfo(np.int64).max, dtype=np.int64)
    user, first = np.unique(decisions.user[rows], return_index=True)
    out[user] = decisions.time[rows[first]]
    return out


def _clusters(history: History, settings: TrialConfig, user: IntArray) -> IntArray | None:
    """Return codes of the users' clusters (n,); a user without one is a cluster alone."""
    if settings.cluster is None:
        return None
    column = attribute(history, settings.cluster, "cluster").iloc[user]
    code, _ = pd.factorize(column.astype(object).map(lambda value: value if pd.isna(value) else str(value)))
    alone = code < 0
    code = code.astype(np.int64)
    code[alone] = code.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    return code


def _one_of_each_cluster(history: History, settings: TrialConfig, has_arm: BoolArray) -> BoolArray:
    """Return which users (U,) stand for their cluster: the first one with an arm; all where there are no clusters."""
    if settings.cluster is None:
        return has_arm
    user = np.flatnonzero(has_arm)
    cluster = _clusters(history, settings, user)
    assert cluster is not None  # one is declared
    _, first = np.unique(cluster, return_index=True)
    out = np.zeros(len(has_arm), dtype=bool)
    out[user[first]] = True
    return out


def attribute(history: History, name: str, setting: str) -> pd.Series:
    """Return an attribute of the users (U,).

    Raises:
        ConfigError: If the users have no such attribute.
    """
    columns = [] if history.users is None else [str(column) for column in history.users.columns]
    if name not in columns:
        raise ConfigError(f"trial.{setting}: the users have no attribute {name!r}. {nearest(name, columns)}")
    assert history.users is not None
    return history.users[name]


def levels(column: pd.Series) -> tuple[IntArray, tuple[str, ...]]:
    """Return the levels of an attribute (n,) as codes and names; numbers with many values are cut at their quartiles.

    A missing value is a level.
    """
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column) and column.nunique() > 10:
        column = pd.qcut(column, 4, duplicates="drop").astype(object)
    text = column.astype(object).map(lambda value: "(missing)" if pd.isna(value) else str(value))
    code, names = pd.factorize(text, sort=True)
    return code.astype(np.int64), tuple(str(name) for name in names)
