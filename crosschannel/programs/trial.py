"""Read a randomised trial of arms: lifts with intervals that hold at all looks, checks, and a verdict.

  crosschannel trial --config FILE --history.path FOLDER
  crosschannel trial --config FILE --history.path FOLDER --arms arms.parquet --trial.start 2026-03-02
  crosschannel trial --config FILE --history.path FOLDER --out trial/today --previous trial/yesterday/trial.json

Compares arms (agent, business_as_usual, holdout, or those of --trial.compare) by intention to treat: all
users who were drawn into an arm count in it, whatever was sent. Arms are those of --arms, of the users'
column `arm`, or of the decisions; where the configuration has shares of arms, they follow from the hash of
each user's id. The goals are those of the reward, unless the trial names its own.

The trial may be looked at every day: intervals and significance hold over all looks up to the declared end
(--trial.days), and over all goals by Holm's method. Without --previous a look counts as taken every
--trial.every; with it those count that were taken, and keep what they had to reach.

Of a log in buckets a few buckets are in memory at a time, and one row a user: see --whole.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core import ConfigError, parse_moment, replacing
from crosschannel.engines import make_engine
from crosschannel.evaluation import trials
from crosschannel.histories import History
from crosschannel.histories.arms import Arms, assign_arms
from crosschannel.histories.readers.decided.days import decided_days
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import reads_buckets
from crosschannel.pipeline.buckets.users import BucketAmounts, users_of_buckets
from crosschannel.pipeline.command_line import Parser, UsageError, output_file, program
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.loop.day_summaries import read_summary
from crosschannel.pipeline.reading import build_history

FILES = ("trial.json", "trial.html")
ADDRESS = "cluster of ray or master of spark to connect to"


def read(
    config: Config,
    arms: Path | None = None,
    at: str | None = None,
    previous: Path | None = None,
    *,
    passes: Passes | None = None,
    scratch: Path = Path(),
) -> trials.Trial:
    """Read the trial that a configuration declares.

    Args:
        config: The configuration.
        arms: A table of users and their arms; by default the arms are those of the log.
        at: Time of the look; by default the end of the log, or of the trial.
        previous: The `trial.json` of an earlier look.
        passes: How functions run over the buckets of a log; None reads it as a whole, into memory.
        scratch: Below which the columns of buckets are written while this lasts.

    Raises:
        ConfigError: If the declaration does not fit the log, or the earlier look was at another trial.
        InputError: If the log or the table of arms cannot be read.
        NotIdentified: If an arm has fewer than two users.
    """
    folder = arms or config.history.decided
    settings = _with_arms(_with_start(config.trial, folder), config.arms)
    earlier = None if previous is None else _read_json(previous)
    past = None
    if earlier is not None:
        place = str(previous)

        def past(start: int) -> trials.PastLooks:
            return trials.read_past_looks(earlier, settings, start, place)

    costs = () if config.reward.funnel is None else config.reward.funnel.costs
    with _log(config, settings, passes, scratch) as (history, sums):
        return trials.read_trial(
            history,
            settings,
            config.reward.goals,
            arms=_arms(config, history, folder, settings),
            costs=costs,
            at=None if at is None else parse_moment(at),
            past=past,
            sums=sums,
        )


@contextmanager
def _log(
    config: Config, settings: trials.TrialConfig, passes: Passes | None, scratch: Path
) -> Iterator[tuple[History, BucketAmounts | None]]:
    """Yield the log; of one in buckets its users, and what adds up what they did."""
    if passes is None or not reads_buckets(config):
        yield build_history(config)[0], None
        return
    goals = settings.goals or config.reward.goals
    with users_of_buckets(config, settings.start, goals, scratch, passes) as found:
        yield found


def _with_arms(settings: trials.TrialConfig, arms: Arms) -> trials.TrialConfig:
    """Return the declaration of a trial with the shares and the cluster of the arms that are assigned by hash."""
    if not _assigns(arms):
        return settings
    by_arm = {"agent": 1 - arms.holdout - arms.business_as_usual, "business_as_usual": arms.business_as_usual}
    by_arm["holdout"] = arms.holdout
    shares = settings.shares or {name: share for name, share in by_arm.items() if share > 0}
    return replace(settings, shares=shares, cluster=settings.cluster or arms.cluster)


def _assigns(arms: Arms) -> bool:
    return arms.holdout > 0 or arms.business_as_usual > 0


def _with_start(settings: trials.TrialConfig, path: Path | None) -> trials.TrialConfig:
    """Return the declaration with the first decision of a folder by date as the start, where none is declared."""
    if settings.start is not None or path is None or not path.is_dir():
        return settings
    days = decided_days(path)
    return replace(settings, start=str(read_summary(days[0])["at"])) if days else settings


def _arms(config: Config, history: History, path: Path | None, settings: trials.TrialConfig) -> trials.ArmTable | None:
    """Return the arms of a table, of decisions by date, or by hash; None where they are in the log.

    Raises:
        ConfigError: If the log has other arms than the hash gives.
        InputError: If the table cannot be read.
    """
    if path is not None:
        return trials.read_arms(path, None if settings.start is None else parse_moment(settings.start))
    if not _assigns(config.arms):
        return None
    arms = assign_arms(history.user_ids, config.arms, history.users)
    decisions = history.decisions
    if decisions.arm is not None:
        known = ~pd.isna(decisions.arm)
        other = known & (decisions.arm != arms[decisions.user])
        if other.any():
            raise ConfigError(
                f"{len(np.unique(decisions.user[other])):,} users of the log have decisions of another arm than "
                "arms.salt and arms.cluster give them: restore the settings of the trial, or give the arms that were "
                "drawn with --arms"
            )
    return trials.ArmTable(history.user_ids, arms)


def write(trial: trials.Trial, folder: Path) -> None:
    """Write `trial.json` and `trial.html` into a folder, which is made if it does not exist."""
    with replacing(folder / FILES[0]) as draft:
        draft.write_text(json.dumps(trial.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    trials.write_trial_html(folder / FILES[1], trial)


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): check the path, or write it again") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} does not hold a mapping: check the path, or write it again")
    return content


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    """Return what the command line asks for, and the configuration.

    Raises:
        ConfigError: If the configuration is wrong.
        UsageError: If a flag or its value is wrong, or a file exists.
    """
    parser = Parser("trial", __doc__, "[--config FILE] [--arms PATH] [--previous FILE] [--out FOLDER] [...]")
    arms = "table with the columns user_id and arm, or the folder of decisions by date (default: arms of the log)"
    parser.add_argument("--arms", metavar="PATH", type=Path, help=arms)
    parser.add_shared("--at", at="time of the look in UTC (default: the end of the log, or of the trial)")
    previous = "trial.json of the last look, whose looks count as those that were taken"
    parser.add_argument("--previous", metavar="FILE", type=Path, help=previous)
    parser.add_shared("--out", "--force", out=f"folder for {' and '.join(FILES)}")
    engine = "for buckets: local, processes, ray, spark (default: local)"
    parser.add_shared("--engine", "--engine-address", "--workers", engine=engine, engine_address=ADDRESS)
    scratch = "folder for temporary columns of buckets (default: this one)"
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", default=Path(), help=scratch)
    parser.add_argument("--whole", action="store_true", help="read a log in buckets as a whole, into memory")
    line = parse_settings(parser, arguments, sections=("history", "arms", "reward", "trial"))
    chosen = line.options
    if chosen.out is not None:
        if chosen.out.is_file():
            raise UsageError(f"--out {chosen.out} is a file: name a folder for {' and '.join(FILES)}")
        for name in FILES:
            output_file(chosen.out / name, chosen.force)
    return chosen, line.config


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the trial, print it, and write its files; return the exit code."""
    chosen, config = parse(arguments)
    passes = None if chosen.whole else Passes(make_engine(chosen.engine, chosen.workers, chosen.engine_address))
    trial = read(config, chosen.arms, chosen.at, chosen.previous, passes=passes, scratch=chosen.scratch)
    print(trials.trial_text(trial))
    if chosen.out is not None:
        write(trial, chosen.out)
        print("\n" + "\n".join(str(chosen.out / name) for name in FILES))
    return 0


if __name__ == "__main__":
    program(main)
