"""Estimate the effects of the logged messages, with diagnostics of causal validity.

  crosschannel effects --config configs/market.yaml
  crosschannel effects --config FILE --history.path FOLDER --by all action period:2w --out plot.png
  crosschannel effects --config FILE --reward.kind did_dr --bin 12h --leads 6 --lags 4 --out effects.csv
  crosschannel effects --config FILE --staggered channel=email --period 1w
  crosschannel effects --config configs/complete_journey.yaml --windows 14d 21d 42d

Prints effects, the event study, diagnostics and a verdict; where propensities were not logged, also
the effect of each action on each goal by two kinds of reward, with tests of their own. All users are
used: nothing is learned here that is later evaluated on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crosschannel.pipeline.building import build_history
from crosschannel.pipeline.command_line import Parser, UsageError, program, refuse_existing
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.flags import parse_settings
from crosschannel.reward import make_reward
from crosschannel.reward.effects import AUTO, DEFAULT_GROUPINGS, GROUPINGS, EffectsRequest, EventTimes, effects_report

TABLES, PICTURES = (".csv",), (".png", ".svg", ".pdf")


def parse(arguments: Sequence[str] | None) -> tuple[EffectsRequest, Config]:
    """Return what is asked for, and the configuration.

    Raises:
        ConfigError: If the configuration is wrong.
        UsageError: If a flag or its value is wrong, or a file exists.
    """
    parser = Parser("effects", __doc__, "[--config FILE] [--SETTING VALUE ...]")
    parser.add_argument(
        "--by",
        nargs="+",
        default=list(DEFAULT_GROUPINGS),
        metavar="GROUP",
        help=f"rows of the table: {', '.join(GROUPINGS)} (default: {' '.join(DEFAULT_GROUPINGS)})",
    )
    parser.add_argument("--bin", metavar="TIME", help="bin width of the event study (default: as fits the windows)")
    parser.add_argument("--leads", metavar="INT", type=int, help="bins before the decision, base included (default: 4)")
    parser.add_argument("--lags", metavar="INT", type=int, help="bins after the decision (default: 3)")
    parser.add_argument("--staggered", metavar="MODULE=ACTION", help="study the first message of an action by period")
    parser.add_argument("--period", metavar="TIME", default="1w", help="length of those periods (default: 1w)")
    parser.add_argument(
        "--effects-of",
        metavar="MODULE",
        default=AUTO,
        help="module whose actions' effects on each goal are estimated by did and did_dr; none for none "
        "(default: the first, where propensities were not logged)",
    )
    parser.add_argument("--windows", nargs="+", default=[], metavar="TIME", help="other windows for those estimates")
    parser.add_argument(
        "--out",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="files to write: the table as .csv, the plot as .png, .svg or .pdf",
    )
    parser.add_shared("--force")
    line = parse_settings(parser, arguments, sections=("history", "reward"))
    chosen = line.options
    asked = {name: getattr(chosen, name) for name in ("bin", "leads", "lags") if getattr(chosen, name) is not None}
    files = {}
    for path in chosen.out or ():
        kind = "csv" if path.suffix in TABLES else "plot" if path.suffix in PICTURES else None
        if kind is None or kind in files:
            raise UsageError(f"--out {path}: give at most one .csv file and one .png, .svg or .pdf file")
        refuse_existing(path, chosen.force)
        files[kind] = path
    request = EffectsRequest(
        by=tuple(chosen.by),
        times=EventTimes(**asked) if asked else None,
        plot=files.get("plot"),
        csv=files.get("csv"),
        staggered=chosen.staggered,
        period=chosen.period,
        effects_of=chosen.effects_of,
        windows=tuple(chosen.windows),
    )
    return request, line.config


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, read, estimate, print; return the exit code."""
    request, config = parse(arguments)
    history, _ = build_history(config)
    print(effects_report(history, make_reward(config.reward.kind, config.reward), request))
    return 0


if __name__ == "__main__":
    program(main)
