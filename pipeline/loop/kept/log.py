"""What learning needs of a log by day: the days that can still change, and what it keeps of the others.

A day that has passed is read once. Its rows, as far back as rewards, memory and contexts look, its digest, and totals
of each user for the time before are kept in a run's folder, with what the files were that they come from. Each update
adds a day. The log is cut before each of these days, and after those that are not revised any more (`update.revise`):
where files have changed or late rows have come, what was kept up to the last cut that still holds is taken, and the
days since are read again. Where none holds, the whole log is read, and all is kept again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from crosschannel.core.arrays import ObjectArray
from crosschannel.core.errors import ConfigError, InputError, OutputError
from crosschannel.core.times import duration, timestamps
from crosschannel.histories.context.layout import Layout
from crosschannel.histories.history import History
from crosschannel.histories.readers.daily import USERS_FILE, DailyLog
from crosschannel.histories.readers.decided.days import ends_before, with_arms_of_users
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.kept.arms import ARMS, ArmsByDay, KeptArms
from crosschannel.pipeline.loop.kept.rows import KeptRows, can_be_kept, with_rows
from crosschannel.pipeline.loop.log_files import Cut, LogFiles, lookback, observation_is_declared
from crosschannel.pipeline.loop.settings import last_refit
from crosschannel.pipeline.loop.states import settings_digest
from crosschannel.pipeline.loop.totals import Totals, read_totals, valued_events, write_totals
from crosschannel.pipeline.run_files import read_json, write_json

#: Folder of a run in which the rows are kept: below that of the states, which go with it.
KEPT_FOLDER = "learning/log"
RECORD = "kept.json"
#: Version of the record, with its digests, and of the rows.
VERSION = 3


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
        held: What the record of the kept rows says, up to the last cut that holds; empty before `read`.
    """

    folder: Path
    files: LogFiles
    config: Config
    states: Mapping[Path, str]
    arms: ArmsByDay = field(default_factory=ArmsByDay)
    held: dict[str, Any] = field(default_factory=dict)

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
        known = read_totals(self.folder)
        if record["rests_on"] != self._rests_on() or known is None or known.rests_on["stamp"] != record["stamp"]:
            return None
        self.held.update(self._up_to_last_that_holds(record))
        if not self.held["cuts"]:
            return None
        cut = Cut(*self.held["cuts"][-1][:2])
        summed_up = known.earlier.time > self.files.log.start
        if summed_up and self._fitted_at(int(record["first"])) != record["fitted_at"]:
            return None  # a fit takes all rows
        try:
            history = self.files.log.read(self.files.decided, cut.day, cut.time, users)
            parts = [KeptRows.read(self.folder / name, record["stamp"]) for name in self.held["parts"]]
            late = any(bool((table.time < cut.time).any()) for table in (history.decisions, history.events))
            with_arms = None if late or not _has_values_alike(history, record) else self._with_arms(history, cut)
        except (InputError, ConfigError):
            return None  # the whole log says what is wrong, if anything is
        merged = None if with_arms is None else with_rows(with_arms, parts)
        if merged is None or not known.fits(merged):
            return None
        note = f"read from {timestamps(np.array([cut.time]))[0]:%Y-%m-%d %H:%M} UTC on; earlier rows were kept"
        if summed_up:
            earlier = known.earlier.for_users(known.user_ids, merged.user_ids)
            merged = replace(merged, earlier=earlier)
            note += f" from {timestamps(np.array([earlier.time]))[0]:%Y-%m-%d %H:%M} UTC on"
        first = int(record["first"])
        number = self._slots_before(cut, first)
        decided = frozenset(k for k in record["decided"] if k < number)
        days = KnownDays(first, tuple(record["digests"][:number]), decided=decided)
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
            record = None if again else self.held
            if record is None:
                self.clear()
            cuts = self._next_cuts(days, None if record is None else Cut(*record["cuts"][-1][:2]))
            if cuts and can_be_kept(history):
                self._keep(history, layout, days, cuts, record)
        except (ConfigError, OutputError, OSError) as error:
            logger.warning(f"{self.folder}: rows of the log are not kept: {error}")

    def clear(self) -> None:
        """Remove what is kept, first what says that it is there."""
        for file in (self.folder / RECORD, self.folder / ARMS, *sorted(self.folder.glob("rows-*.npz"))):
            file.unlink(missing_ok=True)

    def _keep(
        self,
        history: History,
        layout: Layout,
        days: KnownDays,
        cuts: Sequence[Cut],
        record: Mapping[str, Any] | None,
    ) -> None:
        if record is None:
            start = self._horizon(days, layout, cuts[0])
            stamp = f"{start} {self.files.digest(cuts[-1], self.states)}"
            totals = Totals.before(history, start, layout, self._totals_rest_on(layout, start, stamp))
            write_totals(totals, self.folder)
            begin = start if start > self.files.log.start else 0
            before: dict[str, Any] = {"cuts": [], "parts": [], "happened": [], "valued": []}
        else:
            begin, stamp, before = int(record["cuts"][-1][1]), str(record["stamp"]), dict(record)
        names, happened, valued = list(before["parts"]), set(before["happened"]), set(before["valued"])
        kinds = np.asarray(history.event_names, dtype=object)
        for cut in cuts:
            rows = KeptRows.between(history, begin, cut.time)
            names.append(f"rows-{begin}-{cut.time}.npz")
            rows.write(self.folder / names[-1], stamp)
            happened |= set(kinds[np.unique(rows.events.event)].tolist())
            valued |= valued_events(rows.events, history.event_names)
            begin = cut.time
        if self.files.decided is not None:
            self._arms_at(history, cuts[-1], again=record is None).write(self.folder)
        number = self._slots_before(cuts[-1], days.first)
        content = {
            "version": VERSION,
            "stamp": stamp,
            "rests_on": self._rests_on(),
            "cuts": [*before["cuts"], *([cut.day, cut.time, self.files.digest(cut, self.states)] for cut in cuts)],
            "parts": names,
            "first": days.first,
            "fitted_at": days.fitted_at,
            "digests": list(days.digests[:number]),
            "decided": sorted(k for k in days.decided if k < number),
            "happened": sorted(happened),
            "valued": sorted(valued),
        }
        write_json(content, self.folder / RECORD)

    def _up_to_last_that_holds(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record up to the last cut before which no file has changed, and after which no row is earlier."""
        written, earliest = self.files.log.days(), np.iinfo(np.int64).max
        looked_at = written[-1] + self.files.log.period if written else 0
        for n in range(len(record["cuts"]), 0, -1):
            day, time, digest = record["cuts"][n - 1]
            bounds = [self.files.bounds(each) for each in written if day <= each < looked_at]
            earliest, looked_at = min([earliest, *(times[0] for times in bounds if len(times))]), day
            if day in written and earliest >= time and digest == self.files.digest(Cut(day, time), self.states):
                break
        else:
            n = 0
        last = record["cuts"][-1][1]
        return {**record, "cuts": record["cuts"][:n], "parts": record["parts"][:n], "last": last}

    def _slots_before(self, cut: Cut, first: int) -> int:
        """Return the number of slots that are over at a cut."""
        return max((cut.time - first) // duration(self.config.update.every), 0)

    def _horizon(self, days: KnownDays, layout: Layout, cut: Cut) -> int:
        """Return the time from which on later updates need rows: those of rewards, of contexts, of the last slot."""
        update, reward = self.config.update, self.config.reward
        every, funnel = duration(update.every), reward.funnel
        window = 0 if funnel is None or funnel.window is None else duration(funnel.window)
        fitted = days.first + days.fitted_at * every
        learned = fitted + every - duration(update.memory) - duration(reward.pre)
        seen = fitted - max(duration(reward.post), window) - 2 * every - lookback(layout, self.config.guardrails)
        return max(min(learned, seen, cut.time - every), self.files.log.start)

    def _next_cuts(self, days: KnownDays, last: Cut | None) -> list[Cut]:
        """Return cuts after the last one: after what is not revised any more, and before the newest day."""
        log, update = self.files.log, self.config.update
        every = duration(update.every)
        first = log.start if last is None else last.day
        written = [time for time in log.days() if time >= first]
        bounds = {day: self.files.bounds(day) for day in written}
        revised = days.first + (len(days.digests) - duration(update.revise) // every) * every
        out = list[Cut]()
        for limit in (revised, log.end):
            if limit <= first or not written:
                continue
            wanted = min(log.start + (limit - log.start) // log.period * log.period, written[-1])
            for day in (wanted, wanted - log.period):
                found = self.files.cut(bounds, day, limit, first) if day > first else None
                if found is not None:
                    out.append(found)
                    first = found.day
                    break
        return out

    def _arms_at(self, history: History, cut: Cut, *, again: bool) -> KeptArms:
        users, kept = history.user_ids, None if again else KeptArms.read(self.folder)
        before = self._arms_before(users, cut, kept)
        latest = self.arms.of_users(self.files.decided_since(cut.time), users, before)
        decided = np.zeros(len(users), dtype=bool) if kept is None else kept.had_decisions(users)
        decided[history.decisions.user[history.decisions.time < cut.time]] = True
        return KeptArms(users.astype(str).astype(object), before, latest, decided)

    def _arms_before(self, users: ObjectArray, cut: Cut, kept: KeptArms | None) -> ObjectArray:
        """Return the users' arms (U,) by the days before a cut: of those before the last kept one as they were kept."""
        days = self.files.decided_before(cut.time)
        if kept is None or self.held["cuts"][-1][1] != self.held["last"]:
            return self.arms.of_users(days, users)
        since = [day for day in days if not ends_before(day, self.held["last"])]
        return self.arms.of_users(since, users, kept.before_of(users))

    def _fitted_at(self, first: int) -> int:
        update = self.config.update
        return last_refit((self.files.log.end - first) // duration(update.every), update)

    def _rests_on(self) -> dict[str, Any]:
        return {"log": self.files.description(), "settings": settings_digest(self.config)}

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
        before = self._arms_before(history.user_ids, cut, kept)
        arms = self.arms.of_users(self.files.decided_since(cut.time), history.user_ids, before)
        if not kept.are_those_of(history.user_ids, arms):
            return None
        return with_arms_of_users(history, decided, arms)


def _has_values_alike(history: History, record: Mapping[str, Any]) -> bool:
    """Return whether the events of the days that were read have values where those of the kept rows have."""
    now = {history.event_names[code] for code in np.unique(history.events.event)}
    both = now & set(record["happened"])
    return both & set(record["valued"]) == both & valued_events(history.events, history.event_names)
