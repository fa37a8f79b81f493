"""The results of an evaluation over several slots: estimates with intervals, and the support slot by slot."""

from __future__ import annotations

from dataclasses import dataclass, field

from crosschannel.core.wording import counted
from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.estimates import EvaluationSettings
from crosschannel.evaluation.report.formatting import align, format_bounds, format_number, format_point, why_not
from crosschannel.evaluation.support import Support

#: A larger share of trajectories that a replicate dropped is reported.
MAX_DROPPED_SHARE = 0.01


@dataclass(frozen=True)
class TrajectoryEstimate:
    """One estimator's estimate.

    Attributes:
        estimator: The estimator's name.
        value: Mean discounted sum of rewards over the horizon; all NaN where not identified.
        difference: `value` minus the logging policy's, paired within each replicate.
        reason: Why the value is not identified; empty where it is.
    """

    estimator: str
    value: Interval
    difference: Interval
    reason: str = ""

    @property
    def identified(self) -> bool:
        """Return whether there is a value."""
        return not self.reason


@dataclass(frozen=True)
class TrajectoryEvaluation:
    """All estimates of one policy over H slots; as text, a table.

    Attributes:
        estimand: What the values are, in plain words.
        logged: The logging policy's mean discounted sum of rewards, on the same trajectories.
        estimates: One for each estimator.
        slots: How well the log supports the policy up to each slot, H of them: `decisions` are trajectories, the weight
            of a trajectory is the product of its ratios up to the slot, `kurtosis` is that of the logged sums of
            rewards.
        active: Number of trajectories whose user had not churned before each slot, H of them.
        users: Number of users.
        excluded: Number of trajectories that are excluded because the log ends before they do.
        about: The policy, the log and where its propensities come from.
        settings: The settings of the evaluation.
        refitted: Whether the rewards were fitted again in every replicate of the bootstrap.
        dropped_share: Share of the trajectories that lack a reward in an average replicate, and do not count there.
    """

    estimand: str
    logged: Interval
    estimates: tuple[TrajectoryEstimate, ...]
    slots: tuple[Support, ...]
    active: tuple[int, ...]
    users: int
    excluded: int = 0
    about: str = "policy on log"
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    refitted: bool = False
    dropped_share: float = 0.0

    @property
    def headline(self) -> TrajectoryEstimate:
        """The estimate that is reported first: that of the first estimator, fixed before looking at the values."""
        return self.estimates[0]

    def get(self, estimator: str) -> TrajectoryEstimate:
        """Return the estimate of an estimator.

        Raises:
            KeyError: If there is none.
        """
        for estimate in self.estimates:
            if estimate.estimator == estimator:
                return estimate
        raise KeyError(f"there is no estimate {estimator!r}")

    def __str__(self) -> str:
        tables = [*align(self.value_rows()), "", *align(self.support_rows())]
        return "\n".join([f"{self.about}: {self.estimand}", "", *tables, "", *self.notes()])

    def value_rows(self) -> list[tuple[str, ...]]:
        """Return the values as rows of texts, the first one the names of the columns."""
        level = f"{self.settings.confidence_level:.0%}"
        rows: list[tuple[str, ...]] = [
            ("estimator", "value", level, "difference", level),
            ("(logging policy)", format_point(self.logged), format_bounds(self.logged), "", ""),
        ]
        for e in self.estimates:
            if e.identified:
                value = (format_point(e.value), format_bounds(e.value))
                rows.append((e.estimator, *value, format_point(e.difference), format_bounds(e.difference)))
            else:
                rows.append((e.estimator, why_not(e.reason), "", "", ""))
        return rows

    def support_rows(self) -> list[tuple[str, ...]]:
        """Return the support by slot as rows of texts, the first one the names of the columns."""
        rows: list[tuple[str, ...]] = [("up to slot", "active", "ESS", "ESS of users", "largest weight", "mean weight")]
        for t, (s, active) in enumerate(zip(self.slots, self.active, strict=True)):
            sizes = [format_number(x, ",.0f") for x in (s.ess, s.ess_users)]
            weights = [format_number(x, ".3g") for x in (s.largest_weight, s.mean_weight)]
            rows.append((str(t + 1), f"{active:,}", *sizes, *weights))
        return rows

    def notes(self) -> list[str]:
        """Return what the values rest on and what limits them, as sentences."""
        n = self.slots[0].decisions
        how = "fitted again in every replicate" if self.refitted else "held fixed in the bootstrap"
        notes = [f"{n:,} trajectories of {counted(self.users, 'user')}; rewards are {how}."]
        if self.dropped_share > MAX_DROPPED_SHARE:
            notes.append(
                f"In an average replicate {self.dropped_share:.1%} of the trajectories lack a reward, because some "
                "time buckets have barely enough controls."
            )
        if self.excluded:
            notes.append(f"{self.excluded:,} trajectories are excluded because the log ends before they do.")
        if any(e.estimator == "fqe" and e.identified for e in self.estimates):
            notes.append("`fqe` relies on the model alone; its interval ignores the model's bias.")
        return notes
