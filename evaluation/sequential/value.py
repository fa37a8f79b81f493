"""Estimate a policy's value over several slots, with intervals, and decide whether the log identifies it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.wording import counted
from crosschannel.evaluation.bootstrap import UNDEFINED, t_interval, user_bootstrap
from crosschannel.evaluation.estimates import EvaluationSettings
from crosschannel.evaluation.logged_decisions import LoggedDecisions, check_probabilities
from crosschannel.evaluation.report.formatting import propensity_label
from crosschannel.evaluation.sequential.estimators import TRAJECTORY_ESTIMATORS, RatioTerms, TrajectoryEstimator
from crosschannel.evaluation.sequential.fitted_q import fit_q_values
from crosschannel.evaluation.sequential.results import TrajectoryEstimate, TrajectoryEvaluation
from crosschannel.evaluation.sequential.trajectories import Trajectories, TrajectoryIndex
from crosschannel.evaluation.support import Support, unsupported_mass
from crosschannel.evaluation.weights import importance_weights

Refit = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class RefittedRewards:
    """Rewards of n trajectories that are fitted again in every replicate of the bootstrap.

    Attributes:
        refit: Function from how often each decision counts (decisions,) to rewards (decisions,), NaN where not
            identified.
        user: Integer codes of the decisions' users (decisions,): all users that the rewards are fitted to, also those
            without a trajectory.
        index: The decisions of the trajectories.
    """

    refit: Refit
    user: IntArray
    index: TrajectoryIndex

    def draw(self, x: Trajectories, counts: FloatArray) -> tuple[Trajectories, float]:
        """Return the trajectories of a replicate, and the share of them that lack a reward there and count 0 times.

        Args:
            x: The trajectories, with their own counts.
            counts: How often each decision counts (decisions,); those of a user count alike.
        """
        rewards = self.index.gather(np.asarray(self.refit(counts), dtype=np.float64))
        dropped: BoolArray = np.asarray(np.isnan(rewards).any(axis=1))
        drawn = np.where(dropped, 0.0, counts[self.index.rows[:, 0]] * x.counts)
        return replace(x, rewards=np.where(dropped[:, None], 0.0, rewards), counts=drawn), float(dropped.mean())


def evaluate_trajectories(
    log: LoggedDecisions,
    probabilities: Sequence[FloatArray],
    rewards: FloatArray | Refit,
    index: TrajectoryIndex,
    *,
    rng: np.random.Generator,
    context: npt.NDArray[Any] | None = None,
    discount: float = 1.0,
    settings: EvaluationSettings | None = None,
    estimators: Sequence[TrajectoryEstimator] = TRAJECTORY_ESTIMATORS,
    policy: str = "policy",
) -> TrajectoryEvaluation:
    """Estimate a policy's value over H slots if it chooses the whole action at each of them.

    The contexts and the propensities must be those that were logged at the slots; what the policy sees at a slot must
    be in the log.

    Args:
        log: The logged decisions (decisions,), of users whom the policy has not seen.
        probabilities: The policy's probabilities there, one array (decisions, *modules.shape(m)) per module.
        rewards: Rewards (decisions,), each of its own slot: one whose window is longer than the gap to the next slot
            counts the next message's effect twice. All slots of a trajectory need one. Or a function from how often
            each decision counts (decisions,) to such rewards, which is then called again in every replicate
            (`reward.refit`), so that the error of a fitted reward model is in the intervals; a trajectory that lacks a
            reward in a replicate does not count there. The model of `fit_q_values` is not fitted again.
        index: The trajectories, from `first_slots` or `blocks`.
        rng: Random generator of the bootstrap.
        context: Standardised context features (decisions, D) for `fit_q_values`; without them the estimators that need
            a model are left out.
        discount: What a slot's reward is worth at the slot before.
        settings: Confidence level, replicates, and when a value counts as identified; `min_ess` is one of trajectories.
        estimators: The estimators, in the order of the report.
        policy: The policy's name.

    Raises:
        InputError: If shapes differ, a probability is out of range, or a slot of a trajectory has no finite reward.
        ConfigError: If all estimators need a model and there is no context.
    """
    check_probabilities(log.modules, probabilities, len(log))
    refitted = RefittedRewards(rewards, log.user, index) if callable(rewards) else None
    first = np.asarray(rewards(np.ones(len(log))) if callable(rewards) else rewards, dtype=np.float64)
    trajectories = Trajectories(
        rewards=index.gather(first),
        ratios=index.gather(importance_weights(log, probabilities, None)),
        length=index.length,
        user=index.user,
        counts=np.ones(len(index.user)),
        discount=discount,
    )
    if context is not None:
        q = fit_q_values(log, context, probabilities, first, index, discount=discount)
        trajectories = replace(trajectories, q_logged=q.logged, q_policy=q.policy)
    evaluation = value_trajectories(
        trajectories,
        rng=rng,
        settings=settings,
        estimators=estimators,
        unsupported=unsupported_mass(log, probabilities, None),
        refitted=refitted,
    )
    about = f"{policy} on {log.name}, {propensity_label(log.propensity_counts)}"
    return replace(evaluation, about=about, excluded=index.excluded)


def value_trajectories(
    trajectories: Trajectories,
    *,
    rng: np.random.Generator,
    settings: EvaluationSettings | None = None,
    estimators: Sequence[TrajectoryEstimator] = TRAJECTORY_ESTIMATORS,
    unsupported: float = 0.0,
    refitted: RefittedRewards | None = None,
) -> TrajectoryEvaluation:
    """Estimate a policy's value from arrays, whatever their source; see `evaluate_trajectories`.

    Args:
        trajectories: Rewards, ratios, and modelled sums where there are any.
        rng: Random generator of the bootstrap.
        settings: Confidence level, replicates, and when a value counts as identified.
        estimators: The estimators; those that need a model are left out where there is none.
        unsupported: Share of the policy's mass at a slot, on average, on actions that the log never takes.
        refitted: The rewards as a function of a replicate; None to hold them fixed.

    Raises:
        ConfigError: If all estimators need a model and there is none.
    """
    settings, x = settings or EvaluationSettings(), trajectories
    has_model = x.q_logged is not None and x.q_policy is not None
    usable = [e for e in estimators if has_model or not e.uses_model]
    if not usable:
        raise ConfigError("all requested estimators need a model: pass `context`, or modelled sums")
    users, code = np.unique(x.user, return_inverse=True)
    slots = _support_by_slot(x, unsupported)
    reasons = [_why_not_identified(e, x, slots, len(users), settings) for e in usable]
    nothing = RatioTerms.for_mean(np.full(len(code), np.nan))

    def all_terms(of: Trajectories) -> list[RatioTerms]:
        identified = (nothing if reason else e.terms(of) for e, reason in zip(usable, reasons, strict=True))
        return [RatioTerms.for_mean(of.returns), *identified]

    terms = all_terms(x)

    def statistics(counts: FloatArray) -> FloatArray:
        """Return all values, and then the share of the trajectories that lack a reward in this replicate."""
        if refitted is None:
            return np.array([*(t.value(counts * x.counts) for t in terms), 0.0])
        drawn, dropped = refitted.draw(x, counts)
        return np.array([*(t.value(drawn.counts) for t in all_terms(drawn)), dropped])

    points = np.array([t.value(x.counts) for t in terms])
    user = x.user if refitted is None else refitted.user
    draws = user_bootstrap(statistics, user, settings.bootstrap_replicates, rng)
    influences = [np.bincount(code, weights=t.influence(x.counts)).astype(np.float64) for t in terms]
    level = settings.confidence_level

    def estimate(k: int, e: TrajectoryEstimator, reason: str) -> TrajectoryEstimate:
        value = t_interval(points[k], draws[:, k], influences[k], level)
        difference = t_interval(points[k] - points[0], draws[:, k] - draws[:, 0], influences[k] - influences[0], level)
        if not reason and not (value.is_defined and difference.is_defined):
            reason = f"undefined in {int((~np.isfinite(draws[:, k])).sum())} of {len(draws)} replicates"
            value = difference = UNDEFINED
        return TrajectoryEstimate(estimator=e.name, value=value, difference=difference, reason=reason)

    discounted = "" if x.discount == 1 else f", discounted by {x.discount:g} per slot,"
    return TrajectoryEvaluation(
        estimand=f"mean sum of rewards{discounted} over {x.horizon} slots if the policy chose at each of them",
        logged=t_interval(points[0], draws[:, 0], influences[0], level),
        estimates=tuple(estimate(1 + k, e, reasons[k]) for k, e in enumerate(usable)),
        slots=slots,
        active=tuple(int((x.length > t).sum()) for t in range(x.horizon)),
        users=len(users),
        settings=settings,
        refitted=refitted is not None,
        dropped_share=float(draws[:, -1].mean()),
    )


def _support_by_slot(x: Trajectories, unsupported: float) -> tuple[Support, ...]:
    """Return the support of the policy up to each slot, H of them."""
    weights = np.full(x.rewards.shape, np.nan) if x.unknown_ratios else x.weights
    share, everyone = x.counts / x.counts.mean(), np.ones(len(x.user), dtype=bool)
    return tuple(
        Support.from_weights(w * share, x.returns, x.user, everyone, 1 - (1 - unsupported) ** (t + 1))
        for t, w in enumerate(weights.T)
    )


def _why_not_identified(
    estimator: TrajectoryEstimator, x: Trajectories, slots: Sequence[Support], users: int, settings: EvaluationSettings
) -> str:
    """Return why the log does not identify an estimate, by the first slot at which it fails, or an empty string."""
    if users < settings.min_users:
        return f"{counted(users, 'user')} < {settings.min_users:g}"
    limit = settings.max_unsupported_mass
    for t, s in enumerate(slots):
        at = f"up to slot {t + 1} of {len(slots)}"
        if s.unsupported_mass > limit:
            return f"{s.unsupported_mass:.0%} of the policy's paths {at} have an action that the log never takes"
        if not estimator.uses_weights:
            continue
        if x.unknown_ratios:
            return f"the log has no propensity for {x.unknown_ratios:,} decisions"
        for name, ess, required in settings.ess_requirements(s):
            # Written so that an overflown product, whose ESS is NaN, is refused too.
            if not ess >= required:
                return f"{name} {ess:,.0f} < {required:,.0f} {at}"
        if not estimator.centred and s.ess < (required := required_ess_uncentred(s.decisions, s.ess)):
            return f"ESS {s.ess:,.0f} < {required:,.0f} {at}, the minimum of {estimator.name} for weights this skewed"
        # Three standard errors: the mean of skewed weights varies, and chance alone must not withhold a value.
        if s.mean_weight + 3 * s.mean_weight_se < 1 - limit:
            return f"mean weight {s.mean_weight:.2f} {at}: the log lacks support for much of what the policy does"
        if s.mean_weight - 3 * s.mean_weight_se > 1 + limit:
            return f"mean weight {s.mean_weight:.2f} instead of 1 {at}: the propensities do not belong to this log"
    return ""


def required_ess_uncentred(n: int, ess: float) -> float:
    r"""Return the effective sample size required for a mean in which the n weights, and not deviations, are weighted.

    .. math:: n > 25 G^2, \qquad G^2 = (R + 2)^2 (R - 1), \qquad R = n / \text{ESS}

    Cochran (1977), "Sampling techniques", section 2.15, requires so many values of skewness G. Products of many ratios
    are about lognormal, whose skewness follows from R; the sample's own would be too small, as the largest weights are
    those that have not been seen. It is 122 at R = 1.6, 417 at 3, 1,333 at 6. Without it intervals of `trajectory ips`
    cover .90 over 8 slots at an ESS of 230 (tests/evaluation/sequential/test_trajectory_value.py).
    """
    ratio = n / ess
    return 25 * (ratio + 2) ** 2 * (ratio - 1) / ratio
