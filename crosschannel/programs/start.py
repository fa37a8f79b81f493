"""Start a run without a log of decisions: everybody is decided for at random until rewards have closed.

  crosschannel start --config FILE --history.path LOG --out runs/shop

Where a log of decisions exists, `crosschannel train` learns from it, and this program is not needed.
The log, by day (docs/simulation.md), need only have users and events. The first policy draws every
eligible action of each module with equal probability; `crosschannel update` replaces it as soon as
rewards have closed. Constraints hold from then on. Start with few users (`crosschannel decide --ramp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from crosschannel.pipeline.command_line import Parser, invocation, logger, program
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.loop.starting import start
from crosschannel.pipeline.reading import build_history
from crosschannel.pipeline.run_folder import Run, check_run_folder

#: Sections of the configuration that have no meaning before there is a log.
WITHOUT = ("split", "loop")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the log, make the run's folder with its first policy, and say what comes next; return the exit code."""
    parser = Parser("start", __doc__, "--config FILE [--history.path LOG] [--out RUN] [--SETTING VALUE ...]")
    parser.add_shared("--allow-class", "--out", "--force", out="folder of the run, in place of --run-dir and --name")
    line = parse_settings(parser, arguments, without=WITHOUT)
    check_run_folder(line.config, line.options.out, line.options.force)
    history = build_history(line.config)[0]
    logger.info(history.summary())
    with ExitStack() as locks:
        run = Run.create(line.config, line.options.out, locks, force=line.options.force)
    version = start(run, history).version
    print(
        f"{run.path} decides at random, by policy {version}. Next, every day:\n"
        f"  {invocation('update', run.path)} --history.path LOG --history.decided DECISIONS\n"
        f"  {invocation('decide', run.path)} --history.path LOG --at TIME --out DECISIONS"
    )
    return 0


if __name__ == "__main__":
    program(main)
