"""What learning needs of a log by day: the days that can still change, and what it keeps of the others.

Late and corrected events change what was learned within `update.revise`. The days before are read once: their rows, as
far back as rewards, memory and contexts look, their digests, and totals of each user for the time before these are kept
in a run's folder, with what the files were that they come from. Each day a further day is added. Where a file has
changed since, the whole log is read, and all is kept again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from crosschannel.core.errors import ConfigError, InputError, OutputError
from crosschannel.core.times import duration, timestamps
from crosschannel.histories.context.layout import Layout
from crosschannel.histories.history import History
from crosschannel.histories.readers.daily import USERS_FILE, DailyLog
from crosschannel.histories.readers.decided.days import ends_before, with_arms_of_users
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.kept.arms import ArmsByDay, KeptArms
from crosschannel.pipeline.loop.kept.rows import KeptRows, can_be_kept, with_rows
from crosschannel.pipeline.loop.log_files import Cut, LogFiles, lookback, observation_is_declared
from crosschannel.pipeline.loop.settings import last_refit
from crosschannel.pipeline.loop.states import settings_digest
from crosschannel.pipeline.loop.totals import Totals, read_totals, valued_events, write_totals
from crosschannel.pipeline.run_files import read_json, write_json

#: Folder of a run in which the rows are kept: below that of the states, which go with it.
KEPT_FOLDER = "learning/log"
RECORD = "kept.json"
#: Version of the record and of the rows.
VERSION = 1


@dataclass(frozen=True)
class KnownDays:
    """What is known of the first slots of a log.

    Attributes:
        first: When the first slot begins, microseconds since 1970 UTC.
        digests: A digest of each of these slots.
        fitted_at: Number of slots after which all was fitted again for the last time.
        decided: Numbers of the slots that have decisions.
    """

    first: int
    digests: tuple[str, ...] = ()
    fitted_at: int = 0
    decided: frozenset[int] = frozenset()


@dataclass(frozen=True)
class KeptLog:
    """A log by day of which learning reads the days that can still change.

    Attributes:
        folder: Where rows are kept.
        files: The files of the log.
        config: What is learned with.
        states: What the system knew of each file before any was read.
        arms: The arms of the days that were read.
    """

    folder: Path
    files: LogFiles
    config: Config
    states: Mapping[Path, str]
    arms: ArmsByDay = field(default_factory=ArmsByDay)

    @classmethod
    def open(cls, folder: Path, log: Path, decided: Path | None, config: Config) -> KeptLog:
        """Open a log by day, of which a folder of a run may have rows."""
        files = LogFiles(DailyLog.open(log), decided)
        return cls(folder / KEPT_FOLDER, files, config, files.states())

    def whole(self) -> History:
        """Return the whole log."""
        return self.files.log.read(self.files.decided)

    def read(self) -> tuple[History, KnownDays] | None:
        """Return the log with the rows that are kept, and what is known of its first slots; None to read the whole.

        The history has all rows, but for the ids of decisions that were kept; or it has totals of the earlier ones.
        """
        record, users = self._record(), read_parquet(self.files.log.path / USERS_FILE)
        if record is None or not observation_is_declared(users):
            return None
        cut, known = Cut(int(record["day"]), int(record["time"])), read_totals(self.folder)
        current = cut.day in self.files.log.days() and record["rests_on"] == self._rests_on(cut)
        if not current or known is None or known.rests_on["stamp"] != record["stamp"]:
            return None
        summed_up = known.earlier.time > self.files.log.start
        if summed_up and self._fitted_at(int(record["first"])) != record["fitted_at"]:
            return None  # a fit takes all rows
        try:
            history = self.files.log.read(self.files.decided, cut.day, cut.time, users)
            parts = [KeptRows.read(self.folder / name, record["stamp"]) for name in record["parts"]]
        except (InputError, ConfigError):
            return None  # the whole log says what is wrong, if anything is
        late = any(bool((table.time < cut.time).any()) for table in (history.decisions, history.events))
        with_arms = None if late or not _has_values_alike(history, record) else self._with_arms(history, cut)
        merged = None if with_arms is None else with_rows(with_arms, parts)
        if merged is None or not known.fits(merged):
            return None
        note = f"read from {timestamps(np.array([cut.time]))[0]:%Y-%m-%d %H:%M} UTC on; earlier rows were kept"
        if summed_up:
            earlier = known.earlier.for_users(known.user_ids, merged.user_ids)
            merged = replace(merged, earlier=earlier)
            note += f" from {timestamps(np.array([earlier.time]))[0]:%Y-%m-%d %H:%M} UTC on"
        days = KnownDays(int(record["first"]), tuple(record["digests"]), decided=frozenset(record["decided"]))
        return replace(merged, notes=(*history.notes, note)), days

    def keep(self, history: History, layout: Layout, days: KnownDays, *, again: bool) -> None:
        """Keep what later updates need not read again.

        Args:
            history: The log, as `read` or `whole` returned it.
            layout: The columns of the contexts.
            days: All its slots.
            again: Whether everything is kept again, instead of a further day.
        """
        try:
            record = None if again else self._record()
            if record is None:
                self.clear()
            cut = self._next_cut(days, None if record is None else Cut(int(record["day"]), int(record["time"])))
            if cut is not None and can_be_kept(history):
                self._keep(history, layout, days, cut, record)
        except (ConfigError, OutputError, OSError) as error:
            logger.warning(f"{self.folder}: rows of the log are not kept: {error}")

    def clear(self) -> None:
        """Remove what is kept, first what says that it is there."""
        for file in (self.folder / RECORD, *sorted(self.folder.glob("rows-*.npz"))):
            file.unlink(missing_ok=True)

    def _keep(
        self,
        history: History,
        layout: Layout,
        days: KnownDays,
        cut: Cut,
        record: Mapping[str, Any] | None,
    ) -> None:
        every = duration(self.config.update.every)
        names, happened, valued = list[str](), set[str](), set[str]()
        if record is None:
            start = self._horizon(days, layout, cut)
            stamp = f"{start} {self._rests_on(cut)['files']}"
            totals = Totals.before(history, start, layout, self._totals_rest_on(layout, start, stamp))
            write_totals(totals, self.folder)
        else:
            start, stamp = int(record["time"]), str(record["stamp"])
            names, happened, valued = list(record["parts"]), set(record["happened"]), set(record["valued"])
        name = f"rows-{start}-{cut.time}.npz"
        rows = KeptRows.between(history, start if record is not None or start > self.files.log.start else 0, cut.time)
        rows.write(self.folder / name, stamp)
        if self.files.decided is not None:
            self._arms_at(history, cut, None if record is None else int(record["time"])).write(self.folder)
        number = max((cut.time - days.first) // every, 0)
        kinds = np.asarray(history.event_names, dtype=object)
        content = {
            "version": VERSION,
            "day": cut.day,
            "time": cut.time,
            "stamp": stamp,
            "rests_on": self._rests_on(cut),
            "parts": [*names, name],
            "first": days.first,
            "fitted_at": days.fitted_at,
            "digests": list(days.digests[:number]),
            "decided": sorted(k for k in days.decided if k < number),
            "happened": sorted(happened | set(kinds[np.unique(rows.events.event)].tolist())),
            "valued": sorted(valued | valued_events(rows.events, history.event_names)),
        }
        write_json(content, self.folder / RECORD)

    def _horizon(self, days: KnownDays, layout: Layout, cut: Cut) -> int:
        """Return the time from which on later updates need rows: those of rewards, of contexts, of the last slot."""
        update, reward = self.config.update, self.config.reward
        every, funnel = duration(update.every), reward.funnel
        window = 0 if funnel is None or funnel.window is None else duration(funnel.window)
        fitted = days.first + days.fitted_at * every
        learned = fitted + every - duration(update.memory) - duration(reward.pre)
        seen = fitted - max(duration(reward.post), window) - 2 * every - lookback(layout, self.config.guardrails)
        return max(min(learned, seen, cut.time - every), self.files.log.start)

    def _next_cut(self, days: KnownDays, before: Cut | None) -> Cut | None:
        """Return the latest cut whose earlier days are not revised any more, later than one that there is."""
        log, update = self.files.log, self.config.update
        every = duration(update.every)
        limit = days.first + (len(days.digests) - duration(update.revise) // every) * every
        first = log.start if before is None else before.day
        written = [time for time in log.days() if time >= first]
        if limit <= log.start or not written:
            return None
        wanted = min(log.start + (limit - log.start) // log.period * log.period, written[-1])
        bounds = {day: self.files.bounds(day) for day in written if day <= wanted + log.period or before is None}
        for day in (wanted, wanted - log.period):
            found = self.files.cut(bounds, day, limit, first) if day > first else None
            if found is not None:
                return found
        return None

    def _arms_at(self, history: History, cut: Cut, last: int | None) -> KeptArms:
        users = history.user_ids
        known = None if last is None else KeptArms.read(self.folder)
        days = self.files.decided_before(cut.time)
        if last is not None:
            days = [day for day in days if not ends_before(day, last)]
        before = self.arms.of_users(days, users, None if known is None else known.before_of(users))
        decided = np.zeros(len(users), dtype=bool) if known is None else known.had_decisions(users)
        decided[history.decisions.user[history.decisions.time < cut.time]] = True
        latest = self.arms.of_users(self.files.decided_since(cut.time), users, before)
        return KeptArms(users.astype(str).astype(object), before, latest, decided)

    def _fitted_at(self, first: int) -> int:
        update = self.config.update
        return last_refit((self.files.log.end - first) // duration(update.every), update)

    def _rests_on(self, cut: Cut) -> dict[str, Any]:
        return {
            "log": self.files.description(),
            "files": self.files.digest(cut, self.states),
            "settings": settings_digest(self.config),
        }

    def _totals_rest_on(self, layout: Layout, time: int, stamp: str) -> dict[str, Any]:
        return {"time": time, "stamp": stamp, **self.files.describe(layout)}

    def _record(self) -> dict[str, Any] | None:
        file = self.folder / RECORD
        if not file.is_file():
            return None
        try:
            return read_json(file, "", VERSION)
        except ConfigError as error:
            logger.warning(f"{error}: the whole log is read")
            return None

    def _with_arms(self, history: History, cut: Cut) -> History | None:
        """Return a history of the days that were read with its users' arms; None if kept rows have others."""
        decided = self.files.decided
        if decided is None:
            return history
        kept = KeptArms.read(self.folder)
        arms = self.arms.of_users(
            self.files.decided_since(cut.time), history.user_ids, kept.before_of(history.user_ids)
        )
        if not kept.are_those_of(history.user_ids, arms):
            return None
        return with_arms_of_users(history, decided, arms)


def _has_values_alike(history: History, record: Mapping[str, Any]) -> bool:
    """Return whether the events of the days that were read have values where those of the kept rows have."""
    now = {history.event_names[code] for code in np.unique(history.events.event)}
    both = now & set(record["happened"])
    return both & set(record["valued"]) == both & valued_events(history.events, history.event_names)
