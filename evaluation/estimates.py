"""The settings of an evaluation, one estimate of one estimand, and when the log does not identify it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crosschannel.core.errors import ConfigError
from crosschannel.core.wording import counted
from crosschannel.evaluation.bootstrap import Interval, check_bootstrap
from crosschannel.evaluation.support import Support, required_ess

WHOLE_ACTION = "the whole action"
DIAGNOSTIC = "a diagnostic: it relies on the outcome model alone, and its interval ignores the model's bias"


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
        order: Parts of a message that may interact in the headline. Given the channel, 1 is right if what they earn
            adds up (`crosschannel.evaluation.ladder`). It is fixed before looking at the values.
        factors: Content modules that the log drew together. `tested` finds them on the log, `independent` declares
            that there are none, and `offer+tone, time+greeting` names them.
    """

    bootstrap_replicates: int = 400
    confidence_level: float = 0.95
    min_ess: float = 200.0
    min_users: float = 40.0
    max_unsupported_mass: float = 0.1
    order: int = 1
    factors: str = "tested"

    def __post_init__(self) -> None:
        check_bootstrap(self.bootstrap_replicates, self.confidence_level)
        for name, least in (("min_ess", 1), ("min_users", 2)):
            # Written so that NaN, which is neither below nor above anything, is refused too.
            if not least <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} {getattr(self, name)} is not a number of {least} or more")
        if not 0 <= self.max_unsupported_mass <= 1:
            raise ConfigError(f"max_unsupported_mass {self.max_unsupported_mass} is not in [0, 1]")
        if self.order < 1:
            raise ConfigError(
                f"order {self.order} is below 1: order 0 assumes that the content of messages earns nothing, and is "
                "reported as a neighbour of order 1 only"
            )

    def ess_requirements(self, support: Support) -> tuple[tuple[str, float, float], ...]:
        """Return a name, the effective sample size and its requirement, for decisions and for users."""
        return (
            ("ESS", support.ess, required_ess(self.min_ess, support.kurtosis)),
            ("ESS of users", support.ess_users, required_ess(self.min_users, support.kurtosis_users)),
        )

    def scarcest(self, support: Support) -> tuple[str, float, float]:
        """Return that of the `ess_requirements` whose effective sample size is furthest below what is required."""
        requirements = self.ess_requirements(support)
        return max(requirements, key=lambda each: each[2] / each[1] if each[1] > 0 else math.inf)


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
        reason: Why the value is not identified; empty where it is. A diagnostic has a value and a reason.
        assumption: What the value assumes about the parts of a message, in words; empty where nothing.
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
    assumption: str = ""

    @property
    def identified(self) -> bool:
        """Return whether the log identifies the value."""
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


def reason_not_identified(
    support: Support, users: int, settings: EvaluationSettings, *, unknown: int = 0, weighted: bool = True
) -> str:
    """Return the reason why the log does not identify a value, or an empty string.

    Args:
        support: How well the log supports the policy.
        users: Number of users with a reward.
        settings: The minimum sample sizes and the largest mass without support.
        unknown: Number of decisions without a propensity.
        weighted: Whether the value uses importance weights.
    """
    s, limit = support, settings.max_unsupported_mass
    if s.decisions == 0:
        return "the logging policy never makes this choice"
    if users < settings.min_users:
        return f"{counted(users, 'user')} < {settings.min_users:g}"
    if s.unsupported_mass > limit:
        return (
            f"{s.unsupported_mass:.0%} of the policy's mass is on actions that the log never takes or that are "
            f"ineligible, more than {limit:.0%}"
        )
    if not weighted:
        return ""
    if unknown:
        return f"the log has no propensity for {unknown:,} decisions"
    name, ess, required = settings.scarcest(s)
    if ess < required:
        raised = required > (settings.min_ess if name == "ESS" else settings.min_users)
        why = ", the minimum for rewards this rare or uneven" if raised else ""
        return f"{name} {ess:,.0f} < {required:,.0f}{why}"
    return ""


def reason_of_weights(support: Support, settings: EvaluationSettings) -> str:
    """Return why the mean weight of a policy shows that the log does not support it, or an empty string."""
    s, limit = support, settings.max_unsupported_mass
    # Three standard errors: the mean of skewed weights varies, and chance alone must not withhold a value.
    if s.mean_weight + 3 * s.mean_weight_se < 1 - limit:
        return f"mean weight {s.mean_weight:.2f}: the log lacks support for about {1 - s.mean_weight:.0%} of the policy"
    if s.mean_weight - 3 * s.mean_weight_se > 1 + limit:
        return f"mean weight {s.mean_weight:.2f} instead of 1: the propensities do not belong to this log"
    return ""
