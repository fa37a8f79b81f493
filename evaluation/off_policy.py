"""Off-policy evaluation: the value of a policy on logged decisions, jointly and per module, with its support."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, Fault, InputError, NotIdentified
from crosschannel.evaluation.bootstrap import UNDEFINED, Interval, t_interval, user_bootstrap
from crosschannel.evaluation.estimators import ESTIMATORS, Estimator, Sample, SwitchDR, Terms
from crosschannel.evaluation.logged_decisions import LoggedDecisions, check_probabilities
from crosschannel.evaluation.outcomes.outcome_model import QValues
from crosschannel.evaluation.results import Estimate, Evaluation, EvaluationSettings
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
) -> Evaluation:
    """Estimate a policy's value from a log of another policy's decisions.

    All estimands are means over the decisions whose reward the log identifies, at the contexts of the log; they do not
    contain what an earlier decision would have changed for later ones:

    - the whole action: the policy chooses every module;
    - each module: the policy chooses this one, every other module is chosen as in the log given the earlier choices.

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

    part = log[with_reward]
    observed = all_rewards[with_reward]
    users, code = np.unique(part.user, return_inverse=True)
    p_observed = np.ones(len(part)) if p_uncensored is None else _check_p_uncensored(p_uncensored, n)[with_reward]
    unknown = int(np.isnan(p_observed).sum())
    ipc_weight = 1.0 / np.where(np.isnan(p_observed), 1.0, p_observed)
    estimands = [
        _Estimand.build(
            part,
            [p[with_reward] for p in probabilities],
            m,
            observed,
            ipc_weight,
            None if q_values is None else q_values[0 if m is None else 1 + m],
            with_reward,
        )
        for m in (None, *range(len(log.modules)))
    ]
    usable = [e for e in estimators if q_values is not None or not e.uses_model]
    if not usable:
        raise ConfigError("all requested estimators need an outcome model: pass `q_values`")
    censoring = (
        f"p_uncensored is unknown for {unknown:,} decisions: the log has no propensities for the slots after them"
    )
    requests = [
        (
            estimand,
            e,
            (no_overlap if e.uses_weights else "")
            or (censoring if unknown else _why_not_identified(estimand, e, len(users), settings)),
        )
        for estimand in estimands
        for e in usable
    ]

    terms = _StackedTerms.build(
        [None if reason else e.terms(estimand.sample) for estimand, e, reason in requests], len(part)
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

    def interval(point: float, drawn: FloatArray, influence: FloatArray) -> Interval:
        by_user = np.bincount(code, weights=influence).astype(np.float64)
        return t_interval(point, drawn, by_user, settings.confidence_level)

    def estimate(k: int) -> Estimate:
        estimand, e, reason = requests[k]
        point, drawn = points[2 + k], draws[:, 2 + k]
        influence = terms.influence(k, ipc_weight, observed, point)
        value = interval(point, drawn, influence)
        difference = interval(point - points[0], drawn - draws[:, 0], influence - logged_influence)
        if not reason and not (value.is_defined and difference.is_defined):
            reason = f"undefined in {int((~np.isfinite(drawn - draws[:, 0])).sum())} of {len(draws)} replicates"
            value = difference = UNDEFINED
        return Estimate(
            estimand=_describe(log, estimand.module, policy),
            module=estimand.name,
            estimator=e.name,
            value=value,
            difference=difference,
            decisions=len(part),
            users=len(users),
            support=estimand.support,
            reason=reason,
        )

    return Evaluation(
        policy=policy,
        log=log.name,
        logged=interval(points[0], draws[:, 0], logged_influence),
        estimates=tuple(estimate(k) for k in range(len(requests))),
        decisions=len(part),
        users=len(users),
        propensity_counts=part.propensity_counts,
        reward_counts=dict(reward_counts or {"identified": len(part), "not identified": n - len(part)}),
        refitted=callable(rewards),
        dropped_share=float(draws[:, 1].mean()),
        min_p_uncensored=float(1.0 / ipc_weight.max()),
        settings=settings,
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
        with_reward: BoolArray,
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
            q_logged=None if q is None else q.logged[with_reward],
            q_policy=None if q is None else q.policy[with_reward],
        )
        name = None if m is None else log.modules.names[m]
        return cls(module=m, name=name, unknown=int(unknown.sum()), sample=sample, support=support)


@dataclass(frozen=True)
class _StackedTerms:
    """The terms of all estimates, stacked for the bootstrap: constants, slopes and denominators."""

    constant: _Stack
    slope: _Stack
    denominator: _Stack

    @classmethod
    def build(cls, terms: Sequence[Terms | None], n: int) -> _StackedTerms:
        """Stack terms; estimates without any get a denominator of 0, so that they have no value."""
        zeros = np.zeros(n)
        nothing = Terms(constant=zeros, slope=zeros, denominator=zeros)
        filled = [nothing if t is None else t for t in terms]
        return cls(
            constant=_Stack.build([t.constant for t in filled]),
            slope=_Stack.build([t.slope for t in filled]),
            denominator=_Stack.build([t.denominator for t in filled]),
        )

    def values(self, counts: FloatArray, rewards: FloatArray) -> FloatArray:
        """Return the values (K,) for counts (n,) and rewards (n,); NaN where the denominator is 0."""
        denominator = self.denominator.sums(counts)
        total = self.constant.sums(counts) + self.slope.sums(counts * rewards)
        return np.asarray(total / np.where(denominator > 0, denominator, np.nan))

    def influence(self, k: int, counts: FloatArray, rewards: FloatArray, value: float) -> FloatArray:
        r"""Return the influences of the decisions (n,) on value k, the rewards held fixed; NaN if it is undefined.

        .. math:: \psi_i = c_i (\text{constant}_i + \text{slope}_i r_i - \hat V \, \text{denominator}_i) /
            \textstyle\sum_j c_j \, \text{denominator}_j
        """
        denominator = counts * self.denominator.row(k)
        error = counts * (self.constant.row(k) + self.slope.row(k) * rewards) - value * denominator
        return np.asarray(error / np.where(denominator.any(), denominator.sum(), np.nan))


@dataclass(frozen=True)
class _Stack:
    """K arrays (n,), of which many are the same object: a row for each distinct one, and each array's row (K,)."""

    rows: FloatArray
    row_of: IntArray

    @classmethod
    def build(cls, arrays: Sequence[FloatArray]) -> _Stack:
        distinct = {id(array): array for array in arrays}
        row_of = {key: row for row, key in enumerate(distinct)}
        return cls(
            rows=np.stack(list(distinct.values())),
            row_of=np.array([row_of[id(array)] for array in arrays], dtype=np.int64),
        )

    def row(self, k: int) -> FloatArray:
        """Return array k (n,)."""
        return np.asarray(self.rows[self.row_of[k]])

    def sums(self, counts: FloatArray) -> FloatArray:
        """Return the sums of the arrays (K,), with decisions counted `counts` (n,) times."""
        return np.asarray((self.rows @ counts)[self.row_of])


def _why_not_identified(estimand: _Estimand, estimator: Estimator, users: int, settings: EvaluationSettings) -> str:
    """Return the reason why the log does not identify an estimate, or an empty string."""
    s, limit = estimand.support, settings.max_unsupported_mass
    if s.decisions == 0:
        return "the logging policy never makes this choice"
    if users < settings.min_users:
        return f"{users} users < {settings.min_users:g}"
    if s.unsupported_mass > limit:
        return (
            f"{s.unsupported_mass:.0%} of the policy's mass is on actions that the log never takes or that are "
            f"ineligible, more than {limit:.0%}"
        )
    if not estimator.uses_weights:
        return ""
    if estimand.unknown:
        return f"the log has no propensity for {estimand.unknown:,} decisions"
    if s.ess < settings.min_ess:
        return f"ESS {s.ess:.0f} < {settings.min_ess:g}"
    if s.ess_users < settings.min_users:
        return f"ESS of users {s.ess_users:.0f} < {settings.min_users:g}"
    for name, ess, required in settings.ess_requirements(s):
        if ess < required:
            return f"{name} {ess:,.0f} < {required:,.0f}, the minimum for rewards this rare or uneven"
    if isinstance(estimator, SwitchDR):
        share = estimator.model_only_share(estimand.sample)
        if share > limit:
            return f"{share:.0%} of the weight is above {estimator.threshold:g}: the value would be the outcome model's"
    # Three standard errors: the mean of skewed weights varies, and chance alone must not withhold a value.
    if s.mean_weight + 3 * s.mean_weight_se < 1 - limit:
        return f"mean weight {s.mean_weight:.2f}: the log lacks support for about {1 - s.mean_weight:.0%} of the policy"
    if s.mean_weight - 3 * s.mean_weight_se > 1 + limit:
        return f"mean weight {s.mean_weight:.2f} instead of 1: the propensities do not belong to this log"
    return ""


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
