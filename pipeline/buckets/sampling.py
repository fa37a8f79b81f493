"""The sample of a bucketed log: what contexts are fitted on and a policy is judged on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from crosschannel import agents
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import BucketedLog, read_log, sample_sizes, summary
from crosschannel.pipeline.building import TrainingData, prepare_history
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.pricing import LogPace


def scratch_of(folder: Path) -> Path:
    """Return the folder of a run's columns and rows; it is removed at the end."""
    return folder / "scratch"


def data_of_sample(
    config: Config, log: BucketedLog, features: ContextFeatures | None = None
) -> tuple[TrainingData, tuple[str, ...]]:
    """Return the sample of a bucketed log as the data that a policy is judged on, and what a reader has to know.

    Args:
        config: The configuration.
        log: The log.
        features: How context is built; by default it is fitted on the sample's training users.
    """
    data = prepare_history(config, log.sample, log.fingerprint, features)
    return replace(data, pace=_pace(config, log, data.pace)), sample_notes(config, log, data)


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
    rates = {
        event: agents.rate_per_week(count, log.facts.observed)
        for event, count in zip(events, log.facts.cost_events, strict=True)
    }
    return replace(of_sample, rates=rates)


def read_to_judge(
    config: Config, features: ContextFeatures, folder: Path, passes: Passes
) -> tuple[TrainingData, tuple[str, ...]]:
    """Read every bucket of a log once for the sample that a policy is judged on, and what a reader has to know.

    Args:
        config: The configuration.
        features: How context is built.
        folder: Where columns are written while this lasts.
        passes: How functions run over buckets.
    """
    try:
        log = read_log(config, scratch_of(folder), passes, learns=False)
        logger.info(summary(log))
        return data_of_sample(config, log, features)
    finally:
        shutil.rmtree(scratch_of(folder), ignore_errors=True)


def fingerprint_of_buckets(config: Config, folder: Path, passes: Passes) -> str:
    """Return the fingerprint of a bucketed log; columns are written to a folder while this lasts."""
    try:
        return read_log(config, scratch_of(folder), passes, learns=False).fingerprint
    finally:
        shutil.rmtree(scratch_of(folder), ignore_errors=True)
