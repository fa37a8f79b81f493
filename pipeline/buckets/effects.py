"""Estimate the effects of a log's messages bucket by bucket, where that is possible; see `reward.effects.buckets`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.errors import ConfigError
from crosschannel.histories.buckets import open_buckets, read_bucket
from crosschannel.histories.history import History
from crosschannel.pipeline.buckets.columns import read_columns, write_columns
from crosschannel.pipeline.buckets.facts import Facts
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import (
    ALL,
    BucketedLog,
    SampledBucket,
    merge_samples,
    sampled_buckets,
    summary,
)
from crosschannel.pipeline.building import check_log
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.reading import with_declared
from crosschannel.pipeline.run_files import scratch_folder
from crosschannel.reward.effects import EffectsRequest, EventTimes
from crosschannel.reward.effects.buckets.designs import Plan
from crosschannel.reward.effects.buckets.report import KIND, left_out, report_over_buckets
from crosschannel.reward.effects.event_study import lookback_of_strata
from crosschannel.reward.effects.groups import AttributeGroups, add_counts, count_values
from crosschannel.reward.measurement.censoring import least_uncensored
from crosschannel.reward.spec import RewardSpec


def why_whole(config: Config) -> str | None:
    """Return why effects of a log in buckets need the whole log in memory; None where they do not."""
    if config.reward.kind != KIND:
        return f"reward.kind is {config.reward.kind!r}: only {KIND!r} follows from sums over buckets"
    return None


def effects_over_buckets(config: Config, request: EffectsRequest, passes: Passes, folder: Path) -> str:
    """Estimate effects bucket by bucket, write the files that are asked for, and return the text to print.

    Args:
        config: The configuration, whose history is a bucketed folder and whose reward is of the kind `did`.
        request: The content of the report.
        passes: How functions run over buckets.
        folder: Below which columns are written while this lasts.

    Raises:
        ConfigError: If a grouping, or what settings name, is not known.
        InputError: If a bucket cannot be read.
        NotIdentified: If the order of decisions and goal events is not known.
    """
    spec = replace(config.reward, funnel=None)
    with scratch_folder(folder) as scratch:
        log, facts = _read_all(config, spec, scratch, passes)
        sample, _ = check_log(log.sample, config.reward)
        log = replace(log, sample=sample)
        plan = Plan.fit(
            sample,
            spec,
            request.by,
            request.times or EventTimes.default_for_windows(spec, lookback_of_strata(spec)),
            largest=np.array(facts.facts.largest),
            attributes={name: AttributeGroups.fit(name, counts) for name, counts in facts.attributes.items()},
            reached=facts.reached,
            weight=float(np.ldexp(1.0, np.frexp(1.0 / facts.least)[1] - 1)),
        )

        def run(function: Callable[[History], Any], what: str) -> Iterator[Any]:
            return passes.run(_OnColumns(function), log.folders, what)

        lacks = left_out(request, config.reward, sample)
        return report_over_buckets(run, plan, sample, _about(log, spec), request, lacks)


@dataclass(frozen=True)
class _OnColumns:
    function: Callable[[History], Any]

    def __call__(self, folder: Path) -> Any:
        return self.function(read_columns(folder))


@dataclass(frozen=True)
class _EffectFacts:
    """What one reading of a bucket tells of its users for effects; `+` adds other users.

    Attributes:
        facts: Numbers, and the largest amounts.
        reached: Arms that got messages.
        attributes: How many users have each value of each attribute.
        least: The smallest probability to be uncensored.
    """

    facts: Facts
    reached: tuple[str, ...]
    attributes: dict[str, pd.Series]
    least: float

    def __add__(self, other: _EffectFacts) -> _EffectFacts:
        attributes = {name: add_counts(counts, other.attributes[name]) for name, counts in self.attributes.items()}
        reached = tuple(sorted({*self.reached, *other.reached}))
        return _EffectFacts(self.facts + other.facts, reached, attributes, min(self.least, other.least))


def _read_all(config: Config, spec: RewardSpec, scratch: Path, passes: Passes) -> tuple[BucketedLog, _EffectFacts]:
    """Read and check every bucket once, and keep its columns; merge those of the users in the sample."""
    assert config.history.path is not None  # the history is a bucketed folder
    if config.history.decided is not None:
        raise ConfigError("history.decided: decisions by date do not join buckets yet: use --whole")
    buckets = open_buckets(config.history.path)
    most = config.evaluation.max_users
    readings = sampled_buckets(buckets, config, scratch, most)
    facts = reduce(add, passes.run(partial(_read, spec=spec), readings, "reading buckets"))
    sample = merge_samples([reading.folder for reading in readings], buckets, most)
    folders = tuple(reading.folder / ALL for reading in readings)
    return BucketedLog(
        buckets=buckets, facts=facts.facts, folders=folders, sample=sample, fingerprint=facts.facts.fingerprint(sample)
    ), facts


def _read(reading: SampledBucket, spec: RewardSpec) -> _EffectFacts:
    """Read a bucket, write its columns and return what it tells for effects by a spec."""
    history = with_declared(read_bucket(reading.path), reading.config.history)
    reading.write_sample(history)
    write_columns(history, reading.folder / ALL, decides=True)
    d, users = history.decisions, history.users
    sent = history.modules.sends(d.actions)
    names = [] if users is None else [str(name) for name in users.columns if name != "user_id"]
    return _EffectFacts(
        facts=Facts.of_bucket(history, history, spec),
        reached=() if d.arm is None else tuple(np.unique(np.asarray(d.arm)[sent].astype(str)).tolist()),
        attributes={} if users is None else {name: count_values(users[name]) for name in names},
        least=least_uncensored(history, spec),
    )


def _about(log: BucketedLog, spec: RewardSpec) -> str:
    """Return what the log holds, and what was fitted on a sample of its users."""
    lines = [summary(log)]
    if log.sample.n_users < log.facts.users:
        checks = "checks of propensities and of the order of events"
        fitted = [*spec.fitted_from_all_users, "quantiles of past activity", checks]
        lines.append(
            f"by a sample of {log.sample.n_users:,} users, chosen by a hash (evaluation.max_users): "
            f"{', '.join(fitted)}; all else is of all users"
        )
    return "\n".join(lines)
