"""What deciding needs of a log by day: its recent days, and what each user did before, summed up once.

Contexts look back over a longest window, guardrails over a week or a gap. All else that they say of the past (the last
event of a kind, messages ever, at which hours a user is active) follows from totals of each user. The totals up to a
time are kept in a run's folder, with what the files of the days before it were; each day they move on by a day. Where a
file has changed since, they are computed again from the whole log. A log that does not allow it is read as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import timestamps
from crosschannel.histories.context.layout import Layout
from crosschannel.histories.guardrails import Guardrails
from crosschannel.histories.history import History
from crosschannel.histories.readers.daily import USERS_FILE, DailyLog, is_daily_log
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.loop.log_files import Cut, LogFiles, lookback, observation_is_declared
from crosschannel.pipeline.loop.totals import VERSION, Totals, read_totals, write_totals

#: Folder of a run in which the totals are kept.
DAYS_FOLDER = "days"


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
        if not days or limit <= self.log.start or self.layout.dated or not observation_is_declared(users):
            return self.log.read(self.decided, users=users)
        files = self._files.states()  # before they are read: a file that changes meanwhile will not fit
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
        return lookback(self.layout, self.guardrails)

    @property
    def _files(self) -> LogFiles:
        return LogFiles(self.log, self.decided)

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
        bounds = {day: self._files.bounds(day) for day in days}
        for day in (wanted, wanted - period):  # rows that lie up to a day later than their files need one more
            cut = self._files.cut(bounds, day, limit, first) if day > first else None
            if cut is not None:
                found = Totals.before(history, cut.time, self.layout, self._rests_on(cut, files), known)
                write_totals(found, self.folder)
                return
        if known is None and wanted - period > first:
            logger.info(
                f"{self.log.path}: the files of some days have rows of others, so that the whole log is read each time"
            )

    def _rests_on(self, cut: Cut, states: Mapping[Path, str]) -> dict[str, Any]:
        """Return what totals up to a cut rest on: the log's description, and the state of each file before it."""
        return {
            "version": VERSION,
            "day": cut.day,
            "time": cut.time,
            **self._files.describe(self.layout),
            "files": self._files.digest(cut, states),
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
    return (
        RecentLog(folder=folder, log=DailyLog.open(log), decided=decided, layout=layout, guardrails=guardrails)
        if is_daily_log(log)
        else None
    )
