"""All estimates of one policy on one log, together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.estimates import WHOLE_ACTION, Estimate, EvaluationSettings
from crosschannel.evaluation.ladder.results import Ladder
from crosschannel.histories.propensities.sources import summarise_sources


@dataclass(frozen=True)
class Evaluation:
    """All estimates of one policy on one log.

    Attributes:
        policy: Name of the evaluated policy.
        log: Name of the log.
        logged: Mean reward per decision with a reward of the logging policy, on the same decisions.
        estimates: One for each estimand and estimator; the whole action first, then module by module.
        decisions: Number of decisions with a reward.
        users: Number of their users.
        propensity_counts: Number of these decisions by the source of their propensities.
        reward_counts: Number of decisions by whether their reward is identified, or else by the reason.
        refitted: Whether the reward model was re-fitted in every replicate, so that its error is in the intervals.
        dropped_share: Share of the decisions with a reward that had none in an average replicate.
        min_p_uncensored: The smallest probability that a decision's reward was not censored by a later message: 1 where
            none could be.
        settings: The settings of the evaluation.
        ladder: The value of the whole action by how many parts of a message may interact; None where there is none.
        no_ladder: Why there is no ladder; empty where there is one.
    """

    policy: str
    log: str
    logged: Interval
    estimates: tuple[Estimate, ...]
    decisions: int
    users: int
    propensity_counts: Mapping[str, int]
    reward_counts: Mapping[str, int]
    refitted: bool
    dropped_share: float
    min_p_uncensored: float = 1.0
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    ladder: Ladder | None = None
    no_ladder: str = ""

    @property
    def population(self) -> str:
        """The decisions that all values are means over, in words."""
        return f"{self.decisions:,} decisions with a reward of {self.logged_decisions:,} logged ones"

    @property
    def logged_decisions(self) -> int:
        """Number of logged decisions, with a reward or without."""
        return sum(self.reward_counts.values())

    @property
    def propensity_source(self) -> str:
        """Source of the propensities: one of `PROPENSITY_SOURCES`, or `mixed` where decisions differ in it."""
        return summarise_sources(self.propensity_counts)

    def get(self, estimator: str, module: str | None = None) -> Estimate:
        """Return the estimate of an estimator for a module, or for the whole action.

        Raises:
            KeyError: If there is none.
        """
        for estimate in self.estimates:
            if (estimate.estimator, estimate.module) == (estimator, module):
                return estimate
        raise KeyError(f"there is no estimate {estimator!r} of {module or WHOLE_ACTION}")

    @property
    def one_per_estimand(self) -> list[Estimate]:
        """Return one estimate of each estimand: the support does not depend on the estimator."""
        return list({e.module: e for e in self.estimates}.values())
