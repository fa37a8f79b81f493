"""Off-policy evaluation: the value of a policy on logged decisions, jointly and per module, with its support."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError, Fault, InputError, NotIdentified
from crosschannel.evaluation.bootstrap import UNDEFINED, Interval, t_interval, user_bootstrap
from crosschannel.evaluation.estimates import (
    DIAGNOSTIC,
    Estimate,
    EvaluationSettings,
    reason_not_identified,
    reason_of_weights,
)
from crosschannel.evaluation.estimators import ESTIMATORS, Estimator, Sample, SwitchDR
from crosschannel.evaluation.ladder.build import build_ladder
from crosschannel.evaluation.ladder.design import LadderDesign
from crosschannel.evaluation.ladder.joint import JointReplicates
from crosschannel.evaluation.ladder.results import Ladder
from crosschannel.evaluation.logged_decisions import LoggedDecisions, check_probabilities
from crosschannel.evaluation.outcomes.outcome_model import QValues
from crosschannel.evaluation.results import Evaluation
from crosschannel.evaluation.stacked_terms import StackedTerms
from crosschannel.evaluation.support import Support, unsupported_mass
from crosschannel.evaluation.weights import has_choice, importance_weights

Refit = Callable[[FloatArray], FloatArray]


def evaluate(
    log: LoggedDecisions,
    probabilities: Sequence[FloatArray],
    rewards: FloatArray | Refit,
    *,
    rng: np.random.Generator,
    q_values: Sequence[QValues] | None = None,
    settings: EvaluationSettings | None = None,
    estimators: Sequence[Estimator] = ESTIMATORS,
    policy: str = "policy",
    reward_counts: Mapping[str, int] | None = None,
    p_uncensored: FloatArray | None = None,
    no_overlap: str = "",
    refused: str = "",
) -> Evaluation:
    """Estimate a policy's value from a log of another policy's decisions.

    All estimands are means over the decisions whose reward the log identifies, at the contexts of the log; they do not
    contain what an earlier decision would have changed for later ones:

    - the whole action: the policy chooses every module;
    - each module: the policy chooses this one, every other module is chosen as in the log given the earlier choices.

    The value of the whole action that is reported first is that of the interaction ladder (`Evaluation.ladder`).

    Args:
        log: Decisions of users whom neither the policy nor the outcome model has seen, n rows.
        probabilities: The policy's probabilities at the same slots, one array (n, A_m) per module, each conditional on
            the parent's choice (`Agent.action_probabilities`).
        rewards: Rewards (n,), NaN where not identified; or a function from how often each decision counts (n,) to
            such rewards, which is then called again in every replicate (`reward.refit`).
        rng: Random generator of the bootstrap.
        q_values: Modelled rewards, one entry for the whole action and one for each module
            (`OutcomeModel.q_values`); without them, the estimators that need a model are left out.
        settings: Confidence level, replicates, and when a value counts as identified.
        estimators: The estimators, in the order of the report.
        policy: The policy's name.
        reward_counts: Number of decisions by whether their reward is identified, or else by the reason
            (`RewardFrame.counts`).
        p_uncensored: Probability that no later message censors a decision's reward, (n,). Each decision then counts
            1/p_uncensored times (inverse probability of censoring), so that values are about all decisions and not
            about those that happened to be followed by none. NaN where unknown; 1 by default.
        no_overlap: Why the log identifies nothing that is weighted (`PropensityCheck.no_overlap`); empty where it may.
        refused: Why the rewards are not what messages change (`RewardTests.refusal_in_short`), so that not even the
            log's own value is identified; empty where they may be.

    Raises:
        InputError: If shapes differ, a probability is out of range, or a reward is infinite.
        ConfigError: If all estimators need `q_values`, and there are none.
        NotIdentified: If no decision has a reward.
    """
    settings = settings or EvaluationSettings()
    n = len(log)
    check_probabilities(log.modules, probabilities, n)
    refit: Refit = rewards if callable(rewards) else (lambda _: rewards)
    all_rewards = np.asarray(refit(np.ones(n)), dtype=np.float64)
    _check_rewards(all_rewards, n)
    _check_q_values(q_values, 1 + len(log.modules), n)
    with_reward = ~np.isnan(all_rewards)
    if not with_reward.any():
        raise NotIdentified("no evaluated decision has a reward: see the reward model's reasons")

    part, policy_there = log[with_reward], [p[with_reward] for p in probabilities]
    observed = all_rewards[with_reward]
    users, code = np.unique(part.user, return_inverse=True)
    p_observed = np.ones(len(part)) if p_uncensored is None else _check_p_uncensored(p_uncensored, n)[with_reward]
    unknown = int(np.isnan(p_observed).sum())
    ipc_weight = 1.0 / np.where(np.isnan(p_observed), 1.0, p_observed)
    q = None if q_values is None else [QValues(q.logged[with_reward], q.policy[with_reward]) for q in q_values]
    estimands = [
        _Estimand.build(part, policy_there, m, observed, ipc_weight, None if q is None else q[k])
        for k, m in enumerate((None, *range(len(log.modules))))
    ]
    usable = [e for e in estimators if q_values is not None or not e.uses_model]
    if not usable:
        raise ConfigError("all requested estimators need an outcome model: pass `q_values`")
    no_overlap = no_overlap or refused
    if unknown:
        no_overlap = no_overlap or (
            f"p_uncensored is unknown for {unknown:,} decisions: the log has no propensities for the slots after them"
        )
    requests = [
        (estimand, e, (no_overlap if e.uses_weights or unknown else "") or _why(estimand, e, len(users), settings))
        for estimand in estimands
        for e in usable
    ]
    design, no_ladder = None, ""
    try:
        design = LadderDesign.build(
            part, policy_there, observed, ipc_weight, None if q is None else q[1], settings, no_overlap
        )
    except NotIdentified as error:
        no_ladder = str(error)
    terms = StackedTerms.build(
        [
            *(None if reason else e.terms(estimand.sample) for estimand, e, reason in requests),
            *(design.terms if design else ()),
        ],
        len(part),
    )

    def statistics(counts: FloatArray) -> FloatArray:
        """Return the logged mean, the share of rewards that this replicate dropped, and all requested values."""
        r = np.asarray(refit(counts), dtype=np.float64)[with_reward]
        dropped = np.isnan(r)
        c, r = np.where(dropped, 0.0, counts[with_reward] * ipc_weight), np.where(dropped, 0.0, r)
        logged = c @ r / c.sum() if c.any() else np.nan
        return np.array([logged, dropped.mean(), *terms.values(c, r)])

    points = statistics(np.ones(n))
    draws = user_bootstrap(statistics, log.user, settings.bootstrap_replicates, rng)
    logged_influence = ipc_weight * (observed - points[0]) / ipc_weight.sum()

    def by_user(influence: FloatArray) -> FloatArray:
        return np.bincount(code, weights=influence).astype(np.float64)

    def interval(point: float, drawn: FloatArray, influence: FloatArray) -> Interval:
        return t_interval(point, drawn, by_user(influence), settings.confidence_level)

    def estimate(k: int) -> Estimate:
        estimand, e, reason = requests[k]
        point, drawn = points[2 + k], draws[:, 2 + k]
        influence = terms.influence(k, ipc_weight, observed, point)
        value = interval(point, drawn, influence)
        difference = interval(point - points[0], drawn - draws[:, 0], influence - logged_influence)
        if not reason and not (value.is_defined and difference.is_defined):
            reason = f"undefined in {int((~np.isfinite(drawn - draws[:, 0])).sum())} of {len(draws)} replicates"
            value = difference = UNDEFINED
        if refused:
            difference = UNDEFINED  # to a value of the log that is not identified
        return Estimate(
            estimand=_describe(log, estimand.module, policy),
            module=estimand.name,
            estimator=e.name,
            value=value,
            difference=difference,
            decisions=len(part),
            users=len(users),
            support=estimand.support,
            reason=reason or ("" if e.uses_weights else DIAGNOSTIC),
        )

    def ladder(of: LadderDesign) -> Ladder:
        first = len(requests)
        kept = [0, *range(2 + first, len(points))]
        influence = [
            logged_influence,
            *(terms.influence(k, ipc_weight, observed, points[2 + k]) for k in range(first, len(points) - 2)),
        ]
        joint = JointReplicates(
            points=points[kept],
            draws=draws[:, kept],
            influence=np.stack([by_user(each) for each in influence], axis=1),
            confidence_level=settings.confidence_level,
        )
        estimand = _describe(log, None, policy)
        return build_ladder(of, joint, estimand, len(users), log.modules.names[0], settings, refused)

    return Evaluation(
        policy=policy,
        log=log.name,
        logged=UNDEFINED if refused else interval(points[0], draws[:, 0], logged_influence),
        estimates=tuple(estimate(k) for k in range(len(requests))),
        decisions=len(part),
        users=len(users),
        propensity_counts=part.propensity_counts,
        reward_counts=dict(reward_counts or {"identified": len(part), "not identified": n - len(part)}),
        refitted=callable(rewards),
        dropped_share=float(draws[:, 1].mean()),
        min_p_uncensored=float(1.0 / ipc_weight.max()),
        settings=settings,
        ladder=None if design is None else ladder(design),
        no_ladder=no_ladder,
    )


@dataclass(frozen=True)
class _Estimand:
    """One estimand on the decisions with a reward: which module, its sample and how well the log supports it."""

    module: int | None
    name: str | None
    unknown: int
    sample: Sample
    support: Support

    @classmethod
    def build(
        cls,
        log: LoggedDecisions,
        probabilities: Sequence[FloatArray],
        m: int | None,
        rewards: FloatArray,
        ipc_weight: FloatArray,
        q: QValues | None,
    ) -> _Estimand:
        weights = importance_weights(log, probabilities, m)
        unknown = np.isnan(weights)
        support = Support.from_weights(
            weights * ipc_weight / ipc_weight.mean(),
            rewards,
            log.user,
            has_choice(log, m),
            unsupported_mass(log, probabilities, m),
        )
        sample = Sample(
            rewards=rewards,
            weights=np.where(unknown, 0.0, weights),
            counts=ipc_weight,
            q_logged=None if q is None else q.logged,
            q_policy=None if q is None else q.policy,
        )
        name = None if m is None else log.modules.names[m]
        return cls(module=m, name=name, unknown=int(unknown.sum()), sample=sample, support=support)


def _why(estimand: _Estimand, estimator: Estimator, users: int, settings: EvaluationSettings) -> str:
    """Return the reason why the log does not identify an estimate, or an empty string."""
    weighted = estimator.uses_weights
    reason = reason_not_identified(estimand.support, users, settings, unknown=estimand.unknown, weighted=weighted)
    if reason or not weighted:
        return reason
    if isinstance(estimator, SwitchDR):
        share = estimator.model_only_share(estimand.sample)
        if share > settings.max_unsupported_mass:
            return f"{share:.0%} of the weight is above {estimator.threshold:g}: the value would be the outcome model's"
    return reason_of_weights(estimand.support, settings)


def _describe(log: LoggedDecisions, m: int | None, policy: str) -> str:
    if m is None:
        return f"mean reward per decision with a reward if {policy} chose the whole action"
    name = log.modules.names[m]
    return f"mean reward per decision with a reward if {policy} chose {name}, with all other modules chosen as logged"


def _check_rewards(rewards: FloatArray, n: int) -> None:
    if rewards.shape != (n,):
        problem = f"the shape is {rewards.shape}, not ({n},)"
        raise InputError([_fault(problem, "Pass one reward for each decision.", "rewards")])
    wrong = np.isinf(rewards)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            [
                Fault(
                    file="evaluation",
                    problem="is infinite",
                    remedy="Use NaN where a reward is not identified.",
                    column="rewards",
                    row=row + 1,
                    value=float(rewards[row]),
                    count=int(wrong.sum()),
                )
            ]
        )


def _check_p_uncensored(p: FloatArray, n: int) -> FloatArray:
    if p.shape != (n,) or (~np.isnan(p) & ~((p > 0) & (p <= 1))).any():
        problem = f"an array of shape {p.shape} is not ({n},) with entries in (0, 1]"
        remedy = "Pass each decision's probability that its reward is not censored."
        raise InputError([_fault(problem, remedy, "p_uncensored")])
    return p


def _check_q_values(q_values: Sequence[QValues] | None, count: int, n: int) -> None:
    if q_values is None:
        return
    if len(q_values) != count:
        problem = f"there are {len(q_values)} entries, not {count}"
        raise InputError([_fault(problem, "Pass one for the whole action and one for each module.", "q_values")])
    for q in q_values:
        for array in (q.logged, q.policy):
            if array.shape != (n,) or not np.isfinite(array).all():
                problem = f"an array of shape {array.shape} is not ({n},) and finite"
                raise InputError([_fault(problem, "Pass a modelled reward for each decision.", "q_values")])


def _fault(problem: str, remedy: str, column: str) -> Fault:
    return Fault(file="evaluation", problem=problem, remedy=remedy, column=column)
