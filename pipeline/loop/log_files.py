"""The files of a log by day and of the decisions beside it: their state, and where time divides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import IntArray
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import WEEK, duration
from crosschannel.histories.context.activity import CAUSED_WITHIN
from crosschannel.histories.context.layout import Layout
from crosschannel.histories.guardrails import Guardrails
from crosschannel.histories.observation.users import OBSERVATION_COLUMNS
from crosschannel.histories.readers.daily import TABLES, DailyLog
from crosschannel.histories.readers.decided.days import ARMS_FILE, DECISIONS_FILE, decided_days, ends_before


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
class LogFiles:
    """The files of a log by day, and of the decisions beside it.

    Attributes:
        log: The log.
        decided: Folder of the decisions by date; None if there is none yet.
    """

    log: DailyLog
    decided: Path | None

    def states(self) -> dict[Path, str]:
        """Return what the system knows of each file of the days and of the decisions, by file."""
        days = [self.log.folder(time) for time in self.log.days()]
        files = [day / f"{name}.parquet" for day in days for name in TABLES]
        decided = [] if self.decided is None else decided_days(self.decided)
        out = {}
        for file in (*files, *(day / name for day in decided for name in (DECISIONS_FILE, ARMS_FILE))):
            if file.is_file():  # the reader names those that are absent
                stat = file.stat()
                out[file] = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        return out

    def digest(self, cut: Cut, states: Mapping[Path, str]) -> str:
        """Return a digest of the state of each file before a cut."""
        folders = [self.log.folder(time) for time in self.log.days() if time < cut.day]
        digest = hashlib.blake2b(digest_size=16)
        log = [folder / f"{name}.parquet" for folder in folders for name in TABLES]
        decided = [day / name for day in self.decided_before(cut.time) for name in (DECISIONS_FILE, ARMS_FILE)]
        for file in (*log, *decided):
            digest.update(f"{file.parent.name}/{file.name} {states.get(file)}\n".encode())
        return digest.hexdigest()

    def describe(self, layout: Layout) -> dict[str, Any]:
        """Return what else totals rest on: the log's description, and which events show activity."""
        shown = layout.activity
        return {
            **self.description(),
            "shown_by": [] if shown is None else list(shown.events),
            "time_zone": layout.time_zone if shown is None else shown.time_zone,
        }

    def description(self) -> dict[str, Any]:
        """Return what the log says of itself."""
        return {
            "start": self.log.start,
            "length": self.log.day,
            "modules": hashlib.sha256(json.dumps(self.log.modules.to_dict(), sort_keys=True).encode()).hexdigest(),
            "events": list(self.log.event_names),
            "churn_events": list(self.log.churn_events),
            "ties": self.log.ties,
        }

    def bounds(self, day: int) -> IntArray:
        """Return the times of the first and the last row of a day's files (2,); none where they have no rows (0,)."""
        return _first_and_last(self.log.folder(day) / f"{name}.parquet" for name in TABLES)

    def cut(self, bounds: Mapping[int, IntArray], day: int, limit: int, since: int) -> Cut | None:
        """Return the cut before a day; None if rows of the days before and after overlap, or if it lies after a time.

        Args:
            bounds: Times of the first and the last row of each day's files.
            day: When the day begins.
            limit: The latest time of the cut.
            since: What was decided for before this time has been looked at already.
        """
        before = [times[1] for time, times in bounds.items() if time < day and len(times)]
        after = [times[0] for time, times in bounds.items() if time >= day and len(times)]
        low, high = max(before, default=day - 1) + 1, min(after, default=day)
        time = int(min(max(day, low), high))
        found = Cut(day, time) if low <= time <= limit else None
        return found if found is not None and self._decisions_before(found, since) else None

    def _decisions_before(self, cut: Cut, since: int) -> bool:
        """Return whether what was decided for before a cut has no row of a later time, such as after an edit."""
        files = [day / DECISIONS_FILE for day in self.decided_before(cut.time) if not ends_before(day, since)]
        return not files or bool((_first_and_last(files) < cut.time).all())

    def decided_before(self, time: int) -> list[Path]:
        """Return the decided days all of whose decisions are for before a time."""
        return [] if self.decided is None else [day for day in decided_days(self.decided) if ends_before(day, time)]

    def decided_since(self, time: int) -> Sequence[Path]:
        """Return the other decided days."""
        before = set(self.decided_before(time))
        return [] if self.decided is None else [day for day in decided_days(self.decided) if day not in before]


def lookback(layout: Layout, guardrails: Guardrails) -> int:
    """Return the longest time over which contexts and guardrails look back at single rows, microseconds."""
    lengths = [length for _, length in layout.windows] + [length for *_, length in layout.active]
    gap = () if guardrails.min_gap is None else (duration(guardrails.min_gap),)
    return max(*lengths, *gap, WEEK, CAUSED_WITHIN)


def observation_is_declared(users: pd.DataFrame) -> bool:
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
