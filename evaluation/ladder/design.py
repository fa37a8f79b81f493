"""What a ladder computes in each bootstrap replicate, and what the log supports of it: all but the replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import NotIdentified
from crosschannel.evaluation.estimates import EvaluationSettings, reason_not_identified, reason_of_weights
from crosschannel.evaluation.estimators import Terms, optimal_baseline
from crosschannel.evaluation.ladder.factors import Factors, find_factors
from crosschannel.evaluation.ladder.values import order_terms, part_terms
from crosschannel.evaluation.ladder.weights import ladder_weights
from crosschannel.evaluation.logged_decisions import LoggedDecisions
from crosschannel.evaluation.outcomes.outcome_model import QValues
from crosschannel.evaluation.support import Support, unsupported_mass

#: Factors above which pairs are not tested one by one, so that time and memory are bounded.
MAX_FACTORS_IN_PAIRS = 10


@dataclass(frozen=True)
class LadderDesign:
    r"""The terms of a ladder on n decisions, and which of them the log supports.

    Attributes:
        factors: The factors.
        order: The order of the headline that was set, at most the number of factors.
        pairs: The pairs of factors whose interactions are tested.
        terms: The terms of all orders 0 to F, then of each factor alone, then of the pairs.
        supports: How well the log supports the policy, by order.
        reasons: Why the log does not identify the value, by order; empty where it does.
        part_reasons: Why the log does not identify what each factor adds given the policy's channel; else empty.
        blocked: Why the log identifies nothing that is weighted; empty where it may.
        sizes: Effective number of decisions behind the interactions of each order 0 to F, and then of each pair:
            :math:`(\\sum |w|)^2 / \\sum w^2`, since the weights of a contrast have mean 0.
    """

    factors: Factors
    order: int
    pairs: tuple[tuple[int, int], ...]
    terms: tuple[Terms, ...]
    supports: tuple[Support, ...]
    reasons: tuple[str, ...]
    sizes: tuple[float, ...]
    part_reasons: tuple[str, ...]
    blocked: str = ""

    @classmethod
    def build(
        cls,
        log: LoggedDecisions,
        probabilities: Sequence[FloatArray],
        rewards: FloatArray,
        counts: FloatArray,
        q: QValues | None,
        settings: EvaluationSettings,
        blocked: str = "",
    ) -> LadderDesign:
        """Compute all that does not change between replicates.

        Args:
            log: Decisions with a reward (n,).
            probabilities: The policy's, one array (n, *modules.shape(m)) per module.
            rewards: Rewards (n,).
            counts: How often each decision counts (n,): inverse probabilities of censoring.
            q: Modelled rewards, given context and channel, of the logged channel and of the policy's. They do not
                depend on the content, so that order 0 changes the channel only, and steps between orders are effects
                on rewards. Without a model they are the baseline with the least variance.
            settings: Order, factors and minimum sample sizes.
            blocked: Why the log identifies nothing that is weighted; empty where it may.

        Raises:
            NotIdentified: If there are no content modules, or a propensity that the ladder needs is missing.
            ConfigError: If `settings.factors` does not fit the modules.
        """
        if len(log.modules) == 1:
            raise NotIdentified("a message has no parts beside the channel")
        factors = find_factors(log, settings.factors)
        if unknown := int(lacks_propensity(log, factors).sum()):
            raise NotIdentified(
                f"the log has no propensity of each module for {unknown:,} decisions, so that the channel's part of "
                "the weight is unknown"
            )
        weights = ladder_weights(log, probabilities, factors.members)
        order = min(settings.order, weights.factors)
        if q is None:
            baseline = np.full(len(log), optimal_baseline(weights.of_order(order), rewards, counts))
            q = QValues(logged=baseline, policy=baseline)
        many = weights.factors > MAX_FACTORS_IN_PAIRS
        pairs = () if many else tuple(combinations(range(weights.factors), 2))
        users = len(np.unique(log.user))

        def support(w: FloatArray, mass: float) -> Support:
            return Support.overall(w, counts, rewards, log.user, mass)

        def reason(s: Support) -> str:
            return blocked or reason_not_identified(s, users, settings) or reason_of_weights(s, settings)

        by_factor = unsupported_by_factor(log, probabilities, factors)
        masses = unsupported_by_order(log, probabilities, by_factor)
        supports = tuple(support(w, mass) for w, mass in zip(weights.orders, masses, strict=True))
        alone = [support(weights.channel + weights.part([f]), mass) for f, mass in enumerate(by_factor)]
        parts = [*([f] for f in range(weights.factors)), *pairs]
        contrasts = [*weights.interactions, *(weights.part(pair) for pair in pairs)]
        return cls(
            factors=factors,
            order=order,
            pairs=pairs,
            terms=(*order_terms(weights, q.logged, q.policy), *part_terms(weights, q.logged, parts)),
            supports=supports,
            reasons=tuple(map(reason, supports)),
            part_reasons=tuple(map(reason, alone)),
            sizes=tuple(contrast_size(w * counts) for w in contrasts),
            blocked=blocked,
        )


def unsupported_by_factor(
    log: LoggedDecisions, probabilities: Sequence[FloatArray], factors: Factors
) -> tuple[float, ...]:
    """Return the share of the policy's mass on channels and actions of each factor that the log never has together."""
    return tuple(
        unsupported_mass(_restricted(log, members), [probabilities[m] for m in (0, *members)], None)
        for members in factors.members
    )


def unsupported_by_order(
    log: LoggedDecisions, probabilities: Sequence[FloatArray], by_factor: Sequence[float]
) -> tuple[float, ...]:
    """Return the largest share of the policy's mass that lacks support, by order 0 to F.

    Order 0 needs every channel that the policy takes, order 1 with it every action of each factor; the shares of the
    factors are added up. From order 2 on it is the share of whole actions that the log never takes, an upper bound.
    """
    channel = unsupported_mass(_restricted(log, []), [probabilities[0]], None)
    whole = unsupported_mass(log, probabilities, None)
    one = min(whole, channel + sum(max(mass - channel, 0.0) for mass in by_factor))
    return (channel, one, *[whole] * (len(by_factor) - 1))


def _restricted(log: LoggedDecisions, members: Sequence[int]) -> LoggedDecisions:
    """Return the log of the channel and some later modules alone; its propensities are not used."""
    kept = [0, *members]
    actions = log.actions[:, kept]
    eligible = None
    if log.eligible is not None:
        eligible = np.concatenate([log.eligible[:, log.modules.slices[m]] for m in kept], axis=1)
    return LoggedDecisions(
        modules=ActionSpace([log.modules[m] for m in kept]),
        actions=actions,
        propensity=np.ones(actions.shape),
        joint=np.ones(len(actions)),
        user=log.user,
        eligible=eligible,
    )


def lacks_propensity(log: LoggedDecisions, factors: Factors) -> BoolArray:
    """Return which decisions (n,) lack a propensity that the weights need."""
    sent = log.modules.sends(log.actions)
    content = np.isnan(log.propensity[:, 1:]).any(1)
    if len(factors.members) == 1:
        content &= np.isnan(log.joint)
    return np.asarray(np.isnan(log.propensity[:, 0]) | (sent & content))


def contrast_size(weights: FloatArray) -> float:
    r"""Return the effective number of decisions of a contrast, :math:`(\sum |w|)^2 / \sum w^2`; 0 if all are 0."""
    square = float(weights @ weights)
    return float(np.abs(weights).sum() ** 2 / square) if square > 0 else 0.0
