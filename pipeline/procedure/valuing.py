"""Value a learning procedure by cross-fitting: K agents, each judged by the fold of users that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import chdtrc
from tqdm import tqdm

from crosschannel.agents import check_probabilities
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.evaluation import Evaluation, LoggedDecisions, Support
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.evaluation.estimates import reason_not_identified, reason_of_weights
from crosschannel.evaluation.estimators import optimal_baseline
from crosschannel.pipeline.buckets.reading import reads_buckets
from crosschannel.pipeline.building import Split, TrainingData
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.comparators import compare
from crosschannel.pipeline.judgement.constants import BestConstants, constants_of
from crosschannel.pipeline.judgement.gating import mean_interval
from crosschannel.pipeline.judgement.headline_order import HeadlineOrder, lacks_propensities
from crosschannel.pipeline.judgement.judging import fit_outcomes, greedy_probabilities, off_policy, policy_at
from crosschannel.pipeline.judgement.records import ConstraintUse
from crosschannel.pipeline.procedure.folds import FoldedData, folded_data
from crosschannel.pipeline.procedure.learning import learned_fold
from crosschannel.pipeline.procedure.records import FoldValue, ProcedureValue, name_of
from crosschannel.pipeline.run_folder import Run


def check_procedure(config: Config) -> None:
    """Refuse a configuration whose learning procedure cannot be valued.

    Raises:
        ConfigError: If folds are configured, and the log is in buckets or callbacks watch the training.
    """
    if config.evaluation.procedure.folds is None:
        return
    remedy = "leave out `evaluation.procedure.folds`"
    if reads_buckets(config):
        raise ConfigError(
            "the learning procedure is valued on a log in memory, and this one is in buckets, which no machine need "
            f"hold: {remedy}, or train on a folder with some of the users"
        )
    if config.train.callbacks:
        raise ConfigError(
            "callbacks may end a training by the validation users' scores, which the agents of the folds do not have, "
            f"so that they would learn otherwise than the run: {remedy} or `train.callbacks`"
        )


def value_procedure(
    run: Run, data: TrainingData, learn: Callable[[Run, TrainingData], None], folder: Path, device: str = "cpu"
) -> ProcedureValue:
    r"""Estimate the value of the learning procedure of a run from all users of its log.

    .. math:: \theta = \sum_k \frac{n_k}{n} V(\hat\pi_{-k})

    with the policy :math:`\hat\pi_{-k}` that was learned without fold k, its value V at the decisions of such users,
    and the share :math:`n_k / n` of the decisions that are in the fold. The estimate is that of `judge`, of the policy
    that decides at each user as the agent of the user's fold does. Neither the agent nor the outcome model of a fold
    has learned from it, and its rewards rest on its own controls.

    Assumption: that of the headline; and for the interval, which holds the policies fixed, that one user changes what
    is learned little: given the policy that judges it, each fold's error has mean 0, and errors of two folds are then
    uncorrelated but for terms of second order. Source: Bayle, Bayle, Janson & Mackey (2020), "Cross-validation
    confidence intervals for test error", NeurIPS; Austern & Zhou (2020), arXiv 2001.00111.

    Args:
        run: The run, with the settings of the folds.
        data: The history of the run.
        learn: Function that learns from a divided history: see `learned_fold`.
        folder: The folder below which agents are kept.
        device: Where agents compute.

    Raises:
        ConfigError: If the procedure cannot be valued, or a file of a fold is damaged or was edited.
        NotIdentified: If no decision has a reward.
    """
    config = run.config
    check_procedure(config)
    folds = config.evaluation.procedure.folds
    assert folds is not None  # otherwise nobody asks
    judged = []
    with tqdm(range(folds), desc="folds", unit=" agents") as bar:
        for k in bar:
            logger.info(f"agent {k + 1} of {folds}, which learns without fold {k + 1}")
            judged.append(_JudgedFold.build(run, data, k, learn, folder, device))
    logger.info("evaluating the learning procedure on all users")
    pooled = folded_data(config, data, tuple(each.split for each in judged), tuple(each.rows for each in judged))
    modules = range(len(data.history.modules))
    probabilities = [pooled.folds.gather([each.probabilities[m] for each in judged]) for m in modules]
    greedy = [pooled.folds.gather([each.greedy[m] for each in judged]) for m in modules]
    fold = pooled.folds.fold
    outcomes = fit_outcomes(config, pooled.test, folds, fold)
    evaluation = off_policy(
        config, pooled, probabilities, outcomes, name_of(config.agent.name, folds), "all users, each in one fold,"
    )
    comparators = compare(config, pooled, probabilities, greedy, evaluation, [each.constants for each in judged], fold)
    by_fold = _by_fold(config, pooled, probabilities, evaluation, [each.learned_from for each in judged])
    return ProcedureValue(
        evaluation=evaluation,
        by_fold=by_fold,
        difference_p=_difference_p(by_fold),
        comparators=comparators,
        constraints=ConstraintUse.summarise(pd.concat([each.prices for each in judged])),
        truth=_true_value(pooled, probabilities, pooled.test.rewards.identified),
    )


@dataclass(frozen=True)
class _JudgedFold:
    """One fold, and what the agent that has not seen it does there.

    Attributes:
        split: The users of the fold.
        rows: Where their decisions are among those of the history.
        learned_from: Number of the users that the agent has learned from.
        probabilities: Its policy's probabilities, under the constraints.
        greedy: Those without exploration.
        prices: The constraints at each decision time.
        constants: The best constant actions by the users that the agent has learned from.
    """

    split: Split
    rows: IntArray
    learned_from: int
    probabilities: list[FloatArray]
    greedy: list[FloatArray]
    prices: pd.DataFrame
    constants: BestConstants | None

    @classmethod
    def build(
        cls,
        run: Run,
        data: TrainingData,
        k: int,
        learn: Callable[[Run, TrainingData], None],
        folder: Path,
        device: str,
    ) -> _JudgedFold:
        config = run.config
        agent, divided = learned_fold(run, data, k, learn, folder, device)
        policy = policy_at(config, divided, agent, divided.test)
        check_probabilities(agent.modules, policy.probabilities, divided.test.observations.action_mask)
        found = cls(
            split=divided.test,
            rows=np.flatnonzero(divided.rows("test")),
            learned_from=divided.train.history.n_users,
            probabilities=policy.probabilities,
            greedy=greedy_probabilities(config, divided, agent),
            prices=policy.table,
            constants=constants_of(config, divided.train),
        )
        del divided.test.observations  # all users have their own, for the outcome models
        return found


def _by_fold(
    config: Config,
    data: FoldedData,
    probabilities: Sequence[FloatArray],
    evaluation: Evaluation,
    learned_from: Sequence[int],
) -> tuple[FoldValue, ...]:
    """Value the policy of each fold by itself; nothing where the log has no propensities."""
    frame = data.test.rewards
    kept = frame.identified
    log, fold = LoggedDecisions.from_history(data.history)[kept], data.folds.fold[kept]
    counts = frame.ipc_weight[kept]
    blocked = data.not_identified
    if lacks_propensities(log):
        blocked = blocked or "the log has no propensities"
        weights, mass = np.ones(len(log)), 0.0
    else:
        order = HeadlineOrder.from_evaluation(config, log, evaluation)
        policy = [p[kept] for p in probabilities]
        weights, mass = order.weights(log, policy), order.unsupported_mass(log, policy)
    blocked = blocked or (
        "" if not np.isnan(frame.p_uncensored[kept]).any() else "some decisions lack propensities after them"
    )
    found = []
    for k, learned in enumerate(learned_from):
        mine = fold == k
        r, w, c = frame.reward[kept][mine], weights[mine], counts[mine]
        users, code = np.unique(log.user[mine], return_inverse=True)
        reason = blocked or ("" if len(users) else "no decision of the fold has a reward")
        if not reason:
            support = Support.overall(w, c, r, log.user[mine], mass)
            reason = reason_not_identified(support, len(users), config.evaluation) or reason_of_weights(
                support, config.evaluation
            )
        difference = UNDEFINED
        if not reason:
            b = optimal_baseline(w, r, c)
            difference = mean_interval(config, c * (b + w * (r - b) - r), c, code)
        everything = np.zeros(len(kept), dtype=bool)
        everything[np.flatnonzero(kept)[mine]] = True
        found.append(
            FoldValue(
                fold=k + 1,
                learned_from=learned,
                users=len(users),
                decisions=int(mine.sum()),
                difference=difference,
                reason=reason,
                truth=_true_value(data, probabilities, everything),
            )
        )
    return tuple(found)


def _difference_p(by_fold: Sequence[FoldValue]) -> float:
    r"""Return the p-value of the test that the policies differ from the log by the same; NaN for fewer than two.

    .. math:: Q = \sum_k (d_k - \bar d)^2 / s_k^2 \sim \chi^2_{K - 1}

    with the mean of the differences weighted by :math:`1 / s_k^2`. Assumption: the differences are normal. Source:
    Cochran (1954), "The combination of estimates from different experiments", Biometrics.
    """
    known = [each.difference for each in by_fold if each.difference.is_defined and each.difference.se > 0]
    if len(known) < 2:
        return math.nan
    d, precision = (np.array(each) for each in zip(*((one.point, one.se**-2.0) for one in known), strict=True))
    deviations = d - precision @ d / precision.sum()
    return float(chdtrc(len(known) - 1, precision @ deviations**2))


def _true_value(data: FoldedData, probabilities: Sequence[FloatArray], rows: BoolArray) -> float:
    """Return the mean true effect of the policies at some decisions (n,); NaN where the history is not simulated."""
    if data.truth is None or not rows.any():
        return math.nan
    modules = data.history.modules
    given = [modules.condition(m) for m in range(len(modules))]
    effect = data.truth.expected_effect(np.flatnonzero(rows), [p[rows] for p in probabilities], given)
    return float(np.average(effect, weights=data.test.rewards.ipc_weight[rows]))
