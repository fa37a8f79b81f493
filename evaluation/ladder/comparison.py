"""Policy against policy: the difference of two policies' values on the same log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import Fault, InputError, NotIdentified
from crosschannel.evaluation.bootstrap import UNDEFINED, Interval, t_interval, user_bootstrap
from crosschannel.evaluation.estimates import EvaluationSettings, reason_not_identified, reason_of_weights
from crosschannel.evaluation.estimators import optimal_baseline
from crosschannel.evaluation.ladder.build import assumption_of
from crosschannel.evaluation.ladder.design import (
    contrast_size,
    lacks_propensity,
    unsupported_by_factor,
    unsupported_by_order,
)
from crosschannel.evaluation.ladder.factors import find_factors
from crosschannel.evaluation.ladder.weights import ladder_weights
from crosschannel.evaluation.logged_decisions import LoggedDecisions, check_probabilities
from crosschannel.evaluation.support import Support


@dataclass(frozen=True)
class Comparison:
    r"""The difference of the values of two policies.

    Attributes:
        estimand: What the difference is, in plain words.
        assumption: What it assumes about the parts of a message, in words; empty where nothing.
        order: The order of the ladder.
        difference: Value of the first policy minus that of the second, per decision with a reward; all NaN where not
            identified.
        decisions: Number of decisions with a reward.
        users: Number of their users.
        ess: Effective number of decisions behind the difference d of the weights, :math:`(\sum |d|)^2 / \sum d^2`: the
            mean of d is 0, so that its sum counts nothing. NaN where a propensity is missing.
        reason: Why the difference is not identified; empty where it is.
        sample: How the users were chosen, in words; empty where all that neither policy has learned from count.
    """

    estimand: str
    assumption: str
    order: int
    difference: Interval
    decisions: int
    users: int
    ess: float
    reason: str = ""
    sample: str = ""

    @property
    def identified(self) -> bool:
        """Return whether the log identifies the difference."""
        return not self.reason

    def __str__(self) -> str:
        if not self.identified:
            return f"{self.estimand}: not identified ({self.reason})"
        d = self.difference
        assumed = f", {self.assumption}" if self.assumption else ""
        return f"{self.estimand}{assumed}: {d.point:+.4g} [{d.low:.4g}, {d.high:.4g}]"


def difference_of_values(first: FloatArray, second: FloatArray, rewards: FloatArray, counts: FloatArray) -> float:
    r"""Return the difference of two policies' values from their weights on the same decisions, in reward units.

    .. math:: \hat V_A - \hat V_B = \frac{\sum_i c_i d_i (r_i - b)}{\sum_i c_i}, \qquad d = w_A - w_B, \quad
        b = \mathrm{cov}(d r, d) / \mathrm{var}(d)

    Assumption: those of the weights. The baseline b makes the variance of the difference least, jointly for both
    policies; where they agree, a decision adds no noise. Jeunen & Ustimenko (2024), "Delta-OPE: off-policy estimation
    with pairs of policies", RecSys, arXiv 2405.10024.

    Args:
        first: Weights of policy A (n,).
        second: Weights of policy B (n,).
        rewards: Rewards (n,).
        counts: How often each decision counts (n,).

    Raises:
        InputError: If shapes differ, an entry is not finite, or no decision counts.
    """
    columns = {"first": first, "second": second, "rewards": rewards, "counts": counts}
    for name, column in columns.items():
        if column.shape != rewards.shape or not np.isfinite(column).all():
            problem = f"an array of shape {column.shape} is not {rewards.shape} and finite"
            raise InputError([Fault("comparison", problem, "Pass one number for each decision.", column=name)])
    if not counts.sum() > 0 or (counts < 0).any():
        raise InputError([Fault("comparison", "no decision counts", "Counts are 0 or more.", column="counts")])
    d = first - second
    return float(counts @ (d * (rewards - optimal_baseline(d, rewards, counts))) / counts.sum())


def compare_policies(
    log: LoggedDecisions,
    first: Sequence[FloatArray],
    second: Sequence[FloatArray],
    rewards: FloatArray | Callable[[FloatArray], FloatArray],
    *,
    rng: np.random.Generator,
    settings: EvaluationSettings | None = None,
    names: tuple[str, str] = ("the first policy", "the second policy"),
    p_uncensored: FloatArray | None = None,
) -> Comparison:
    """Estimate how much more one policy is worth than another: yesterday's and today's, on the same log.

    The interval is that of a bootstrap over users, in which a function of rewards is called again; it is much narrower
    than the difference of two intervals where the policies mostly agree. The order of the ladder is the setting's.

    Args:
        log: Decisions of users whom neither policy has learned from, n rows.
        first: Probabilities of the first policy, one array (n, *modules.shape(m)) per module.
        second: Those of the second policy.
        rewards: Rewards (n,), NaN where not identified; or a function from counts (n,) to them (`reward.refit`).
        rng: Random generator of the bootstrap.
        settings: Order, factors, confidence level, replicates and minimum sample sizes.
        names: Names of the policies.
        p_uncensored: Probability that no later message censors a decision's reward (n,), or None for 1.

    Raises:
        InputError: If shapes differ, a probability is out of range, or a reward is infinite.
        NotIdentified: If no decision has a reward.
    """
    settings = settings or EvaluationSettings()
    n = len(log)
    for probabilities in (first, second):
        check_probabilities(log.modules, probabilities, n)
    refit = rewards if callable(rewards) else (lambda _: rewards)
    all_rewards = np.asarray(refit(np.ones(n)), dtype=np.float64)
    p = np.ones(n) if p_uncensored is None else p_uncensored
    for name, column in (("rewards", all_rewards), ("p_uncensored", p)):
        if column.shape != (n,) or np.isinf(column).any():
            problem = f"an array of shape {column.shape} is not ({n},) and finite or NaN"
            raise InputError([Fault("comparison", problem, "Pass one number for each decision.", column=name)])
    known = ~np.isnan(all_rewards)
    if not known.any():
        raise NotIdentified("no compared decision has a reward: see the reward model's reasons")
    part, r = log[known], all_rewards[known]
    users, code = np.unique(part.user, return_inverse=True)
    factors = find_factors(part, settings.factors)
    order = min(settings.order, len(factors.members))
    estimand = f"mean reward per decision with a reward of {names[0]} minus that of {names[1]}"
    assumption = assumption_of(order, len(factors.members), log.modules.names[0])

    def result(difference: Interval, ess: float, reason: str = "") -> Comparison:
        return Comparison(
            estimand=estimand,
            assumption=assumption,
            order=order,
            difference=difference,
            decisions=len(part),
            users=len(users),
            ess=ess,
            reason=reason,
        )

    if unknown := int((lacks_propensity(part, factors) | np.isnan(p[known])).sum()):
        return result(UNDEFINED, np.nan, f"propensities are missing for {unknown:,} decisions, or for slots after them")
    policies = [[q[known] for q in policy] for policy in (first, second)]
    weights = [ladder_weights(part, policy, factors.members).of_order(order) for policy in policies]
    d = weights[0] - weights[1]
    counts = 1.0 / p[known]
    ess = contrast_size(d * counts)
    same = all(np.array_equal(a, b) for a, b in zip(*policies, strict=True))
    if not same:
        masses = [unsupported_by_order(part, q, unsupported_by_factor(part, q, factors))[order] for q in policies]
        if reason := _why_not(part, names, weights, masses, counts, r, code, settings):
            return result(UNDEFINED, ess, reason)
    if not d.any():
        return result(Interval(0.0, 0.0, 0.0, 0.0), ess)
    baseline = optimal_baseline(d, r, counts)

    def statistic(drawn: FloatArray) -> FloatArray:
        again = np.asarray(refit(drawn), dtype=np.float64)[known]
        dropped = np.isnan(again)
        c = np.where(dropped, 0.0, drawn[known] * counts)
        total = c.sum()
        return np.array([c @ (d * (np.where(dropped, 0.0, again) - baseline)) / total if total > 0 else np.nan])

    point = difference_of_values(d, np.zeros(len(d)), r, counts)
    draws = user_bootstrap(statistic, log.user, settings.bootstrap_replicates, rng)[:, 0]
    influence = np.bincount(code, weights=counts * (d * (r - baseline) - point)) / counts.sum()
    interval = t_interval(point, draws, influence, settings.confidence_level)
    return result(interval, ess, "" if interval.is_defined else "undefined in some replicates")


def _why_not(
    log: LoggedDecisions,
    names: Sequence[str],
    weights: Sequence[FloatArray],
    masses: Sequence[float],
    counts: FloatArray,
    rewards: FloatArray,
    code: IntArray,
    settings: EvaluationSettings,
) -> str:
    """Return the reason why the log does not identify the difference of two policies, or an empty string.

    The mean of the difference of their weights is 0 whether or not the log supports the policies, so that the mean
    weight of each is checked first.
    """
    everywhere = np.ones(len(log), dtype=bool)
    for name, w, mass in zip(names, weights, masses, strict=True):
        own = Support.overall(w, counts, rewards, log.user, mass)
        if reason := reason_of_weights(own, settings):
            return f"{name}: {reason}"
    d = (weights[0] - weights[1]) * counts
    contrast = Support.from_weights(np.abs(d), rewards, log.user, everywhere, max(masses))
    return reason_not_identified(contrast, int(code.max()) + 1, settings, weighted=bool(d.any()))
