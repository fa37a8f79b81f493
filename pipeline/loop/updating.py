"""Learn day by day from the log of a policy in use, as a function of the log that is computed piece by piece.

After slot k of a log, all is fitted again if the schedule says so (`settings.refits`), and otherwise the decisions that
closed since slot k - 1 are added to the last fit. What a policy has learned is therefore a function of the
configuration and of what the log held before slot k: the same bits whether it was updated every day, once a month, or
after a crash. The states that a run stores only spare work (`pipeline/loop/states.py`): where a day of the log that
they rest on has changed since, what was learned from it is computed again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.times import duration, timestamps
from crosschannel.core.wording import counted
from crosschannel.histories.history import History
from crosschannel.histories.observation.users import span_notes
from crosschannel.histories.readers.decided.days import decided_days, is_by_date
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.kept.log import KeptLog, KnownDays
from crosschannel.pipeline.loop.learning import Learned, extend, fit
from crosschannel.pipeline.loop.parts.log import LogParts
from crosschannel.pipeline.loop.parts.rewards import RowsAreMissing
from crosschannel.pipeline.loop.parts.surveying import survey
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.loop.settings import last_refit
from crosschannel.pipeline.loop.states import States, is_extendable
from crosschannel.pipeline.report.model_card import LearnedFrom, rewrite_model_card
from crosschannel.pipeline.run_files import RunLock, TrainedWith
from crosschannel.pipeline.run_folder import Run
from crosschannel.reward import Reason, make_reward


@dataclass(frozen=True)
class Updated:
    """What an update did.

    Attributes:
        version: Version of the policy that is in use now.
        slot: Number of slots that were learned from, and their time, microseconds since 1970 UTC.
        time: That of the last one.
        rows: Number of decisions that the policy has learned from.
        fitted: Numbers of the slots after which all was fitted again in this update.
        added: Numbers of the slots whose decisions were added to a fit in this update.
        revised: Number of days that had changed, within `update.revise`.
        late: Number of days before that had changed; they count at the next fit.
        missing: Times of slots without any decision.
    """

    version: str
    slot: int
    time: int
    rows: int
    fitted: tuple[int, ...] = ()
    added: tuple[int, ...] = ()
    revised: int = 0
    late: int = 0
    missing: tuple[int, ...] = ()

    def of_policy(self) -> str:
        """Return what the policy has learned from, in words that do not depend on how many updates it took."""
        return f"policy {self.version}: learned from {counted(self.rows, 'decision')} up to {_day(self.time)}"

    def __str__(self) -> str:
        parts = [self.of_policy()]
        if self.fitted:
            parts.append(f"all was fitted again after slot {self.fitted[-1]}")
        if self.added:
            parts.append(f"{counted(len(self.added), 'day')} added")
        if self.revised:
            parts.append(f"{counted(self.revised, 'day')} of the log had changed; all from there on was learned again")
        if self.late:
            parts.append(f"{counted(self.late, 'day')} before `update.revise` had changed, and count at the next fit")
        if self.missing:
            parts.append(f"no decisions on {', '.join(_day(time) for time in self.missing[:5])}")
        return "; ".join(parts)


def update(run: Run, history: History) -> Updated:
    """Learn from what a log holds by now, and write the next policy of a run.

    Args:
        run: The run.
        history: The log, the policy's own decisions included.

    Raises:
        ConfigError: If the run is in use, its files are damaged, or the settings do not fit the log.
        NotIdentified: If the log has no decisions.
    """
    with RunLock(run.path):
        return learn_from_parts(run, LogParts.from_history(history), history.summary())[0]


def update_by_day(run: Run, log: Path, decided: Path | None, *, announce: bool = False) -> Updated:
    """Learn from what a log by day holds by now: as `update` does, to the same bits, but from the rows that it takes.

    Args:
        run: The run.
        log: Folder of the log.
        decided: Folder of the decisions by date; None if there is none yet.
        announce: Whether the summary of what was read is logged.

    Raises:
        InputError: If the log has faults.
        ConfigError: As for `update`.
        NotIdentified: If the log has no decisions.
    """
    with RunLock(run.path):
        kept = KeptLog.open(run.path, log, decided, run.config)
        read, found = kept.read(), None
        if read is not None:
            history, known = read
            _announce(history, announce)
            try:
                found = learn_from_parts(run, LogParts.from_history(history), _in_words(history), known)
            except RowsAreMissing:
                logger.debug("a fit takes the whole log")
        whole = found is None
        if found is None:
            history = kept.whole()
            _announce(history, announce)
            found = learn_from_parts(run, LogParts.from_history(history), _in_words(history))
        done, learned, days = found
        if not is_extendable(learned):
            kept.clear()
        else:
            kept.keep(history, learned.features.layout, days, again=whole or bool(done.fitted))
        return done


def _announce(history: History, announce: bool) -> None:
    if announce:
        logger.info(history.summary())


def _in_words(history: History) -> str:
    """Return what a log by day holds, in words that do not depend on how much of it was read."""
    first, last = timestamps(np.array(history.span))
    what = (
        f"{history.name}: {counted(history.n_users, 'user')}, events of {counted(len(history.event_names), 'kind')}, "
        f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    )
    return "\n".join((what, *span_notes(history.span, history.observed_from, history.observed_until)))


def learn_from_parts(
    run: Run, log: LogParts, in_words: str, known: KnownDays | None = None
) -> tuple[Updated, Learned, KnownDays]:
    """Learn from what a log holds by now, and write the next policy of a run, whose folder is locked.

    Args:
        run: The run.
        log: The log.
        in_words: What the log holds, for the run's card.
        known: What is known of its first days.

    Returns:
        What was done, what was learned, and what is known of the log's days now.

    Raises:
        ConfigError: If the run's files are damaged, or the settings do not fit the log.
        NotIdentified: If the log has no decisions.
        RowsAreMissing: If it takes earlier rows than the log has.
    """
    config = run.config
    if config.constraints.discount:
        raise ConfigError("constraints.discount: the price of a message is not learned day by day: leave it at 0")
    if not log.decisions:
        raise NotIdentified(f"{log.shared.name} has no decisions to learn from yet")
    every = duration(config.update.every)
    known = known or KnownDays(log.first_decision)
    first = known.first
    slot = (log.shared.span[1] - first) // every
    found = survey(log, first, every, slot, len(known.digests))
    digests = [*known.digests, *found.days]
    fitted_at = last_refit(slot, config.update)
    states = States(
        run=run, modules=log.shared.modules, digests=digests, users=found.users, first=first, fitted_at=fitted_at
    )
    learned, reached = states.furthest()
    to_learn = [k for k in range(reached + 1, slot + 1) if k >= fitted_at]
    log = log.with_sample([first + k * every for k in to_learn or [slot]])
    fitted, added = list[int](), list[int]()
    for k in to_learn:
        time = first + k * every
        if learned is not None and k > fitted_at and is_extendable(learned):
            learned = extend(config, learned, log, time)
            added.append(k)
        else:
            try:
                learned = fit(config, log, time)
                fitted.append(k)
            except NotIdentified as error:
                logger.info(f"nothing is learned from slot {k}: {error}")
        states.write(learned, k)
    if learned is None or not learned.rows:
        everything = log.sample(log.shared.span[1] + 1)
        raise NotIdentified(_why_nothing(config, everything, first + slot * every, every))
    policies = Policies(run.path)
    fingerprint = states.fingerprint(slot)
    trained_with = TrainedWith(config, fingerprint, learned.features, learned.pace).to_dict()
    version = policies.write(learned.agent, learned.spec, {"run": trained_with, "slot": slot})
    decided = known.decided | found.decided
    done = Updated(
        version=version,
        slot=slot,
        time=first + slot * every,
        rows=learned.rows,
        fitted=tuple(fitted),
        added=tuple(added),
        revised=states.revised,
        late=states.late,
        missing=tuple(first + k * every for k in range(slot) if k not in decided),
    )
    decided_in = config.history.decided
    days = len(decided_days(decided_in)) if decided_in is not None and is_by_date(decided_in) else 0
    policies.note(version, asdict(LearnedFrom(done.of_policy(), in_words)), days)
    policies.use(version)
    policies.prune(config.update.keep)
    rewrite_model_card(replace(run, version=version), fingerprint)
    return done, learned, KnownDays(first, tuple(digests), fitted_at, frozenset(decided))


def _why_nothing(config: Config, history: History, reached: int, every: int) -> str:
    """Return why nothing is learned up to a time (microseconds): what most decisions lack, or how long to wait."""
    try:
        frame = make_reward(config.reward.kind, config.reward).fit_transform(history)
    except NotIdentified as error:
        return str(error)
    has = frame.identified
    if has.any() and (history.decisions.time[has] + duration(config.reward.post) >= reached).all():
        following = timestamps(np.array([reached + every]))[0]
        return (
            f"{int(has.sum()):,} of {len(frame):,} decisions have a reward, and are learned from when the log reaches "
            f"{following:%Y-%m-%d %H:%M} UTC: days of learning begin at the time of day of the first decision"
        )
    counts = {text: n for text, n in frame.counts().items() if n and text != Reason.IDENTIFIED.text}
    if not counts:
        return "no window has closed yet"
    most = max(counts, key=counts.__getitem__)
    few = (
        f"{int(has.sum()):,} of {len(frame):,} decisions have" if has.any() else f"none of {len(frame):,} decisions has"
    )
    return f"{few} a reward yet; {counts[most]:,} have none: {most}"


def _day(time: int) -> str:
    return f"{timestamps(np.array([time]))[0]:%Y-%m-%d}"
