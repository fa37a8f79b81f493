"""What deciding needs of a log by day: its recent days, and what each user did before, summed up once.

Contexts look back over a longest window, guardrails over a week or a gap. All else that they say of the past (the last
event of a kind, messages ever, at which hours a user is active) follows from totals of each user. The totals up to a
day are kept in a run's folder, with what the files of the days before it were; each day they move on by a day. Where a
file has changed since, they are computed again from the whole log. A log that does not allow it is read as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.files import replacing
from crosschannel.core.times import NEVER, WEEK, duration, timestamps
from crosschannel.histories.context.activity import CAUSED_WITHIN, unprompted
from crosschannel.histories.context.earlier import (
    Earlier,
    count_by_user,
    hours_and_weekdays,
    latest_by_user,
)
from crosschannel.histories.context.layout import Layout
from crosschannel.histories.guardrails import Guardrails
from crosschannel.histories.history import History
from crosschannel.histories.observation.users import OBSERVATION_COLUMNS
from crosschannel.histories.readers.daily import TABLES, USERS_FILE, DailyLog, is_daily_log
from crosschannel.histories.readers.decided.days import DECISIONS_FILE, decided_days, ends_before
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.run_files import read_json, write_json

VERSION = 1
#: Folder of a run in which the totals are kept.
DAYS_FOLDER = "days"
TOTALS, RESTS_ON = "totals.parquet", "totals.json"


@dataclass(frozen=True)
class RecentLog:
    """A log by day of which a decision reads the recent part.

    Attributes:
        folder: Where the totals are kept: `days/` of a run.
        log: The log.
        decided: Folder of the decisions by date; None if there is none yet.
        layout: The columns of the contexts.
        guardrails: Limits on what is sent.
    """

    folder: Path
    log: DailyLog
    decided: Path | None
    layout: Layout
    guardrails: Guardrails

    def read(self, at: int) -> History:
        """Return what deciding at a time needs: the recent days with totals of the earlier ones, or the whole log.

        Contexts, guardrails and churn at the time are the same to the last bit.
        """
        wanted = self._first_day(at)
        if wanted <= self.log.start or self.layout.dated or not self._observation_is_declared():
            return self.log.read(self.decided)
        known = self._stored(wanted)
        history = self.log.read(self.decided, None if known is None else known[0].time)
        if known is not None:
            earlier, user_ids = known
            day = f"{timestamps(np.array([earlier.time]))[0]:%Y-%m-%d %H:%M} UTC"
            note = f"read from {day} on; totals of each user stand for the days before"
            earlier = earlier.for_users(user_ids, history.user_ids)
            history = replace(history, earlier=earlier, notes=(*history.notes, note))
            if self._has_rows_before(history, earlier.time):
                return self.log.read(self.decided)
        if known is None or known[0].time < wanted:
            self._store(history, wanted)
        return history

    @property
    def lookback(self) -> int:
        """Longest time over which contexts and guardrails look back at single rows, microseconds."""
        lengths = [length for _, length in self.layout.windows] + [length for *_, length in self.layout.active]
        gap = () if self.guardrails.min_gap is None else (duration(self.guardrails.min_gap),)
        return max(*lengths, *gap, WEEK, CAUSED_WITHIN)

    def _first_day(self, at: int) -> int:
        """Return when the first day begins that deciding at a time needs."""
        period = self.log.period
        return self.log.start + (at - 1 - self.lookback - self.log.start) // period * period

    def _observation_is_declared(self) -> bool:
        """Return whether the users' table says from when on each user is observed, so that no row has to."""
        users = read_parquet(self.log.path / USERS_FILE)
        return OBSERVATION_COLUMNS[0] in users and not users[OBSERVATION_COLUMNS[0]].isna().any()

    @staticmethod
    def _has_rows_before(history: History, time: int) -> bool:
        """Return whether a day holds rows of an earlier one, which the totals do not have."""
        return any(bool((table.time < time).any()) for table in (history.decisions, history.events))

    def _files(self, until: int) -> list[Path]:
        """Return the files of the days before a time."""
        days = [self.log.folder(time) for time in self.log.days() if time < until]
        files = [day / f"{name}.parquet" for day in days for name in TABLES]
        decided = [] if self.decided is None else [day for day in decided_days(self.decided) if ends_before(day, until)]
        return [*files, *(day / DECISIONS_FILE for day in decided)]

    def _rests_on(self, until: int, events: Sequence[str]) -> dict[str, Any]:
        """Return what the totals up to a time rest on: the log's description, and the state of each file before it."""
        digest = hashlib.blake2b(digest_size=16)
        for file in self._files(until):
            stat = file.stat()
            digest.update(
                f"{file.parent.name}/{file.name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode()
            )
        shown = self.layout.activity
        return {
            "version": VERSION,
            "time": until,
            "start": self.log.start,
            "day": self.log.day,
            "modules": hashlib.sha256(json.dumps(self.log.modules.to_dict(), sort_keys=True).encode()).hexdigest(),
            "events": list(events),
            "churn_events": list(self.log.churn_events),
            "shown_by": [] if shown is None else list(shown.events),
            "time_zone": self.layout.time_zone if shown is None else shown.time_zone,
            "files": digest.hexdigest(),
        }

    def _stored(self, wanted: int) -> tuple[Earlier, Any] | None:
        """Return the stored totals and their users, if they reach no further than wanted and still fit the log."""
        file = self.folder / RESTS_ON
        if not file.is_file():
            return None
        try:
            content = read_json(file, "", VERSION)
            time = int(content["rests_on"]["time"])
            if time > wanted or content["rests_on"] != self._rests_on(time, self.log.event_names):
                return None
            table = self.folder / TOTALS
            if _digest(table) != content["totals"]:
                return None
            return _from_frame(read_parquet(table), content["rests_on"])
        except (ConfigError, KeyError, TypeError, ValueError, OSError) as error:
            logger.warning(f"{file}: {error}: what users did before is summed up again")
            return None

    def _store(self, history: History, until: int) -> None:
        """Keep the totals up to a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        totals = totals_before(history, until, self.layout)
        with replacing(self.folder / TOTALS) as draft:
            _frame(totals, history).to_parquet(draft, index=False)
        rests_on = self._rests_on(until, history.event_names)
        content = {"version": VERSION, "totals": _digest(self.folder / TOTALS), "rests_on": rests_on}
        write_json(content, self.folder / RESTS_ON)


def recent_log(
    folder: Path, log: Path, decided: Path | None, layout: Layout, guardrails: Guardrails
) -> RecentLog | None:
    """Return a log of which the recent part can be read; None if it is not one by day."""
    return RecentLog(folder, DailyLog.open(log), decided, layout, guardrails) if is_daily_log(log) else None


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


def _frame(totals: Earlier, history: History) -> pd.DataFrame:
    columns: dict[str, Any] = {"user_id": history.user_ids}
    for f in fields(totals):
        values = getattr(totals, f.name)
        if isinstance(values, np.ndarray):
            parts = values[:, None] if values.ndim == 1 else values
            columns |= {f"{f.name} {k}": part for k, part in enumerate(parts.T)}
    return pd.DataFrame(columns)


def _from_frame(frame: pd.DataFrame, rests_on: dict[str, Any]) -> tuple[Earlier, Any]:
    arrays: dict[str, Any] = {}
    for f in fields(Earlier):
        names = [name for name in frame if str(name).rpartition(" ")[0] == f.name]
        if names:
            values = frame[names].to_numpy(dtype=np.int64)
            arrays[f.name] = values[:, 0] if f.name in ("last_message", "churned_at") else values
    totals = Earlier(int(rests_on["time"]), tuple(rests_on["shown_by"]), str(rests_on["time_zone"]), **arrays)
    return totals, frame["user_id"].to_numpy(dtype=object)


def _digest(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
