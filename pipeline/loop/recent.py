"""What deciding needs of a log by day: its recent days, and what each user did before, summed up once.

Contexts look back over a longest window, guardrails over a week or a gap. All else that they say of the past (the last
event of a kind, messages ever, at which hours a user is active) follows from totals of each user. The totals up to a
time are kept in a run's folder, with what the files of the days before it were; each day they move on by a day. Where a
file has changed since, they are computed again from the whole log. A log that does not allow it is read as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import WEEK, duration, timestamps
from crosschannel.histories.context.activity import CAUSED_WITHIN
from crosschannel.histories.context.layout import Layout
from crosschannel.histories.guardrails import Guardrails
from crosschannel.histories.history import History
from crosschannel.histories.observation.users import OBSERVATION_COLUMNS
from crosschannel.histories.readers.daily import TABLES, USERS_FILE, DailyLog, is_daily_log
from crosschannel.histories.readers.decided.days import DECISIONS_FILE, decided_days, ends_before
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.loop.totals import VERSION, Totals, read_totals, write_totals

#: Folder of a run in which the totals are kept.
DAYS_FOLDER = "days"


@dataclass(frozen=True)
class Cut:
    """Where a log is cut in two, so that no row of a day before is later than a row of a day after.

    Attributes:
        day: When the first day after it begins, microseconds since 1970 UTC.
        time: All rows of the days before are earlier, and none of the days after.
    """

    day: int
    time: int


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
        users, days, limit = read_parquet(self.log.path / USERS_FILE), self.log.days(), self._limit(at)
        if not days or limit <= self.log.start or self.layout.dated or not _observation_is_declared(users):
            return self.log.read(self.decided, users=users)
        files = self._states()  # before they are read: a file that changes meanwhile will not fit
        known = self._stored(limit, files)
        history = None if known is None else self._recent(known, users)
        if history is None:
            known, history = None, self.log.read(self.decided, users=users)
        wanted = min(self.log.start + (limit - self.log.start) // self.log.period * self.log.period, days[-1])
        if known is None or int(known.rests_on["day"]) < wanted:
            self._move_on(history, known, wanted, limit, files)
        return history

    @property
    def lookback(self) -> int:
        """Longest time over which contexts and guardrails look back at single rows, microseconds."""
        lengths = [length for _, length in self.layout.windows] + [length for *_, length in self.layout.active]
        gap = () if self.guardrails.min_gap is None else (duration(self.guardrails.min_gap),)
        return max(*lengths, *gap, WEEK, CAUSED_WITHIN)

    def _limit(self, at: int) -> int:
        """Return the latest time up to which totals may stand for the rows."""
        return at - 1 - self.lookback

    def _recent(self, known: Totals, users: pd.DataFrame) -> History | None:
        """Return the recent days with totals of the earlier ones; None if the whole log has to say what it is."""
        earlier = known.earlier
        try:
            history = self.log.read(self.decided, int(known.rests_on["day"]), earlier.time, users)
        except (InputError, ConfigError):
            return None
        if not known.fits(history):
            return None
        note = f"read from {timestamps(np.array([earlier.time]))[0]:%Y-%m-%d %H:%M} UTC on"
        note += "; totals of each user stand for the time before"
        earlier = earlier.for_users(known.user_ids, history.user_ids)
        return replace(history, earlier=earlier, notes=(*history.notes, note))

    def _move_on(
        self, history: History, known: Totals | None, wanted: int, limit: int, files: Mapping[Path, str]
    ) -> None:
        """Keep the totals up to the latest time that the next decisions allow."""
        period = self.log.period
        first = self.log.start if known is None else int(known.rests_on["day"])
        days = [time for time in self.log.days() if time >= first]
        bounds = {day: self._bounds(day) for day in days}
        for day in (wanted, wanted - period):  # rows that lie up to a day later than their files need one more
            cut = _cut(bounds, day, limit)
            if cut is not None and day > first and self._decisions_before(cut, first):
                found = Totals.before(history, cut.time, self.layout, self._rests_on(cut, files), known)
                write_totals(found, self.folder)
                return
        if known is None and wanted - period > first:
            logger.info(
                f"{self.log.path}: the files of some days have rows of others, so that the whole log is read each time"
            )

    def _bounds(self, day: int) -> IntArray:
        """Return the times of the first and the last row of a day's files (2,); none where they have no rows (0,)."""
        return _first_and_last(self.log.folder(day) / f"{name}.parquet" for name in TABLES)

    def _decisions_before(self, cut: Cut, since: int) -> bool:
        """Return whether what was decided for before a cut has no row of a later time, such as after an edit."""
        files = [day / DECISIONS_FILE for day in self._decided_before(cut.time) if not ends_before(day, since)]
        return not files or bool((_first_and_last(files) < cut.time).all())

    def _decided_before(self, time: int) -> list[Path]:
        return [] if self.decided is None else [day for day in decided_days(self.decided) if ends_before(day, time)]

    def _states(self) -> dict[Path, str]:
        """Return what the system knows of each file of the days and of the decisions, by file."""
        days = [self.log.folder(time) for time in self.log.days()]
        files = [day / f"{name}.parquet" for day in days for name in TABLES]
        decided = [] if self.decided is None else decided_days(self.decided)
        out = {}
        for file in (*files, *(day / DECISIONS_FILE for day in decided)):
            if file.is_file():  # the reader names those that are absent
                stat = file.stat()
                out[file] = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        return out

    def _rests_on(self, cut: Cut, files: Mapping[Path, str]) -> dict[str, Any]:
        """Return what totals up to a cut rest on: the log's description, and the state of each file before it."""
        folders = [self.log.folder(time) for time in self.log.days() if time < cut.day]
        digest = hashlib.blake2b(digest_size=16)
        log = [folder / f"{name}.parquet" for folder in folders for name in TABLES]
        for file in (*log, *(day / DECISIONS_FILE for day in self._decided_before(cut.time))):
            digest.update(f"{file.parent.name}/{file.name} {files.get(file)}\n".encode())
        shown = self.layout.activity
        return {
            "version": VERSION,
            "day": cut.day,
            "time": cut.time,
            "start": self.log.start,
            "length": self.log.day,
            "modules": hashlib.sha256(json.dumps(self.log.modules.to_dict(), sort_keys=True).encode()).hexdigest(),
            "events": list(self.log.event_names),
            "churn_events": list(self.log.churn_events),
            "shown_by": [] if shown is None else list(shown.events),
            "time_zone": self.layout.time_zone if shown is None else shown.time_zone,
            "files": digest.hexdigest(),
        }

    def _stored(self, limit: int, files: Mapping[Path, str]) -> Totals | None:
        """Return the stored totals, if they reach no further than allowed and still fit the log's files."""
        known = read_totals(self.folder)
        if known is None or known.rests_on.get("version") != VERSION or known.earlier.time > limit:
            return None
        cut = Cut(int(known.rests_on["day"]), known.earlier.time)
        return known if cut.day in self.log.days() and known.rests_on == self._rests_on(cut, files) else None


def recent_log(
    folder: Path, log: Path, decided: Path | None, layout: Layout, guardrails: Guardrails
) -> RecentLog | None:
    """Return a log of which the recent part can be read; None if it is not one by day."""
    return RecentLog(folder, DailyLog.open(log), decided, layout, guardrails) if is_daily_log(log) else None


def _observation_is_declared(users: pd.DataFrame) -> bool:
    """Return whether the users' table says from when on each user is observed, so that no row has to."""
    return OBSERVATION_COLUMNS[0] in users and not users[OBSERVATION_COLUMNS[0]].isna().any()


def _first_and_last(files: Iterable[Path]) -> IntArray:
    """Return the times of the first and the last row of tables (2,); none where they have no rows (0,)."""
    found = []
    for file in files:
        table = TableValidator(pd.read_parquet(file, columns=["time"]), str(file), [])
        time, valid = table.times("time", required=False)
        found.append(time[valid])
    times = np.concatenate(found)
    return np.array([times.min(), times.max()]) if len(times) else times


def _cut(bounds: Mapping[int, IntArray], day: int, limit: int) -> Cut | None:
    """Return the cut before a day, at the latest at a time; None if rows of the days before and after overlap."""
    before = [times[1] for time, times in bounds.items() if time < day and len(times)]
    after = [times[0] for time, times in bounds.items() if time >= day and len(times)]
    low, high = max(before, default=day - 1) + 1, min(after, default=day)
    time = int(min(max(day, low), high))
    return Cut(day, time) if low <= time <= limit else None
