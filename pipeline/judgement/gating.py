"""The verdict on a run's policy: its difference to the log, its constraints, and how often cost events follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import NotIdentified
from crosschannel.evaluation import (
    CostEvent,
    Evaluation,
    ExpectedUse,
    GateVerdict,
    Interval,
    LoggedDecisions,
    Support,
    gate_verdict,
    headline,
    t_interval,
)
from crosschannel.evaluation.bootstrap import UNDEFINED, draw_user_counts
from crosschannel.evaluation.estimates import reason_not_identified, reason_of_weights
from crosschannel.evaluation.estimators import optimal_baseline
from crosschannel.pipeline.building import TrainingData
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.headline_order import HeadlineOrder, lacks_propensities
from crosschannel.pipeline.judgement.records import ConstraintUse
from crosschannel.reward import Goal, Reason
from crosschannel.reward.measurement.outcomes import measure_by_goal

#: Quantile of the decisions' time from which on they are the last ones.
RECENT = 2 / 3
#: Stream of random numbers, beside the run's seed.
GATING = 7


def verdict_of(
    config: Config,
    data: TrainingData,
    probabilities: Sequence[FloatArray],
    evaluation: Evaluation,
    constraints: Sequence[ConstraintUse],
) -> GateVerdict:
    """Return the verdict on a policy by the rule of the configuration.

    Args:
        config: The configuration.
        data: The history and its splits.
        probabilities: The policy's probabilities at the test users' decisions.
        evaluation: Its evaluation.
        constraints: What it is expected to use there, by the agent's own estimates.
    """
    best = headline(evaluation)
    return gate_verdict(
        best.difference,
        config.evaluation.gate,
        not_identified=best.reason,
        assumption=best.assumption,
        costs=cost_events(config, data, probabilities, evaluation),
        constraints=[ExpectedUse(each.name, each.use, each.budget) for each in constraints],
        recent=recent_difference(config, data, probabilities, evaluation),
    )


def recent_difference(
    config: Config, data: TrainingData, probabilities: Sequence[FloatArray], evaluation: Evaluation
) -> Interval:
    """Return the difference of the policy to the log over the last third of the test users' decisions in time.

    It is weighted as the headline is, at its order of the ladder, with a constant baseline, and identified by the same
    requirements. Rewards are held fixed in its bootstrap. Undefined where the log does not identify it.

    Args:
        config: The configuration.
        data: The history and its splits.
        probabilities: The policy's probabilities at the test users' decisions.
        evaluation: Its evaluation.
    """
    test, settings = data.test, config.evaluation
    log = LoggedDecisions.from_history(test.history)
    kept = test.rewards.identified & ~np.isnan(test.rewards.p_uncensored)
    if not headline(evaluation).identified or lacks_propensities(log[kept]):
        return UNDEFINED
    time = test.history.decisions.time
    kept = kept & (time >= np.quantile(time[kept], RECENT))
    order = HeadlineOrder.from_evaluation(config, log[test.rewards.identified], evaluation)
    part, counts, reward = log[kept], test.rewards.ipc_weight[kept], test.rewards.reward[kept]
    policy = [p[kept] for p in probabilities]
    weights, unsupported = order.weights(part, policy), order.unsupported_mass(part, policy)
    code = np.unique(part.user, return_inverse=True)[1]
    users = int(code.max()) + 1
    support = Support.overall(weights, counts, reward, part.user, unsupported)
    if reason_not_identified(support, users, settings) or reason_of_weights(support, settings):
        return UNDEFINED
    b = optimal_baseline(weights, reward, counts)
    return mean_interval(config, counts * (weights - 1.0) * (reward - b), counts, code)


def cost_events(
    config: Config, data: TrainingData, probabilities: Sequence[FloatArray], evaluation: Evaluation
) -> tuple[CostEvent, ...]:
    """Return how often each goal with a negative weight follows a decision, in the log and under the policy.

    A rate counts decisions after which the event occurs in the reward's post window. Under the policy it is weighted as
    the headline is, at its order of the ladder, and identified by the same requirements: of rare events more decisions
    are needed. Nothing where the log has no propensities.
    """
    goals = tuple(goal for goal in config.reward.goals if goal.weight < 0)
    test = data.test
    log = LoggedDecisions.from_history(test.history)
    if not goals or lacks_propensities(log):
        return ()
    spec = replace(config.reward, goals=tuple(Goal(goal.event, 1.0) for goal in goals), funnel=None)
    try:
        amounts = measure_by_goal(test.history, spec, uses_pre=False)
    except NotIdentified as error:
        return tuple(CostEvent(goal.event, math.nan, UNDEFINED, str(error)) for goal in goals)
    kept = (amounts.reason == Reason.IDENTIFIED) & test.rewards.identified
    log, counts = log[kept], test.rewards.ipc_weight[kept]
    blocked = data.not_identified or headline(evaluation).reason
    order = HeadlineOrder.from_evaluation(config, log, evaluation)
    shares = [p[kept] for p in probabilities]
    weights, unsupported = order.weights(log, shares), order.unsupported_mass(log, shares)
    code = np.unique(log.user, return_inverse=True)[1]
    users = int(code.max()) + 1 if len(code) else 0
    found = []
    for goal, occurs in zip(goals, amounts.occurs[:, kept].astype(np.float64), strict=True):
        logged = float(counts @ occurs / counts.sum()) if len(occurs) else float("nan")
        support = Support.overall(weights, counts, occurs, log.user, unsupported)
        settings = config.evaluation
        reason = blocked or reason_not_identified(support, users, settings) or reason_of_weights(support, settings)
        b = optimal_baseline(weights, occurs, counts)
        values = counts * (b + weights * (occurs - b))
        policy = UNDEFINED if reason else mean_interval(config, values, counts, code)
        found.append(CostEvent(event=goal.event, logged=logged, policy=policy, reason=reason))
    return tuple(found)


def mean_interval(config: Config, values: FloatArray, counts: FloatArray, code: IntArray) -> Interval:
    """Return the mean of values (n,) over counts (n,), with the interval of a bootstrap over users (n,)."""
    total, weight = (np.bincount(code, weights=each).astype(np.float64) for each in (values, counts))
    point = float(total.sum() / weight.sum())
    rng = np.random.default_rng([config.seed, GATING])
    draws = [draw_user_counts(len(total), rng) for _ in range(config.evaluation.bootstrap_replicates)]
    replicates = np.array([drawn @ total / (drawn @ weight) for drawn in draws])
    return t_interval(point, replicates, total - point * weight, config.evaluation.confidence_level)
