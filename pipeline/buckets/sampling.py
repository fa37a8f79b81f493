"""The sample of a bucketed log: what contexts are fitted on and a policy is judged on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import BucketedLog, read_log, sample_sizes, summary
from crosschannel.pipeline.building import TrainingData, prepare_history
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.pricing import LogPace
from crosschannel.pipeline.run_files import scratch_folder


def data_of_sample(config: Config, log: BucketedLog, features: ContextFeatures | None = None) -> TrainingData:
    """Return the sample of a bucketed log as the data that a policy is judged on.

    Args:
        config: The configuration.
        log: The log.
        features: How context is built; by default it is fitted on the sample's training users.
    """
    data = prepare_history(config, log.sample, log.fingerprint, features)
    return replace(data, pace=_pace(config, log, data.pace))


def sample_notes(config: Config, log: BucketedLog, data: TrainingData) -> tuple[str, ...]:
    """Return what is judged, where that is not the whole log."""
    if log.sample.n_users == log.facts.users:
        return ()
    count = {part: int((data.part == part).sum()) for part in ("train", "test")}
    most = sample_sizes(config)["test"]
    return (
        f"the log has {log.facts.users:,} users in buckets: the policy is judged on {count['test']:,} of its test "
        f"users, chosen by a hash (evaluation.max_users {most:,}). The training users below are {count['train']:,} of "
        "those that it has learned from, chosen alike: contexts are scaled by them",
    )


def _pace(config: Config, log: BucketedLog, of_sample: LogPace) -> LogPace:
    """Return the pace of all training users; the time from slot to slot is that of the sample."""
    events = () if config.reward.funnel is None else config.reward.funnel.costs
    counts = log.facts.costs
    return replace(
        of_sample, rates=counts.rates(events), organic=counts.organic(events), events=counts.by_event(events)
    )


def read_to_judge(
    config: Config, features: ContextFeatures, folder: Path, passes: Passes, beside: Config | None = None
) -> tuple[TrainingData, tuple[str, ...]]:
    """Read every bucket of a log once for the sample that a policy is judged on, and what a reader has to know.

    Args:
        config: The configuration.
        features: How context is built.
        folder: Below which columns are written while this lasts.
        passes: How functions run over buckets.
        beside: The configuration of a run that this one is compared with: see `read_log`.
    """
    with _log_for_now(config, folder, passes, beside) as log:
        logger.info(summary(log))
        data = data_of_sample(config, log, features)
        return data, sample_notes(config, log, data)


def fingerprint_of_buckets(config: Config, folder: Path, passes: Passes) -> str:
    """Return the fingerprint of a bucketed log; columns are written below a folder while this lasts."""
    with _log_for_now(config, folder, passes) as log:
        return log.fingerprint


@contextmanager
def _log_for_now(config: Config, folder: Path, passes: Passes, beside: Config | None = None) -> Iterator[BucketedLog]:
    """Read a bucketed log, and remove its columns at the end."""
    with scratch_folder(folder) as scratch:
        yield read_log(config, scratch, passes, learns=False, beside=beside)
