"""Compare the policies of two runs on one log: today's against yesterday's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from crosschannel import agents
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.evaluation import LoggedDecisions
from crosschannel.evaluation.ladder import Comparison, compare_policies
from crosschannel.evaluation.report.plain_values import finite_or_none, interval_to_dict
from crosschannel.pipeline.building import TrainingData, prepare
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
) -> Comparison:
    """Estimate how much more the policy of one run is worth than that of another, on the same log.

    The users are those that neither policy has learned from: the test users of both. The settings fix the order of the
    interaction ladder before looking at the values.

    Args:
        first: Folder of the first run.
        second: Folder of the second run.
        history: Another log in the layout of both runs, in place of their own.
        settings: Order, factors, replicates and minimum sample sizes; by default those of the first run.
        device: Where the agents compute.
        allow_classes: Classes of your own that may be imported if a run names them.

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
    found = [_policy_of(run, device, allow_classes) for run in runs]
    (data, probabilities), (other, others) = found
    if data.fingerprint != other.fingerprint:
        raise ConfigError(
            f"{first} and {second} have different logs: name the one to compare them on with --history.path PATH"
        )
    if data.history.modules != other.history.modules:
        raise ConfigError(f"{first} and {second} choose among different actions")
    if reason := data.propensities.no_overlap:
        raise NotIdentified(reason)
    rows, other_rows = (np.flatnonzero(each.rows("test")) for each in (data, other))
    common = np.isin(rows, other_rows)
    if not common.any():
        raise NotIdentified(
            f"{first} and {second} have no test users in common: each user has trained one of the policies at least"
        )
    fitted = data.test.refit()
    return compare_policies(
        LoggedDecisions.from_history(data.test.history),
        probabilities,
        aligned(probabilities, others, rows, other_rows),
        lambda counts: np.where(common, fitted(counts), np.nan),
        rng=np.random.default_rng([runs[0].config.seed, COMPARING_RUNS]),
        settings=(settings or runs[0].config.evaluation).estimation,
        names=(str(first), str(second)),
        p_uncensored=data.test.rewards.p_uncensored,
    )


def aligned(
    probabilities: list[FloatArray], others: list[FloatArray], rows: IntArray, other_rows: IntArray
) -> list[FloatArray]:
    """Return another policy's probabilities at some decisions, and the first policy's where the other's are unknown.

    Args:
        probabilities: The first policy's, one array (n, ...) per module.
        others: The other policy's at its own decisions.
        rows: Which decisions of the log the first ones are, ascending (n,).
        other_rows: Which the other ones are, ascending.
    """
    common = np.isin(rows, other_rows)
    place = np.searchsorted(other_rows, rows[common])
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
    }


def _policy_of(run: Run, device: str, allow_classes: Collection[str]) -> tuple[TrainingData, list[FloatArray]]:
    """Return a run's data, and its policy's probabilities at its test users' decisions."""
    trained_with = run.trained_with("policy")
    agent, _ = agents.load_policy(run.policy, device, allow_classes=allow_classes)
    data = replace(prepare(run.config, trained_with.features), pace=trained_with.pace)
    return data, explain_policy(run.config, data, agent).probabilities
