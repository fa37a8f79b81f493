"""Quick looks at a policy on the validation users while it is trained: its value by order, its messages, its costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crosschannel.agents import Agent, Observations
from crosschannel.agents.explain import HAZARD, FunnelAgent
from crosschannel.agents.votes import NoVotes
from crosschannel.core.arrays import FloatArray
from crosschannel.evaluation import (
    CrossFittedOutcomes,
    EvaluationSettings,
    LoggedDecisions,
    Support,
    kurtosis,
    required_ess,
)
from crosschannel.evaluation.estimates import reason_not_identified, reason_of_weights
from crosschannel.evaluation.ladder import Factors, find_factors, ladder_weights
from crosschannel.evaluation.ladder.design import unsupported_by_factor, unsupported_by_order
from crosschannel.pipeline.building import TrainingData
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.judging import fit_outcomes, policy_at

#: Half of the width of a 95 % interval, in standard errors: a quick look needs no bootstrap.
NORMAL_QUANTILE_975 = 1.96
#: Slots that the expected rate of cost events is a mean over, at most.
MAX_SLOTS = 2_000


@dataclass(frozen=True)
class Validation:
    """Quick doubly robust estimates on the validation users, shown while training.

    Attributes:
        log: The logged decisions with a reward.
        policy: Function from an agent to its policy's probabilities there, under the constraints.
        observations: What a policy sees there.
        rewards: Their rewards, from the validation users' own controls.
        counts: How often each decision counts: the inverse of its probability of being uncensored.
        outcomes: The outcome model, cross-fitted on the validation users.
        settings: What the log needs for a value to be shown: the evaluation's.
        factors: The factors of the interaction ladder.
    """

    log: LoggedDecisions
    policy: Callable[[Agent], list[FloatArray]]
    observations: Observations
    rewards: FloatArray
    counts: FloatArray
    outcomes: CrossFittedOutcomes
    settings: EvaluationSettings
    factors: Factors

    @classmethod
    def build(cls, config: Config, data: TrainingData) -> Validation | None:
        """Select the validation users' decisions; None where none can be judged."""
        if config.split.validation == 0 or data.not_identified:
            return None
        split = data.validation
        log, frame, keep = LoggedDecisions.from_history(split.history), split.rewards, split.rewards.identified
        unknown = np.isnan(log.propensity[keep]).any() or np.isnan(frame.p_uncensored[keep]).any()
        if not keep.any() or unknown:
            return None
        outcomes = fit_outcomes(config, split)
        if outcomes is None:
            return None
        rewards, part = frame.reward[keep], log[keep]
        return cls(
            log=part,
            policy=lambda agent: [p[keep] for p in policy_at(config, data, agent, split).probabilities],
            observations=split.observations[keep],
            rewards=rewards,
            counts=frame.ipc_weight[keep],
            outcomes=outcomes.of_rows(keep),
            settings=config.evaluation.estimation,
            factors=find_factors(part, config.evaluation.factors),
        )

    @property
    def order(self) -> int:
        """The order of the headline."""
        return min(self.settings.order, self.orders - 1)

    @property
    def orders(self) -> int:
        """The number of orders, order 0 included."""
        return len(self.factors.members) + 1

    def scores(self, agent: Agent) -> dict[str, float]:
        """Return the value by order with its interval where the log identifies it, messages and costs.

        Nothing while the agent cannot keep the constraints yet, because it has learned from too few messages.
        """
        try:
            probabilities = self.policy(agent)
        except NoVotes:
            return {}  # no funnel was learned yet, so that there is no policy that keeps the constraints
        sends = 1.0 - probabilities[0][:, 0]
        deviations = self.rewards - self.rewards.mean()
        scores = {
            "validation/ess_required": required_ess(self.settings.min_ess, kurtosis(deviations)),
            "validation/logged": float(self.counts @ self.rewards / self.counts.sum()),
            "validation/send_rate": float(self.counts @ sends / self.counts.sum()),
            "validation/send_rate_logged": float(self.counts @ self.log.modules.sends(self.log.actions))
            / float(self.counts.sum()),
        }
        return scores | self._values(probabilities) | self._costs(agent, probabilities)

    def _values(self, probabilities: list[FloatArray]) -> dict[str, float]:
        """Return the value of every order with its interval, and that of the headline beside the log."""
        weights = ladder_weights(self.log, probabilities, self.factors.members)
        by_factor = unsupported_by_factor(self.log, probabilities, self.factors)
        masses = unsupported_by_order(self.log, probabilities, by_factor)[: self.orders]
        # As in the evaluation, the model knows the channel only, so that order 0 does not change the content.
        q = self.outcomes.q_values(self.observations.context, self.log.actions, probabilities)[1]
        users, code = np.unique(self.log.user, return_inverse=True)
        everywhere = np.ones(len(self.log), dtype=bool)
        scores: dict[str, float] = {}
        total = float(self.counts.sum())
        for order, (w, mass) in enumerate(zip(weights.orders, masses, strict=True)):
            weighted = w * self.counts / self.counts.mean()
            support = Support.from_weights(weighted, self.rewards, self.log.user, everywhere, mass)
            scores[f"validation/ess/order_{order}"] = support.ess
            scores[f"validation/unsupported_mass/order_{order}"] = mass
            if reason_not_identified(support, len(users), self.settings) or reason_of_weights(support, self.settings):
                continue
            terms = q.policy + w * (self.rewards - q.logged)
            value = float(self.counts @ terms / total)
            influence = np.bincount(code, weights=self.counts * (terms - value)) / total
            margin = NORMAL_QUANTILE_975 * float(np.sqrt(influence @ influence))
            for bound, shown in (("value", value), ("low", value - margin), ("high", value + margin)):
                scores[f"validation/{bound}/order_{order}"] = shown
            if order == self.order:
                logged = float(self.counts @ self.rewards / total)
                scores |= {"validation/value": value, "validation/lift_over_logging": value - logged}
        return scores

    def _costs(self, agent: Agent, probabilities: list[FloatArray]) -> dict[str, float]:
        """Return how often cost events follow the policy's decisions, beyond those without a message, by the funnel."""
        if not isinstance(agent, FunnelAgent):
            return {}
        rows = np.unique(np.linspace(0, len(self.log) - 1, MAX_SLOTS).astype(np.int64))
        first, scores = probabilities[0][rows, 1:], {}
        for name, parts in agent.components(self.observations[rows]).items():
            if name.startswith(HAZARD):
                rates = parts[0][:, :, 1:].mean(0)
                expected = np.where(first > 0, rates * first, 0.0).sum(1)
                scores[f"validation/cost_rate/{name.removeprefix(HAZARD)}"] = float(expected.mean())
        return scores


def curve_layout(orders: int, order: int) -> dict[str, dict[str, list[object]]]:
    """Return TensorBoard's layout of the curves: the value of each order as a band, and the ESS beside its floor.

    Args:
        orders: Number of orders.
        order: The order of the headline, which comes first.
    """
    ordered = sorted(range(orders), key=lambda k: (k != order, k))
    bands: dict[str, list[object]] = {
        f"value, order {k}": ["Margin", [f"validation/{bound}/order_{k}" for bound in ("value", "low", "high")]]
        for k in ordered
    }
    sizes = [f"validation/ess/order_{k}" for k in range(orders)]
    return {
        "held-out value": bands,
        "effective decisions": {"ESS by order": ["Multiline", ["validation/ess_required", *sizes]]},
        "messages": {"send rate": ["Multiline", ["validation/send_rate", "validation/send_rate_logged"]]},
    }
