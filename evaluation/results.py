"""What an evaluation is asked to do and what it hands back: settings, estimates, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crosschannel.core.errors import ConfigError
from crosschannel.evaluation.bootstrap import Interval, check_replicates
from crosschannel.evaluation.support import Support, raised_floor


@dataclass(frozen=True)
class EvaluationSettings:
    """When a value counts as identified, and how its interval is made.

    Attributes:
        replicates: Bootstrap replicates.
        level: Level of the intervals.
        ess_floor: Least effective sample size of decisions, for rewards with no more than a normal's kurtosis; more
            is asked where rewards are rarer (`support.raised_floor`). In simulated logs with skewed weights intervals
            of dr and snips cover .93 to .96 from here on, of ips .927 (tests/evaluation/test_interval_coverage.py).
        users_floor: Least effective number of users: clustered intervals cover too seldom with fewer than about 40
            clusters (Cameron, Gelbach & Miller, 2008). Raised as `ess_floor` is.
        unsupported_limit: Largest share of the policy's mass that may lack support; the value may be off by this share
            of whatever the missing actions would have earned.
    """

    replicates: int = 400
    level: float = 0.95
    ess_floor: float = 200.0
    users_floor: float = 40.0
    unsupported_limit: float = 0.1

    def __post_init__(self) -> None:
        check_replicates(self.replicates, self.level)
        for name, least in (("ess_floor", 1), ("users_floor", 2)):
            # Written so that NaN, which is neither below nor above anything, is refused too.
            if not least <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} {getattr(self, name)} is not a number of {least} or more")
        if not 0 <= self.unsupported_limit <= 1:
            raise ConfigError(f"unsupported_limit {self.unsupported_limit} is not in [0, 1]")

    def floors(self, support: Support) -> tuple[tuple[str, float, float], ...]:
        """What is asked of decisions and of users: of what, its effective sample size, the floor raised by kurtosis."""
        return (
            ("", support.ess, raised_floor(self.ess_floor, support.kurtosis)),
            (" of users", support.ess_users, raised_floor(self.users_floor, support.kurtosis_users)),
        )


@dataclass(frozen=True)
class Estimate:
    """One estimator's answer to one question.

    Attributes:
        estimand: What the value is, in plain words.
        module: The module that the policy chooses, or None for the whole action.
        estimator: The estimator's name.
        value: Mean reward per decision under the estimand's policy; all NaN where not identified.
        difference: `value` minus the logged policy's mean reward, paired within each replicate.
        decisions: Decisions with a reward that the value rests on.
        users: Their users.
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
        """Whether there is a value."""
        return not self.reason

    def __str__(self) -> str:
        place = f"{self.module or 'joint'}, {self.estimator}"
        if not self.identified:
            return f"{place}: not identified ({self.reason})"
        v = self.value
        return f"{place}: {v.point:.4g} [{v.low:.4g}, {v.high:.4g}]"


@dataclass(frozen=True)
class Evaluation:
    """All estimates of one policy on one log.

    Attributes:
        policy: Name of the evaluated policy.
        log: Name of the log.
        logged: Mean reward per decision of the logged policy, of the same decisions.
        estimates: One for each estimand and estimator; the whole action first, then module by module.
        decisions: Decisions with a reward.
        users: Their users.
        propensity_source: Where the propensities come from.
        reward_counts: Decisions by what became of their reward.
        refitted: Whether the reward model was re-fitted in every replicate, so that its error is in the intervals.
        lost: Share of the decisions with a reward that had none in an average replicate.
        least_kept: The smallest chance that a decision had to keep its reward from a later message: 1 where none could.
        settings: How it was done.
    """

    policy: str
    log: str
    logged: Interval
    estimates: tuple[Estimate, ...]
    decisions: int
    users: int
    propensity_source: str
    reward_counts: Mapping[str, int]
    refitted: bool
    lost: float
    least_kept: float = 1.0
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)

    def get(self, estimator: str, module: str | None = None) -> Estimate:
        """The estimate of an estimator for a module, or for the whole action.

        Raises:
            KeyError: If there is none.
        """
        for estimate in self.estimates:
            if (estimate.estimator, estimate.module) == (estimator, module):
                return estimate
        raise KeyError(f"there is no estimate {estimator!r} of {module or 'the whole action'}")
