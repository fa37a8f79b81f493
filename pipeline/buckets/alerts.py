"""Check the rules of a deployment on a log in buckets: arms and numbers for everybody, the other rules on a sample."""

from __future__ import annotations

from pathlib import Path

from crosschannel.core.times import parse_moment
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.users import read_users
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.run_files import scratch_folder
from crosschannel.pipeline.watch.checking import Watched, check_watched
from crosschannel.pipeline.watch.records import Alerts


def check_alerts_over_buckets(config: Config, now: int, period: int, folder: Path, passes: Passes) -> Alerts:
    """Check all rules that are switched on, with what was known at a time; every bucket is read once.

    Numbers of decisions, cost events and the checks of arms are those of everybody. Shares of actions, importance
    weights, deliveries and rewards are those of a sample of at most `evaluation.max_users` users, chosen by a hash; a
    log with fewer users is its own sample.

    Args:
        config: The configuration of the run, whose history is a bucketed folder.
        now: Time of the check, microseconds since 1970 UTC.
        period: Time from one decision time to the next, microseconds.
        folder: Below which columns are written while this lasts.
        passes: How functions run over buckets.

    Raises:
        InputError: If a bucket cannot be read.
    """
    most = config.evaluation.max_users
    with scratch_folder(folder) as scratch:
        read = read_users(config, scratch, passes, now, most)
        start = read.own_start if config.trial.start is None else parse_moment(config.trial.start)
        users, sample = read.users(start), read.sample(most)
        if sample.n_users < users.n_users:
            logger.warning(
                f"{users.n_users:,} users in buckets: shares of actions, importance weights, deliveries and rewards "
                f"are checked on {sample.n_users:,} of them, chosen by a hash (evaluation.max_users); all else on "
                "everybody"
            )
        watched = Watched(sample, users, read.counts, read.amounts(users, scratch))
        return check_watched(config, watched, now, period)
