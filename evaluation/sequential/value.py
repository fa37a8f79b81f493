"""What a policy is worth over several slots: values with intervals, the support slot by slot, and a table of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.bootstrap import UNKNOWN, Interval, t_interval, user_bootstrap
from evaluation.report.text import SOURCES, aligned, bounds, number
from evaluation.results import EvaluationSettings
from evaluation.sequential.estimators import TRAJECTORY_ESTIMATORS, Sums, TrajectoryEstimator
from evaluation.sequential.fitted_q import fitted_q
from evaluation.sequential.trajectories import Episodes, Trajectories
from evaluation.support import (
    LoggedDecisions,
    Support,
    check_policy,
    describe_weights,
    importance_weights,
    unsupported_mass,
)
from histories.errors import ConfigError
from histories.modules import FloatArray


@dataclass(frozen=True)
class TrajectoryEstimate:
    """One estimator's answer.

    Attributes:
        estimator: The estimator's name.
        value: Mean discounted sum of rewards over the horizon; all NaN where not identified.
        difference: `value` minus the logged policy's, paired within each replicate.
        reason: Why the value is not identified; empty where it is.
    """

    estimator: str
    value: Interval
    difference: Interval
    reason: str = ""

    @property
    def identified(self) -> bool:
        """Whether there is a value."""
        return not self.reason


@dataclass(frozen=True)
class TrajectoryEvaluation:
    """All estimates of one policy over H slots; as text, a table.

    Attributes:
        estimand: What the values are, in plain words.
        logged: The logged policy's mean discounted sum of rewards, of the same stretches.
        estimates: One for each estimator.
        slots: How well the log supports the policy up to each slot, H of them: `decisions` are stretches, the weight of
            a stretch is the product of its ratios up to the slot, `kurtosis` is that of the logged sums of rewards.
        present: Stretches whose user was still there at each slot, H of them.
        users: Users of the stretches.
        left_out: Stretches left out because the log ends before they do.
        about: The policy, the log and where its propensities come from.
        settings: How it was done.
    """

    estimand: str
    logged: Interval
    estimates: tuple[TrajectoryEstimate, ...]
    slots: tuple[Support, ...]
    present: tuple[int, ...]
    users: int
    left_out: int = 0
    about: str = "policy on log"
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)

    def get(self, estimator: str) -> TrajectoryEstimate:
        """The estimate of an estimator. Raises `KeyError` if there is none."""
        for estimate in self.estimates:
            if estimate.estimator == estimator:
                return estimate
        raise KeyError(f"there is no estimate {estimator!r}")

    def __str__(self) -> str:
        level = f"{self.settings.level:.0%}"
        rows: list[tuple[str, ...]] = [("estimator", "value", level, "minus logged", level)]
        rows.append(("the log itself", number(self.logged), bounds(self.logged), "", ""))
        for e in self.estimates:
            cells = (number(e.value), bounds(e.value), number(e.difference), bounds(e.difference))
            rows.append((e.estimator, *(cells if e.identified else (f"not identified ({e.reason})", "", "", ""))))
        support: list[tuple[str, ...]] = [
            ("up to slot", "present", "ESS", "ESS of users", "largest weight", "mean weight")
        ]
        for t, (s, present) in enumerate(zip(self.slots, self.present, strict=True)):
            ess = (f"{s.ess:,.0f}", f"{s.ess_users:,.0f}", f"{s.largest_weight:.3g}", f"{s.mean_weight:.3g}")
            support.append((str(t + 1), f"{present:,}", *ess))
        stretches = self.slots[0].decisions
        notes = [f"{stretches:,} stretches of {self.users:,} users; rewards are held fixed in the bootstrap."]
        if self.left_out:
            notes.append(f"{self.left_out:,} stretches are left out: the log ends before they do.")
        if any(e.estimator == "fqe" and e.identified for e in self.estimates):
            notes.append("fqe is the model's opinion: its interval lacks the model's error and may miss the truth.")
        return "\n".join([f"{self.about}: {self.estimand}", "", *aligned(rows), "", *aligned(support), "", *notes])


def evaluate_trajectories(
    log: LoggedDecisions,
    probabilities: Sequence[FloatArray],
    rewards: FloatArray,
    episodes: Episodes,
    *,
    rng: np.random.Generator,
    context: npt.NDArray[Any] | None = None,
    discount: float = 1.0,
    settings: EvaluationSettings | None = None,
    estimators: Sequence[TrajectoryEstimator] = TRAJECTORY_ESTIMATORS,
    policy: str = "policy",
) -> TrajectoryEvaluation:
    """Estimates what a policy is worth over H slots if it chooses the whole action at every one of them.

    The logged contexts and the log's propensities must be those of the slots as they came; what the policy sees at a
    slot must be in the log. Rewards are held fixed: that a reward model was fitted is not in the intervals.

    Args:
        log: The logged decisions (decisions,), of users whom the policy has not seen.
        probabilities: The policy's probabilities there, one array (decisions, *modules.shape(m)) a module.
        rewards: Rewards (decisions,), each of its own slot: one whose window is longer than the gap to the next slot
            counts the next message's effect twice. All slots of a stretch need one.
        episodes: `first_slots` or `blocks`.
        rng: Where the bootstrap's draws come from.
        context: Standardised context features (decisions, D) for `fitted_q`; without them the estimators that need a
            model are left out.
        discount: What a slot's reward is worth at the slot before.
        settings: Floors, limits, replicates; its floor of decisions is one of stretches here.
        estimators: Which estimators, in the order of the report.
        policy: The policy's name.

    Raises:
        InputError: If shapes differ, a probability is out of range, or a slot of a stretch has no finite reward.
        ConfigError: If every estimator needs a model and there is no context.
    """
    check_policy(log.modules, probabilities, len(log))
    trajectories = Trajectories(
        episodes.of(rewards),
        episodes.of(importance_weights(log, probabilities, None)),
        episodes.length,
        episodes.user,
        np.ones(len(episodes.user)),
        discount,
    )
    if context is not None:
        q = fitted_q(log, context, probabilities, rewards, episodes, discount=discount)
        trajectories = replace(trajectories, q_logged=q.logged, q_policy=q.policy)
    found = value_trajectories(
        trajectories,
        rng=rng,
        settings=settings,
        estimators=estimators,
        unsupported=unsupported_mass(log, probabilities, None),
    )
    about = f"{policy} on {log.name}, {SOURCES[log.propensity_source]}"
    return replace(found, about=about, left_out=episodes.left_out)


def value_trajectories(
    trajectories: Trajectories,
    *,
    rng: np.random.Generator,
    settings: EvaluationSettings | None = None,
    estimators: Sequence[TrajectoryEstimator] = TRAJECTORY_ESTIMATORS,
    unsupported: float = 0.0,
) -> TrajectoryEvaluation:
    """Values with intervals from arrays, whatever made them; see `evaluate_trajectories`.

    Args:
        trajectories: Rewards, ratios, and modelled sums where there are any.
        rng: Where the bootstrap's draws come from.
        settings: Floors, limits, replicates.
        estimators: Which estimators; those that need a model are left out where there is none.
        unsupported: Share of the policy's mass at a slot, on average, on actions that the log never takes.

    Raises:
        ConfigError: If every estimator needs a model and there is none.
    """
    settings, x = settings or EvaluationSettings(), trajectories
    modelled = x.q_logged is not None and x.q_policy is not None
    usable = [e for e in estimators if modelled or not e.modelled]
    if not usable:
        raise ConfigError("every estimator that was asked for needs a model: hand in `context`, or modelled sums")
    codes, code = np.unique(x.user, return_inverse=True)
    weights = np.full(x.rewards.shape, np.nan) if x.unknown else x.weights
    share, everyone = x.counts / x.counts.mean(), np.ones(len(code), dtype=bool)
    slots = tuple(
        describe_weights(w * share, x.returns, x.user, everyone, 1 - (1 - unsupported) ** (t + 1))
        for t, w in enumerate(weights.T)
    )
    reasons = [_why_not(e, x, slots, len(codes), settings) for e in usable]
    nothing = Sums.mean(np.full(len(code), np.nan))
    terms = [
        Sums.mean(x.returns),
        *(nothing if reason else e.terms(x) for e, reason in zip(usable, reasons, strict=True)),
    ]

    def statistics(times: FloatArray) -> FloatArray:
        return np.array([t.value(times * x.counts) for t in terms])

    points = statistics(np.ones(len(code)))
    draws = user_bootstrap(statistics, x.user, settings.replicates, rng)
    influences = [np.bincount(code, weights=t.influence(x.counts)).astype(np.float64) for t in terms]

    def estimate(k: int, e: TrajectoryEstimator, reason: str) -> TrajectoryEstimate:
        value = t_interval(points[k], draws[:, k], influences[k], settings.level)
        difference = t_interval(
            points[k] - points[0], draws[:, k] - draws[:, 0], influences[k] - influences[0], settings.level
        )
        if not reason and not (value.known and difference.known):
            reason = f"undefined in {int((~np.isfinite(draws[:, k])).sum())} of {len(draws)} replicates"
            value = difference = UNKNOWN
        return TrajectoryEstimate(e.name, value, difference, reason)

    discounted = "" if x.discount == 1 else f", discounted by {x.discount:g} a slot,"
    return TrajectoryEvaluation(
        estimand=f"mean sum of rewards{discounted} over {x.horizon} slots if the policy chose at every one of them",
        logged=t_interval(points[0], draws[:, 0], influences[0], settings.level),
        estimates=tuple(estimate(1 + k, e, reasons[k]) for k, e in enumerate(usable)),
        slots=slots,
        present=tuple(int((x.length > t).sum()) for t in range(x.horizon)),
        users=len(codes),
        settings=settings,
    )


def _why_not(
    estimator: TrajectoryEstimator, x: Trajectories, slots: Sequence[Support], users: int, settings: EvaluationSettings
) -> str:
    """Why the log does not identify an estimate, or an empty string: the first slot at which it fails says so."""
    if users < settings.users_floor:
        return f"{users} users < {settings.users_floor:g}"
    limit = settings.unsupported_limit
    for t, s in enumerate(slots):
        at = f"up to slot {t + 1} of {len(slots)}"
        if s.unsupported > limit:
            return f"{s.unsupported:.0%} of the policy's paths {at} have an action that the log never takes"
        if not estimator.weighted:
            continue
        if x.unknown:
            return f"the log has no propensity of {x.unknown:,} decisions"
        for of, ess, raised in settings.floors(s):
            # Written so that an overflown product, whose ESS is NaN, is refused too.
            if not ess >= raised:
                return f"ESS{of} {ess:,.0f} < {raised:,.0f} {at}"
        if not estimator.centred and s.ess < (least := uncentred_floor(s.decisions, s.ess)):
            return (
                f"ESS {s.ess:,.0f} < {least:,.0f} {at}, the floor where an error moves with weights as skewed as these"
            )
        # Three standard errors: the mean of skewed weights wanders, and chance alone must not withhold a value.
        if s.mean_weight + 3 * s.mean_weight_se < 1 - limit:
            return f"mean weight {s.mean_weight:.2f} {at}: the log lacks support for much of what the policy does"
        if s.mean_weight - 3 * s.mean_weight_se > 1 + limit:
            return f"mean weight {s.mean_weight:.2f} instead of 1 {at}: the propensities are not those of this log"
    return ""


def uncentred_floor(n: int, ess: float) -> float:
    r"""The least effective sample size for an interval of a mean that n weights themselves, and not deviations, carry.

    .. math:: n > 25 G^2, \qquad G^2 = (R + 2)^2 (R - 1), \qquad R = n / \text{ESS}

    Cochran (1977), "Sampling techniques", section 2.15, asks for so many values of skewness G. Products of many ratios
    are about lognormal, whose skewness follows from R; the sample's own would be too small, as the largest weights are
    those that have not been seen. 122 at R = 1.6, 417 at 3, 1,333 at 6. Without it intervals of `trajectory ips` cover
    .90 over 8 slots at an ESS of 230 (tests/evaluation/test_trajectories.py).
    """
    ratio = n / ess
    return 25 * (ratio + 2) ** 2 * (ratio - 1) / ratio
