"""Estimate the effect of a log's messages, with diagnostics of causal validity.

  crosschannel effects --config FILE --history.path FOLDER
  crosschannel effects --config FILE --by all module:channel period:2w --plot effects.png
  crosschannel effects --config FILE --reward.kind did_dr --bin 12h --leads 6 --csv effects.csv
  crosschannel effects --config FILE --staggered channel=email --period 1w
  crosschannel effects --config configs/complete_journey.yaml --windows 14d 21d 42d

Prints average effects on the treated with 95 % intervals, an event study, diagnostics, and a
verdict: whether the effect may be read as causal, and if not, why. All users of the log are used.
Any setting of the configuration is a flag as well: see `crosschannel train --help`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from crosschannel.pipeline.building import build_history
from crosschannel.pipeline.command_line import ROOT, program, settings_of
from crosschannel.reward import make_reward
from crosschannel.reward.effects import AUTO, DEFAULT_GROUPINGS, GROUPINGS, EffectsRequest, EventTimes, effects_report


def parse_request(arguments: Sequence[str] | None) -> tuple[EffectsRequest, list[str]]:
    """Parse what the report shall hold; return it, and the flags that are left for the configuration."""
    parser = argparse.ArgumentParser(
        prog="crosschannel effects",
        usage="%(prog)s [OPTIONS] [--SECTION.SETTING VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    table = parser.add_argument_group("table of effects")
    by = f"groups of decisions: {', '.join(GROUPINGS)} (default: {' '.join(DEFAULT_GROUPINGS)})"
    table.add_argument("--by", nargs="+", default=DEFAULT_GROUPINGS, metavar="GROUPING", help=by)
    table.add_argument("--csv", type=Path, metavar="FILE", help="write the table and the event study here")
    events = parser.add_argument_group("event study (without --bin, --leads and --lags, bins fit the reward's windows)")
    events.add_argument("--bin", metavar="LENGTH", help="length of a bin (1d)")
    events.add_argument("--leads", type=int, metavar="N", help="bins before the decision, the base among them (4)")
    events.add_argument("--lags", type=int, metavar="N", help="bins after the decision (3)")
    events.add_argument("--plot", type=Path, metavar="FILE", help="write its picture here (.png, .svg or .pdf)")
    actions = parser.add_argument_group(
        "effect of each action on each goal, by `did` and `did_dr`, with tests of its own"
    )
    module = "module of the actions (default: the first, if no propensities were logged; `none` for none)"
    actions.add_argument("--effects-of", default=AUTO, metavar="MODULE", help=module)
    actions.add_argument("--windows", nargs="+", default=(), metavar="LENGTH", help="further post windows to compare")
    first = parser.add_argument_group("first messages (staggered adoption, Callaway & Sant'Anna 2021)")
    first.add_argument("--staggered", metavar="MODULE=ACTION", help="action whose first message is followed in periods")
    first.add_argument("--period", default="1w", metavar="LENGTH", help="length of a period (default: 1w)")
    chosen, rest = parser.parse_known_args(arguments)
    given = {name: getattr(chosen, name) for name in ("bin", "leads", "lags") if getattr(chosen, name) is not None}
    request = EffectsRequest(
        by=tuple(chosen.by),
        times=EventTimes(**given) if given else None,
        plot=chosen.plot,
        csv=chosen.csv,
        staggered=chosen.staggered,
        period=chosen.period,
        effects_of=chosen.effects_of,
        windows=tuple(chosen.windows),
    )
    return request, rest


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the log, estimate, and print the report; return the exit code."""
    request, rest = parse_request(arguments)
    config = settings_of(rest, default=ROOT / "configs" / "market.yaml", description=__doc__ or "").config
    history, _ = build_history(config)
    print(effects_report(history, make_reward(config.reward.kind, config.reward), request))
    return 0


if __name__ == "__main__":
    program(main)
