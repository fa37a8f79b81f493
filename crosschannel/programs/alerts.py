"""Check a deployment after each day, and print each alert in one sentence with what to do.

  crosschannel alerts RUN --history.path LOG               after `decide`, as the last step of the daily job
  crosschannel alerts RUN --history.path LOG --history.decided decisions
  crosschannel alerts RUN --at 2026-03-02T06:00            as of another time than now

Rules and their bounds are the section `alerts` of RUN/config.yaml, which may change at any time: no decisions or a
drop of their number, one whole action's share, mean importance weights that are not 1, unsubscribes above those of
business as usual, a failing placebo, rewards that stopped closing, deliveries, the age of the log.

Writes RUN/alerts.json. The exit code is 5 if an alert is critical, and 0 without alerts or with warnings only (1 is an
error, 2 wrong usage, 3 and 4 are the verdicts of the gate in train and evaluate).

A log in buckets is read bucket by bucket: arms, numbers of decisions and cost events count everybody, the other
rules a sample of at most evaluation.max_users users; --whole reads it into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from crosschannel.core import parse_moment
from crosschannel.core.times import SECOND
from crosschannel.engines import make_engine
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import reads_buckets
from crosschannel.pipeline.command_line import Parser, UsageError, logger, one_thread, program
from crosschannel.pipeline.configuration import WITH_DECISIONS
from crosschannel.pipeline.reading import build_history
from crosschannel.pipeline.run_folder import Run

#: Exit code where an alert is critical.
CRITICAL = 5
ADDRESS = "cluster of ray or master of spark to connect to"


def add_flags(parser: Parser) -> None:
    """Add the program's own flags."""
    log = "the newest log, in the layout of the run's own (default: where the run's own log stood)"
    parser.add_shared(
        *("run", "--history.path", "--history.decided", "--at"), history_path=log, at="time of the check (default: now)"
    )
    parser.add_shared("--allow-class")
    engine = "for buckets: local, processes, ray, spark (default: local)"
    parser.add_shared("--engine", "--engine-address", "--workers", engine=engine, engine_address=ADDRESS)
    parser.add_argument("--whole", action="store_true", help="read a log in buckets as a whole, into memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the log, check all rules, print and write what they found; return the exit code."""
    parser = Parser("alerts", __doc__, "RUN [--history.path PATH] [--history.decided FOLDER] [--at TIME] [...]")
    add_flags(parser)
    chosen = parser.parse(arguments)
    # SciPy's distributions are imported here, so that help and wrong flags do not wait for them.
    from crosschannel.pipeline.buckets.alerts import check_alerts_over_buckets
    from crosschannel.pipeline.watch.checking import check_alerts, write_alerts

    run = Run.open_in_use(chosen.run, chosen.history_path, chosen.allow_class)
    config = run.config
    if chosen.history_decided is not None:
        if config.history.source not in WITH_DECISIONS:
            raise UsageError(f"--history.decided does not go with a {config.history.source} log")
        config = replace(config, history=replace(config.history, decided=chosen.history_decided))
    now = int(datetime.now(UTC).timestamp() * SECOND) if chosen.at is None else parse_moment(chosen.at)
    period = run.trained_with("policy").pace.period
    with one_thread():
        if reads_buckets(config) and not chosen.whole:
            passes = Passes(make_engine(chosen.engine, chosen.workers, chosen.engine_address))
            found = check_alerts_over_buckets(config, now, period, run.path, passes)
        else:
            history = build_history(config)[0]
            logger.info(history.summary())
            found = check_alerts(config, history, now, period)
    print(found)
    write_alerts(found, run.path)
    return CRITICAL if found.critical else 0


if __name__ == "__main__":
    program(main)
