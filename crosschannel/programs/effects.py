"""What a log's messages did, with what speaks for and against believing it.

crosschannel effects --config configs/market.yaml
crosschannel effects --config FILE --history.path FOLDER --by all action period:2w --plot effects.png
crosschannel effects --config FILE --reward.kind did_dr --bin 12h --leads 6 --lags 4 --csv effects.csv
crosschannel effects --config FILE --staggered channel=email --period 1w
crosschannel effects --config configs/complete_journey.yaml --lengths 14d 21d 42d

Prints effects, the event study, diagnostics and a verdict; where nobody logged propensities, also what each action did
to each goal by two reward kinds, with tests of their own. Every other flag overrides the configuration, as for train.py
(`python train.py --help` lists them). All users are used: nothing is learned here that is later judged on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from crosschannel.pipeline.building import build_history
from crosschannel.pipeline.command_line import ROOT, program, settings_of
from crosschannel.reward.effects.event_study import EventTimes
from crosschannel.reward.effects.report import AUTO, BY, Request, report
from crosschannel.reward.kinds import make_reward


def request_of(arguments: Sequence[str] | None) -> tuple[Request, list[str]]:
    """What is asked for, and the flags that are left for the configuration."""
    parser = argparse.ArgumentParser(
        prog="crosschannel effects",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--by",
        nargs="+",
        default=list(BY),
        metavar="GROUPING",
        help="rows of the table of effects: all, goal, action, module:NAME, cell, period:LENGTH, attribute:NAME "
        f"(default: {' '.join(BY)})",
    )
    parser.add_argument(
        "--bin", help="length of the event study's bins; without any of these three they fit the reward"
    )
    parser.add_argument("--leads", type=int, help="bins before the decision, the base among them (4)")
    parser.add_argument("--lags", type=int, help="bins after the decision (3)")
    parser.add_argument("--plot", type=Path, help="write the event study's picture here (.png, .svg, .pdf)")
    parser.add_argument("--csv", type=Path, help="write the table here")
    parser.add_argument("--staggered", metavar="MODULE=ACTION", help="study the first message of an action in periods")
    parser.add_argument("--period", default="1w", help="length of those periods (default: 1w)")
    parser.add_argument(
        "--each",
        metavar="MODULE",
        default=AUTO,
        help="tell what each action of a module did to each goal, by `did` and `did_dr` (default: the first module, "
        "where nobody logged propensities; `none` for none)",
    )
    parser.add_argument("--lengths", nargs="+", default=[], metavar="LENGTH", help="tell that with other windows too")
    a, rest = parser.parse_known_args(arguments)
    asked = {name: getattr(a, name) for name in ("bin", "leads", "lags") if getattr(a, name) is not None}
    times = EventTimes(**asked) if asked else None
    return Request(tuple(a.by), times, a.plot, a.csv, a.staggered, a.period, a.each, tuple(a.lengths)), rest


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, reads, estimates, prints; returns the exit code."""
    request, rest = request_of(arguments)
    config = settings_of(rest, default=ROOT / "configs" / "market.yaml", description=__doc__ or "").config
    history, _ = build_history(config)
    print(report(history, make_reward(config.reward.kind, config.reward), request))
    return 0


if __name__ == "__main__":
    program(main)
