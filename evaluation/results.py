"""The settings of an evaluation and its results: estimates, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crosschannel.core.errors import ConfigError
from crosschannel.evaluation.bootstrap import Interval, check_bootstrap
from crosschannel.evaluation.support import Support, required_ess
from crosschannel.histories.propensities.sources import summarise_sources

WHOLE_ACTION = "the whole action"


@dataclass(frozen=True)
class EvaluationSettings:
    """When a value counts as identified, and how its interval is computed.

    Attributes:
        bootstrap_replicates: Number of bootstrap replicates.
        confidence_level: Level of the confidence intervals.
        min_ess: Least effective sample size of decisions. This is for rewards with at most a normal's kurtosis; more is
            required where rewards are rarer (`support.required_ess`). In simulated logs with skewed weights intervals
            of dr and snips cover .93 to .96 from here on, of ips .927 (tests/evaluation/test_interval_coverage.py).
        min_users: Least effective number of users. Clustered intervals cover too seldom with fewer than about 40
            clusters (Cameron, Gelbach & Miller, 2008). More are required where rewards are rarer, as for `min_ess`.
        max_unsupported_mass: Largest share of the policy without support. The value may be off by this share of
            whatever the missing actions would have earned.
    """

    bootstrap_replicates: int = 400
    confidence_level: float = 0.95
    min_ess: float = 200.0
    min_users: float = 40.0
    max_unsupported_mass: float = 0.1

    def __post_init__(self) -> None:
        check_bootstrap(self.bootstrap_replicates, self.confidence_level)
        for name, least in (("min_ess", 1), ("min_users", 2)):
            # Written so that NaN, which is neither below nor above anything, is refused too.
            if not least <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} {getattr(self, name)} is not a number of {least} or more")
        if not 0 <= self.max_unsupported_mass <= 1:
            raise ConfigError(f"max_unsupported_mass {self.max_unsupported_mass} is not in [0, 1]")

    def ess_requirements(self, support: Support) -> tuple[tuple[str, float, float], ...]:
        """Return a name, the effective sample size and its requirement, for decisions and for users."""
        return (
            ("ESS", support.ess, required_ess(self.min_ess, support.kurtosis)),
            ("ESS of users", support.ess_users, required_ess(self.min_users, support.kurtosis_users)),
        )


@dataclass(frozen=True)
class Estimate:
    """One estimator's estimate of one estimand.

    Attributes:
        estimand: What the value is, in plain words.
        module: The module that the policy chooses, or None for the whole action.
        estimator: The estimator's name.
        value: Mean reward per decision with a reward under the estimand's policy; all NaN where not identified.
        difference: `value` minus the logging policy's mean reward, paired within each replicate.
        decisions: Number of decisions with a reward that the value rests on.
        users: Number of their users.
        support: How well the log supports the policy.
        reason: Why the value is not identified; empty where it is.
    """

    estimand: str
    module: str | None
    estimator: str
    value: Interval
    difference: Interval
    decisions: int
    users: int
    support: Support
    reason: str = ""

    @property
    def identified(self) -> bool:
        """Return whether there is a value."""
        return not self.reason

    @property
    def label(self) -> str:
        """Return what the policy chooses, for tables: the module's name, or the whole action."""
        return self.module or WHOLE_ACTION

    def __str__(self) -> str:
        start = f"{self.label}, {self.estimator}"
        if not self.identified:
            return f"{start}: not identified ({self.reason})"
        v = self.value
        return f"{start}: {v.point:.4g} [{v.low:.4g}, {v.high:.4g}]"


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
