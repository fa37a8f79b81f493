"""What users did before a day, summed up once and kept in a run's folder with what it rests on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import ConfigError, OutputError
from crosschannel.core.files import replacing
from crosschannel.core.times import NEVER
from crosschannel.histories.context.activity import unprompted
from crosschannel.histories.context.earlier import (
    NOT_YET,
    Earlier,
    count_by_user,
    hours_and_weekdays,
    latest_by_user,
)
from crosschannel.histories.context.layout import Layout
from crosschannel.histories.history import History
from crosschannel.histories.logs import EventLog
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.run_files import RunLock, read_json, write_json

TOTALS, RESTS_ON = "totals.parquet", "totals.json"
#: Version of the totals.
VERSION = 2
_OBSERVED_FROM = "observed_from"


@dataclass(frozen=True)
class Totals:
    """What users did before a time, and what is true of a history only if it still has the same users and events.

    Attributes:
        earlier: What they did.
        user_ids: The users (U,).
        observed_from: When their observation begins, or the time of the totals if that is earlier (U,).
        valued: Names of the events that had values other than 1.
        rests_on: What the totals rest on, in plain values.
    """

    earlier: Earlier
    user_ids: ObjectArray
    observed_from: IntArray
    valued: tuple[str, ...]
    rests_on: Mapping[str, Any]

    @classmethod
    def before(
        cls, history: History, time: int, layout: Layout, rests_on: Mapping[str, Any], known: Totals | None = None
    ) -> Totals:
        """Sum up what users did before a time, from a whole history or from the later rows with totals known before."""
        valued = _valued(history) | (set() if known is None else set(known.valued))
        return cls(
            earlier=totals_before(history, time, layout),
            user_ids=history.user_ids,
            observed_from=np.minimum(history.observed_from, time),
            valued=tuple(sorted(valued)),
            rests_on=rests_on,
        )

    def fits(self, history: History) -> bool:
        """Return whether a history of the later rows has all users, observed from the same times, and the same events.

        What the whole log would be refused for may show only in its earlier rows: a user without a place in the table,
        an event that has values on some days alone.
        """
        place = pd.Index(history.user_ids).get_indexer(pd.Index(self.user_ids))
        if (place < 0).any():
            return False
        time = self.earlier.time
        if any(bool((table.time < time).any()) for table in (history.decisions, history.events)):
            return False
        happened = (self.earlier.last_event != NOT_YET).any(0)
        now = np.bincount(history.events.event, minlength=len(happened)) > 0
        names = np.asarray(history.event_names, dtype=object)
        before, valued = np.isin(names, list(self.valued)), np.isin(names, list(_valued(history)))
        alike = not (happened & now & (before != valued)).any()
        return alike and np.array_equal(np.minimum(history.observed_from[place], time), self.observed_from)


def _valued(history: History) -> set[str]:
    return valued_events(history.events, history.event_names)


def valued_events(events: EventLog, names: Sequence[str]) -> set[str]:
    """Return the names of the events that have values other than 1."""
    return {names[code] for code in np.unique(events.event[events.value != 1.0])}


def totals_before(history: History, time: int, layout: Layout) -> Earlier:
    """Return what users did before a time, from a history that is whole or has totals of what came before it.

    Args:
        history: The history.
        time: Microseconds since 1970 UTC.
        layout: The columns of the contexts: which events show activity, and in which time zone.
    """
    modules, shown = history.modules, layout.activity
    users, events, actions = history.n_users, len(history.event_names), modules.sizes[0]
    names, zone = ((), layout.time_zone) if shown is None else (shown.events, shown.time_zone)
    e, d = history.events, history.decisions
    past, decided = e.time < time, d.time < time
    sent = decided & modules.sends(d.actions)
    out = Earlier.none(users, events, actions, names, zone) if history.earlier is None else history.earlier
    active: BoolArray = past & unprompted(history) & (e.time >= history.observed_from[e.user])
    active &= np.isin(np.asarray(history.event_names, dtype=object), list(names))[e.event]
    hour, weekday = hours_and_weekdays(e.time[active], zone)
    return Earlier(
        time=time,
        shown_by=tuple(names),
        time_zone=zone,
        last_event=np.maximum(out.last_event, latest_by_user(e.user[past], e.event[past], e.time[past], users, events)),
        last_message=np.maximum(
            out.last_message, latest_by_user(d.user[sent], np.zeros(sent.sum(), int), d.time[sent], users, 1)[:, 0]
        ),
        sent=out.sent + count_by_user(d.user[decided], d.actions[decided, 0], users, actions),
        churned_at=np.where(history.churned_at < time, history.churned_at, NEVER),
        by_hour=out.by_hour + count_by_user(e.user[active], hour, users, 24),
        by_weekday=out.by_weekday + count_by_user(e.user[active], weekday, users, 7),
    )


def read_totals(folder: Path) -> Totals | None:
    """Return the totals that a folder keeps; None where there are none, or they are damaged: they are made again."""
    file = folder / RESTS_ON
    if not file.is_file():
        return None
    try:
        content = read_json(file, "", VERSION)
        data = (folder / TOTALS).read_bytes()  # once: another process may replace the file
        if hashlib.sha256(data).hexdigest() != content["totals"]:
            raise ValueError(f"{TOTALS} is not the one that it describes")
        return _from_frame(pd.read_parquet(io.BytesIO(data)), content)
    except (ConfigError, KeyError, TypeError, ValueError, OSError) as error:
        logger.warning(f"{file}: {error}: what users did before is summed up again")
        return None


def write_totals(totals: Totals, folder: Path) -> None:
    """Keep totals in a folder; where that is not possible, say so: the next decision reads the whole log."""
    frame = _frame(totals)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with RunLock(folder):
            with replacing(folder / TOTALS) as draft:
                frame.to_parquet(draft, index=False)
                digest = hashlib.sha256(draft.read_bytes()).hexdigest()
            content = {
                "version": VERSION,
                "totals": digest,
                "valued": list(totals.valued),
                "rests_on": dict(totals.rests_on),
            }
            write_json(content, folder / RESTS_ON)
    except (ConfigError, OutputError, OSError) as error:
        logger.warning(f"what users did before is not kept: {error}")


def _frame(totals: Totals) -> pd.DataFrame:
    columns: dict[str, Any] = {"user_id": totals.user_ids, _OBSERVED_FROM: totals.observed_from}
    for f in fields(totals.earlier):
        values = getattr(totals.earlier, f.name)
        if isinstance(values, np.ndarray):
            parts = values[:, None] if values.ndim == 1 else values
            columns |= {f"{f.name} {k}": part for k, part in enumerate(parts.T)}
    return pd.DataFrame(columns)


def _from_frame(frame: pd.DataFrame, content: Mapping[str, Any]) -> Totals:
    arrays, rests_on = dict[str, Any](), content["rests_on"]
    for f in fields(Earlier):
        names = [name for name in frame if str(name).rpartition(" ")[0] == f.name]
        if names:
            values = frame[names].to_numpy(dtype=np.int64)
            arrays[f.name] = values[:, 0] if f.name in ("last_message", "churned_at") else values
    return Totals(
        earlier=Earlier(int(rests_on["time"]), tuple(rests_on["shown_by"]), str(rests_on["time_zone"]), **arrays),
        user_ids=frame["user_id"].to_numpy(dtype=object),
        observed_from=frame[_OBSERVED_FROM].to_numpy(dtype=np.int64),
        valued=tuple(map(str, content["valued"])),
        rests_on=rests_on,
    )
