"""Off-policy evaluation: the value of a policy on logged decisions, jointly and per module, with its support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.evaluation.bootstrap import UNDEFINED, Interval, t_interval, user_bootstrap
from crosschannel.evaluation.estimates import (
    DIAGNOSTIC,
    Estimate,
    EvaluationSettings,
    reason_not_identified,
    reason_of_weights,
)
from crosschannel.evaluation.estimators import ESTIMATORS, Estimator, SwitchDR
from crosschannel.evaluation.ladder.build import build_ladder
from crosschannel.evaluation.ladder.joint import JointReplicates
from crosschannel.evaluation.logged_decisions import LoggedDecisions
from crosschannel.evaluation.observed_decisions import Estimand, ObservedDecisions, Refit
from crosschannel.evaluation.outcomes.outcome_model import QValues
from crosschannel.evaluation.results import Evaluation
from crosschannel.evaluation.stacked_terms import StackedTerms

#: The statistics of the bootstrap: the logged mean, the share of rewards that a replicate dropped, then all values.
LOGGED, DROPPED, FIRST = 0, 1, 2


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
    refit: Refit = rewards if callable(rewards) else (lambda _: rewards)
    observed = ObservedDecisions.build(log, probabilities, refit, q_values, p_uncensored)
    usable = [e for e in estimators if q_values is not None or not e.uses_model]
    if not usable:
        raise ConfigError("all requested estimators need an outcome model: pass `q_values`")
    no_overlap = no_overlap or refused or observed.why_unknown
    requests = [
        _Request(
            estimand,
            e,
            (no_overlap if e.uses_weights or observed.unknown else "") or _why(estimand, e, observed.users, settings),
        )
        for estimand in observed.estimands()
        for e in usable
    ]
    design, no_ladder = observed.ladder_design(settings, no_overlap)
    terms = StackedTerms.build(
        [
            *(None if each.reason else each.estimator.terms(each.estimand.sample) for each in requests),
            *(design.terms if design else ()),
        ],
        len(observed.log),
    )
    replicates = _Replicates.draw(observed, refit, log.user, terms, settings, rng)
    ladder = None
    if design is not None:
        joint = replicates.joint(len(requests))
        estimand = _describe(log, None, policy)
        ladder = build_ladder(design, joint, estimand, observed.users, log.modules.names[0], settings, refused)
    return Evaluation(
        policy=policy,
        log=log.name,
        logged=UNDEFINED if refused else replicates.interval(LOGGED),
        estimates=tuple(
            _estimate(replicates, FIRST + k, each, _describe(log, each.estimand.module, policy), refused)
            for k, each in enumerate(requests)
        ),
        decisions=len(observed.log),
        users=observed.users,
        propensity_counts=observed.log.propensity_counts,
        reward_counts=dict(reward_counts or observed.reward_counts),
        refitted=callable(rewards),
        dropped_share=float(replicates.draws[:, DROPPED].mean()),
        min_p_uncensored=float(1.0 / observed.ipc_weight.max()),
        settings=settings,
        ladder=ladder,
        no_ladder=no_ladder,
    )


@dataclass(frozen=True)
class _Request:
    """One estimator of one estimand, and why the log does not identify it; the reason is empty where it does."""

    estimand: Estimand
    estimator: Estimator
    reason: str


@dataclass(frozen=True)
class _Replicates:
    """K statistics and their replicates: the logged mean, the share of dropped rewards, then all values of `terms`.

    Attributes:
        points: The statistics (K,).
        draws: Their replicates, from the same draws of users (B, K).
        terms: The terms of the values.
        observed: The decisions with a reward.
        confidence_level: Level of the intervals.
    """

    points: FloatArray
    draws: FloatArray
    terms: StackedTerms
    observed: ObservedDecisions
    confidence_level: float

    @classmethod
    def draw(
        cls,
        observed: ObservedDecisions,
        refit: Refit,
        user: IntArray,
        terms: StackedTerms,
        settings: EvaluationSettings,
        rng: np.random.Generator,
    ) -> _Replicates:
        """Draw users (of all decisions) again and again, with rewards that are fitted again each time."""

        def statistics(counts: FloatArray) -> FloatArray:
            r = np.asarray(refit(counts), dtype=np.float64)[observed.rows]
            dropped = np.isnan(r)
            c = np.where(dropped, 0.0, counts[observed.rows] * observed.ipc_weight)
            r = np.where(dropped, 0.0, r)
            logged = c @ r / c.sum() if c.any() else np.nan
            return np.array([logged, dropped.mean(), *terms.values(c, r)])

        points = statistics(np.ones(len(user)))
        draws = user_bootstrap(statistics, user, settings.bootstrap_replicates, rng)
        return cls(points, draws, terms, observed, settings.confidence_level)

    def influence(self, k: int) -> FloatArray:
        """Return the influences of the decisions (n,) on the logged mean or on a value."""
        weight, rewards = self.observed.ipc_weight, self.observed.rewards
        if k == LOGGED:
            return np.asarray(weight * (rewards - self.points[LOGGED]) / weight.sum())
        return self.terms.influence(k - FIRST, weight, rewards, self.points[k])

    def interval(self, k: int) -> Interval:
        """Return the interval of a statistic."""
        return self._interval(self.points[k], self.draws[:, k], self.influence(k))

    def lead(self, k: int) -> Interval:
        """Return the interval of a value minus the logged mean, paired within each replicate."""
        difference = self.draws[:, k] - self.draws[:, LOGGED]
        return self._interval(
            self.points[k] - self.points[LOGGED], difference, self.influence(k) - self.influence(LOGGED)
        )

    def undefined(self, k: int) -> int:
        """Return in how many replicates a value or the logged mean is undefined."""
        return int((~np.isfinite(self.draws[:, k] - self.draws[:, LOGGED])).sum())

    def joint(self, first: int) -> JointReplicates:
        """Return the logged mean and the values from number `first` on, with the users' influences."""
        kept = [LOGGED, *range(FIRST + first, len(self.points))]
        return JointReplicates(
            points=self.points[kept],
            draws=self.draws[:, kept],
            influence=np.stack([self._by_user(self.influence(k)) for k in kept], axis=1),
            confidence_level=self.confidence_level,
        )

    def _interval(self, point: float, draws: FloatArray, influence: FloatArray) -> Interval:
        return t_interval(point, draws, self._by_user(influence), self.confidence_level)

    def _by_user(self, influence: FloatArray) -> FloatArray:
        return np.bincount(self.observed.code, weights=influence).astype(np.float64)


def _estimate(replicates: _Replicates, k: int, request: _Request, described: str, refused: str) -> Estimate:
    """Return the estimate of a request, whose value is statistic k; `refused` as in `evaluate`."""
    estimand, reason = request.estimand, request.reason
    value, difference = replicates.interval(k), replicates.lead(k)
    if not reason and not (value.is_defined and difference.is_defined):
        reason = f"undefined in {replicates.undefined(k)} of {len(replicates.draws)} replicates"
        value = difference = UNDEFINED
    return Estimate(
        estimand=described,
        module=estimand.name,
        estimator=request.estimator.name,
        value=value,
        difference=UNDEFINED if refused else difference,  # the log's own value is then not identified either
        decisions=len(replicates.observed.log),
        users=replicates.observed.users,
        support=estimand.support,
        reason=reason or ("" if request.estimator.uses_weights else DIAGNOSTIC),
    )


def _why(estimand: Estimand, estimator: Estimator, users: int, settings: EvaluationSettings) -> str:
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
