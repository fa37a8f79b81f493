"""Compare the policies of two runs on one log: today's against yesterday's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crosschannel import agents
from crosschannel.core.arrays import FloatArray, UIntArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.evaluation import LoggedDecisions
from crosschannel.evaluation.ladder import Comparison, compare_policies
from crosschannel.evaluation.report.plain_values import finite_or_none, interval_to_dict
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import reads_buckets
from crosschannel.pipeline.buckets.sampling import read_to_judge
from crosschannel.pipeline.building import TrainingData, prepare
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import EvaluationConfig
from crosschannel.pipeline.judgement.judging import explain_policy
from crosschannel.pipeline.run_folder import Run

#: Stream of random numbers, beside the run's seed.
COMPARING_RUNS = 8
#: Raise it when a key of `comparison.json` changes its meaning or is left out.
COMPARISON_VERSION = 1


def compare_runs(
    first: Path,
    second: Path,
    history: Path | None = None,
    settings: EvaluationConfig | None = None,
    *,
    device: str = "cpu",
    allow_classes: Collection[str] = (),
    folder: Path | None = None,
    passes: Passes | None = None,
) -> Comparison:
    """Estimate how much more the policy of one run is worth than that of another, on the same log.

    The users are those that neither policy has learned from: the test users of both. The settings fix the order of the
    interaction ladder before looking at the values. Of a log in buckets at most `evaluation.max_users` of these users
    are read, chosen by a hash of who they are: both policies are judged on the same ones.

    Args:
        first: Folder of the first run.
        second: Folder of the second run.
        history: Another log in the layout of both runs, in place of their own.
        settings: Order, factors, replicates and minimum sample sizes; by default those of the first run.
        device: Where the agents compute.
        allow_classes: Classes of your own that may be imported if a run names them.
        folder: Below which a sample of a log in buckets is written while this lasts; by default the first run's.
        passes: How functions run over buckets; by default in this process.

    Raises:
        ConfigError: If a run is not finished, damaged or edited, or the two differ in their log, reward or modules.
        NotIdentified: If the two have no test users in common, or none of these has a reward.
    """
    runs = [Run.open_ended(path, history, allow_classes) for path in (first, second)]
    if runs[0].config.reward != runs[1].config.reward:
        raise ConfigError(
            f"{first} and {second} have different settings of `reward`: their values are in different units; train one "
            "of them again with the reward of the other"
        )
    chosen = settings or runs[0].config.evaluation
    logger.info(f"preparing the histories of {first} and {second}")
    sampled = all(reads_buckets(run.config) for run in runs)
    if sampled:
        read = partial(_read_sample, runs, chosen.max_users, folder or first, passes or Passes())
        data, other = read(0), read(1)
    else:
        data, other = (prepare(run.config, run.trained_with("policy").features) for run in runs)
    if data.fingerprint != other.fingerprint:
        raise ConfigError(
            f"{first} and {second} have different logs: name the one to compare them on with --history.path PATH"
        )
    if data.history.modules != other.history.modules:
        raise ConfigError(f"{first} and {second} choose among different actions")
    if reason := data.not_identified:
        raise NotIdentified(reason)
    rows, other_rows = (each.test.history.decisions.key for each in (data, other))
    common = np.isin(rows, other_rows)
    if not common.any():
        raise NotIdentified(
            f"{first} and {second} have no test users in common: each user has trained one of the policies at least"
        )
    logger.info("computing the probabilities of both policies")
    probabilities, others = (
        _probabilities(run, each, device, allow_classes) for run, each in zip(runs, (data, other), strict=True)
    )
    fitted = data.test.refit()
    logger.info("comparing the policies on the test users of both")
    found = compare_policies(
        LoggedDecisions.from_history(data.test.history),
        probabilities,
        aligned(probabilities, others, rows, other_rows),
        lambda counts: np.where(common, fitted(counts), np.nan),
        rng=np.random.default_rng([runs[0].config.seed, COMPARING_RUNS]),
        settings=chosen.estimation,
        names=(str(first), str(second)),
        p_uncensored=data.test.rewards.p_uncensored,
    )
    users = int(np.isin(data.test.history.user_keys, other.test.history.user_keys).sum())
    if not sampled or users < chosen.max_users:
        return found  # all that there are
    return replace(
        found,
        sample=f"{users:,} of the users that neither has learned from, chosen by a hash (evaluation.max_users)",
    )


def aligned(
    probabilities: list[FloatArray], others: list[FloatArray], rows: UIntArray, other_rows: UIntArray
) -> list[FloatArray]:
    """Return another policy's probabilities at some decisions, and the first policy's where the other's are unknown.

    Args:
        probabilities: The first policy's, one array (n, ...) per module.
        others: The other policy's at its own decisions.
        rows: Keys of the first one's decisions (n,).
        other_rows: Those of the other one's.
    """
    common = np.isin(rows, other_rows)
    order = np.argsort(other_rows)
    place = order[np.searchsorted(other_rows, rows[common], sorter=order)]
    out = []
    for own, other in zip(probabilities, others, strict=True):
        filled = own.copy()
        filled[common] = other[place]
        out.append(filled)
    return out


def comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values, for `comparison.json`; what is not identified is None, with its reason."""
    return asdict(comparison) | {
        "version": COMPARISON_VERSION,
        "difference": interval_to_dict(comparison.difference),
        "ess": finite_or_none(comparison.ess),
        "identified": comparison.identified,
        "reason": comparison.reason or None,
        "assumption": comparison.assumption or None,
        "sample": comparison.sample or None,
    }


def _read_sample(runs: Sequence[Run], most: int, folder: Path, passes: Passes, k: int) -> TrainingData:
    """Return the sample of a bucketed log on which a run, the k-th of two, is compared with the other one."""
    one, other = (
        replace(run.config, evaluation=replace(run.config.evaluation, max_users=most)) for run in (runs[k], runs[1 - k])
    )
    return read_to_judge(one, runs[k].trained_with("policy").features, folder, passes, beside=other)[0]


def _probabilities(run: Run, data: TrainingData, device: str, allow_classes: Collection[str]) -> list[FloatArray]:
    """Return the probabilities of a run's policy at its test users' decisions."""
    agent, _ = agents.load_policy(run.policy, device, allow_classes=allow_classes)
    data = replace(data, pace=run.trained_with("policy").pace)
    return explain_policy(run.config, data, agent).probabilities
