"""Rows of a history on disk, as they were read, validated and joined with the decisions: to be added to later rows."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import IntArray, ObjectArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.files import replacing
from crosschannel.histories.history import History
from crosschannel.histories.logs import DecisionLog, EventLog, Table, take_rows

#: Columns of decisions that are labels, of which few are different.
LABELS = ("policy", "arm")
_DECISIONS = ("key", "time", "actions", "propensity", "joint", "propensity_source")
_EVENTS = ("time", "event", "value")
_SMALL = {"actions": np.int16, "propensity_source": np.int8, "event": np.int16}


@dataclass(frozen=True)
class KeptRows:
    """Decisions and events of a stretch of time, without the ids of the decisions, which their keys stand for.

    Attributes:
        users: Keys of the users (u,).
        decisions: The decisions, with places among `users`.
        events: The events, the same; none of them names a decision.
    """

    users: UIntArray
    decisions: DecisionLog
    events: EventLog

    @classmethod
    def between(cls, history: History, start: int, end: int) -> KeptRows:
        """Return the rows of a history from one time up to, not including, another."""
        d, e = history.decisions, history.events
        decided, happened = (start <= d.time) & (d.time < end), (start <= e.time) & (e.time < end)
        return cls(history.user_keys, take_rows(d, decided), take_rows(e, happened))

    def write(self, path: Path, stamp: str) -> None:
        """Write the rows into a file with a stamp that says what they rest on; labels are text or None."""
        d, e = self.decisions, self.events
        arrays = {f"d_{name}": _small(name, getattr(d, name)) for name in _DECISIONS}
        arrays |= {f"e_{name}": _small(name, getattr(e, name)) for name in _EVENTS}
        arrays |= {"users": self.users, "d_user": d.user.astype(np.int32), "e_user": e.user.astype(np.int32)}
        if d.eligible is not None:
            arrays["d_eligible"] = d.eligible
        for name in LABELS:
            if (labels := getattr(d, name)) is not None:
                code, names = pd.factorize(labels)
                arrays |= {f"d_{name}": code.astype(np.int32), f"names_{name}": names.astype(str)}
        arrays["stamp"] = np.array(stamp)
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, path: Path, stamp: str) -> KeptRows:
        """Return what `write` wrote.

        Raises:
            ConfigError: If the file is damaged, or has another stamp.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path} cannot be read ({error})") from None
        if str(arrays.get("stamp")) != stamp:
            raise ConfigError(f"{path} is not of this log")
        labels: dict[str, Any] = {name: _labels(arrays, name) for name in LABELS}
        nothing = np.full(len(arrays["d_time"]), None, dtype=object)
        decisions = DecisionLog(
            id=nothing,
            user=arrays["d_user"].astype(np.int64),
            **{name: _wide(name, arrays[f"d_{name}"]) for name in _DECISIONS},
            eligible=arrays.get("d_eligible"),
            **labels,
        )
        events = EventLog(
            user=arrays["e_user"].astype(np.int64), **{name: _wide(name, arrays[f"e_{name}"]) for name in _EVENTS}
        )
        return cls(arrays["users"], decisions, events)


def can_be_kept(history: History) -> bool:
    """Return whether rows of a history can be kept: no event names a decision, and labels are text or None."""
    d = history.decisions
    labels = [pd.unique(column) for name in LABELS if (column := getattr(d, name)) is not None]
    return history.events.message is None and all(one is None or type(one) is str for part in labels for one in part)


def with_rows(history: History, parts: Sequence[KeptRows]) -> History | None:
    """Return a history with kept rows added; None if they do not have its columns or a user of theirs is not there."""
    d, e = history.decisions, history.events
    known = pd.Index(history.user_keys)
    decisions, events = [d], [e]
    for part in parts:
        named = np.zeros(len(part.users), dtype=bool)
        named[part.decisions.user] = named[part.events.user] = True
        place = known.get_indexer(pd.Index(part.users))
        if (place[named] < 0).any() or not _alike(part.decisions, d):
            return None
        decisions.append(_of_users(part.decisions, place))
        events.append(_of_users(part.events, place))
    columns = ("id", "key", "user", "time", "actions", "propensity", "joint", *LABELS, "eligible", "propensity_source")
    joined = {name: _concatenated([getattr(each, name) for each in decisions]) for name in columns}
    happened = {name: _concatenated([getattr(each, name) for each in events]) for name in ("user", *_EVENTS)}
    return History.from_arrays(
        DecisionLog(**joined),
        EventLog(**happened),
        modules=history.modules,
        user_ids=history.user_ids,
        event_names=history.event_names,
        span=history.span,
        users=history.users,
        observed_from=history.observed_from,
        observed_until=history.observed_until,
        name=history.name,
        churn_events=history.churn_events,
        ties=history.ties,
    )


def _alike(one: DecisionLog, other: DecisionLog) -> bool:
    """Return whether two tables have the same optional columns."""
    return all((getattr(one, name) is None) == (getattr(other, name) is None) for name in (*LABELS, "eligible"))


def _of_users(table: Table, place: IntArray) -> Table:
    return replace(table, user=place[table.user])


def _concatenated(columns: Sequence[Any]) -> Any:
    """Return columns of tables one after the other; None where the tables do not have the column."""
    return None if columns[0] is None else np.concatenate(columns)


def _small(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(_SMALL[name]) if name in _SMALL else values


def _wide(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(np.int64) if name in _SMALL else values


def _labels(arrays: dict[str, npt.NDArray[Any]], name: str) -> ObjectArray | None:
    if f"d_{name}" not in arrays:
        return None
    names = np.array([*arrays[f"names_{name}"].tolist(), None], dtype=object)
    return np.asarray(names[arrays[f"d_{name}"]])
