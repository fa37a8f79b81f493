"""Learn from what came since, and write the next policy of a run.

  crosschannel update RUN --history.path LOG --history.decided FOLDER     learn from the newest log
  crosschannel update RUN                              the log where the run's own stood, read again
  crosschannel update RUN --use VERSION                roll back to an earlier policy

Run it once a day before `decide`, which then decides with the new policy. Rewards are learned from once
their windows have closed. What is learned depends on the log alone: the same after a missed day, a crash,
or a log that was corrected later. Policies are files in RUN/policies, named by their content; the last ones
are kept (update.keep). Of a log by day the days since the last update are read; rows of the earlier ones
are kept in RUN/learning/log. Of a log in buckets a few buckets are in memory at a time, on any engine, and
the policy has the bytes that the same log gives as one folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.wording import counted
from crosschannel.engines import make_engine
from crosschannel.histories.readers.daily import is_daily_log
from crosschannel.histories.readers.decided.days import is_by_date
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import reads_buckets
from crosschannel.pipeline.buckets.updating import update_over_buckets, why_whole
from crosschannel.pipeline.command_line import Parser, UsageError, logger, one_thread, program
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.loop.updating import Updated, update, update_by_day
from crosschannel.pipeline.reading import build_history
from crosschannel.pipeline.report.model_card import rewrite_model_card
from crosschannel.pipeline.run_files import RunLock
from crosschannel.pipeline.run_folder import Run


def add_flags(parser: Parser) -> None:
    """Add the program's own flags."""
    parser.add_shared(
        *("run", "--history.path", "--history.decided"),
        history_path="the newest log, in the layout of the run's own (default: where the run's own log stood)",
        history_decided="the decisions that `decide` wrote, by date (default: the run's)",
    )
    use = "let an earlier policy decide again, and learn nothing"
    parser.add_argument("--use", metavar="VERSION", help=use)
    parser.add_shared("--allow-class", "--engine", "--engine-address", "--workers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the log, learn, and print what was learned; return the exit code."""
    parser = Parser(
        "update", __doc__, "RUN [--history.path PATH] [--history.decided FOLDER] [--engine NAME] [--use VERSION]"
    )
    add_flags(parser)
    chosen = parser.parse(arguments)
    if chosen.use is not None:
        if chosen.history_path is not None or chosen.history_decided is not None:
            raise UsageError("--use learns nothing: leave out --history.path and --history.decided")
        run = Run.open(chosen.run, chosen.allow_class)  # the note of the policy in use may be what is damaged
        roll_back(run, chosen.use)
        print(f"{run.path} decides with policy {chosen.use} from now on")
        return 0
    run = Run.open_in_use(chosen.run, chosen.history_path, chosen.allow_class)
    decided = _decided(run, chosen.history_decided or run.config.history.decided)
    run = replace(run, config=replace(run.config, history=replace(run.config.history, decided=decided)))
    try:
        passes = Passes(make_engine(chosen.engine, chosen.workers, chosen.engine_address))
        print(one_thread()(_learn)(run, passes))
    except NotIdentified as error:
        print(f"the policy stays as it is: {error}")
    return 0


def _decided(run: Run, folder: Path | None) -> Path | None:
    """Return the folder of decisions by date that the log is read with; None before the first day.

    Raises:
        ConfigError: If the policy in use has learned with days of decisions, which are not there.
    """
    if folder is not None and is_by_date(folder):
        return folder
    if run.version is not None and (days := Policies(run.path).days_noted(run.version)):
        where = "no folder of decisions is named" if folder is None else f"{folder} has no day of decisions"
        raise ConfigError(
            f"{where}, but policy {run.version} in use has learned with {counted(days, 'day')} of them: name their "
            "folder with --history.decided. Without them messages would count as if users had acted by themselves"
        )
    if folder is not None:
        logger.info(f"{folder} has no day of decisions yet: the log is read without")
    return None


def _learn(run: Run, passes: Passes) -> Updated:
    """Learn from the run's log: of one in buckets part by part, of one by day from the days that can still change."""
    source = run.config.history
    if reads_buckets(run.config):
        if (why := why_whole(run.config)) is None:
            return update_over_buckets(run, passes)
        logger.warning(f"the log in buckets is read as a whole, into memory: {why}")
    as_it_stands = source.churn_events is None and source.observed_from is None and source.ties is None
    if source.source == "folder" and source.path is not None and is_daily_log(source.path) and as_it_stands:
        return update_by_day(run, source.path, source.decided, announce=True)
    history = build_history(run.config)[0]
    logger.info(history.summary())
    return update(run, history)


def roll_back(run: Run, version: str) -> None:
    """Let an earlier policy of a run decide again, and write the run's card again.

    Raises:
        ConfigError: If there is no such policy, or it is damaged; then the one in use stays.
    """
    with RunLock(run.path):
        policies, earlier = Policies(run.path), replace(run, version=version)
        policies.check(version)
        earlier.trained_with("policy")
        policies.use(version)
        rewrite_model_card(earlier)


if __name__ == "__main__":
    program(main)
