"""Estimate the effect of a log's messages, with diagnostics of causal validity.

  crosschannel effects --config FILE --history.path FOLDER
  crosschannel effects --config FILE --by all action period:2w --out plot.png
  crosschannel effects --config FILE --reward.kind did_dr --bin 12h --leads 6 --out effects.csv
  crosschannel effects --config FILE --staggered channel=email --period 1w
  crosschannel effects --config configs/complete_journey.yaml --windows 14d 21d 42d

Prints average effects on the treated with 95 % intervals, an event study, diagnostics, and a
verdict: whether the effect may be read as causal, and if not, why. All users of the log are used.
A log in buckets (kind did) is never whole in memory; what needs that is named and left out: see --whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crosschannel.engines import make_engine
from crosschannel.pipeline.buckets.effects import effects_over_buckets, why_whole
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import reads_buckets
from crosschannel.pipeline.building import check_log
from crosschannel.pipeline.command_line import Parser, UsageError, logger, output_file, program
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.reading import build_history
from crosschannel.reward import make_reward
from crosschannel.reward.effects import AUTO, DEFAULT_GROUPINGS, GROUPINGS, EffectsRequest, EventTimes, effects_report

ADDRESS = "cluster of ray or master of spark to connect to"
KIND_OF_FILE = {".csv": "csv", ".png": "plot", ".svg": "plot", ".pdf": "plot"}


def add_flags(parser: Parser) -> None:
    """Add the program's own flags."""
    by = f"rows of the table: {', '.join(GROUPINGS)} (default: {' '.join(DEFAULT_GROUPINGS)})"
    parser.add_argument("--by", nargs="+", default=DEFAULT_GROUPINGS, metavar="GROUP", help=by)
    out = "files to write: a table (.csv), a plot (.png, .svg, .pdf)"
    parser.add_argument("--out", nargs="+", type=Path, metavar="PATH", help=out)
    engine = "for buckets: local, processes, ray, spark (default: local)"
    parser.add_shared("--force", "--engine", "--engine-address", "--workers", engine=engine, engine_address=ADDRESS)
    scratch = "folder for temporary columns (default: this one)"
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", default=Path("."), help=scratch)
    parser.add_argument("--whole", action="store_true", help="read a log in buckets as a whole, into memory")
    events = parser.add_argument_group("event study (without these flags, bins fit the reward's windows)")
    events.add_argument("--bin", metavar="TIME", help="width of a bin (1d)")
    events.add_argument("--leads", type=int, metavar="INT", help="bins before the decision, base included (4)")
    events.add_argument("--lags", type=int, metavar="INT", help="bins after the decision (3)")
    actions = parser.add_argument_group("effect of each action on each goal, by did and did_dr, with tests of its own")
    module = "module of the actions; none for none (default: the first, where propensities were not logged)"
    actions.add_argument("--effects-of", metavar="MODULE", default=AUTO, help=module)
    actions.add_argument("--windows", nargs="+", default=(), metavar="TIME", help="other post windows to compare")
    first = parser.add_argument_group("first messages of an action (staggered adoption)")
    first.add_argument("--staggered", metavar="MODULE=ACTION", help="the action")
    first.add_argument("--period", metavar="TIME", default="1w", help="length of a period (default: 1w)")


def parse(arguments: Sequence[str] | None) -> tuple[EffectsRequest, Config, Passes | None, Path]:
    """Return what the report shall hold, the configuration, how to pass over buckets (None: not at all), and where.

    Raises:
        ConfigError: If the configuration is wrong.
        UsageError: If a flag or its value is wrong, or a file exists.
    """
    parser = Parser("effects", __doc__, "[--config FILE] [--SETTING VALUE ...]")
    add_flags(parser)
    line = parse_settings(parser, arguments, sections=("history", "reward"))
    chosen = line.options
    bins = {name: getattr(chosen, name) for name in ("bin", "leads", "lags") if getattr(chosen, name) is not None}
    files = _files_by_kind(chosen.out or (), chosen.force)
    request = EffectsRequest(
        by=tuple(chosen.by),
        times=EventTimes(**bins) if bins else None,
        plot=files.get("plot"),
        csv=files.get("csv"),
        staggered=chosen.staggered,
        period=chosen.period,
        effects_of=chosen.effects_of,
        windows=tuple(chosen.windows),
    )
    passes = None if chosen.whole else Passes(make_engine(chosen.engine, chosen.workers, chosen.engine_address))
    return request, line.config, passes, chosen.scratch


def _files_by_kind(paths: Sequence[Path], force: bool) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        kind = KIND_OF_FILE.get(path.suffix)
        if kind is None or kind in found:
            raise UsageError(f"--out {path}: give at most one .csv file and one .png, .svg or .pdf file")
        found[kind] = output_file(path, force)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the log, estimate, and print the report; return the exit code."""
    request, config, passes, scratch = parse(arguments)
    if passes is not None and reads_buckets(config):
        if (why := why_whole(config)) is None:
            print(effects_over_buckets(config, request, passes, scratch))
            return 0
        logger.warning(f"the log in buckets is read as a whole, into memory: {why}")
    history, _ = check_log(build_history(config)[0], config.reward)
    print(effects_report(history, make_reward(config.reward.kind, config.reward), request))
    return 0


if __name__ == "__main__":
    program(main)
