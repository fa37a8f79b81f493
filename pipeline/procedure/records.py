"""The value of a learning procedure as a record, as plain values for JSON and back, and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crosschannel.core import serialization
from crosschannel.core.wording import counted
from crosschannel.evaluation import Evaluation, Interval, from_dict, headline, to_dict
from crosschannel.evaluation.report.formatting import align, why_not
from crosschannel.evaluation.report.ladder_text import NO_ASSUMPTION
from crosschannel.evaluation.report.plain_values import interval_to_dict, read_interval, read_number
from crosschannel.pipeline.judgement.records import Comparator, ConstraintUse

#: What the interval of the value contains, and what it does not.
INTERVAL = (
    "The interval is over users and holds the policies as they are: rewards are fitted again in its replicates, agents "
    "are not. It is about the mean value of these policies, and does not contain what other users to learn from would "
    "have changed. Users who judge one policy have taught the others: its error is right where one user changes what "
    "is learned little."
)
#: Why the verdict does not use it.
NOT_OF_THE_POLICY = (
    "It is the value of the learning procedure and not of the policy in the run, so that the verdict does not rest on "
    "it. Its lower bound is one for the policy only if the policy is worth at least as much as the mean of these "
    "policies: if it has learned in the same way from no fewer users, and policies so learned differ little in value."
)


@dataclass(frozen=True)
class FoldValue:
    """The policy that learned without one fold, judged by it.

    Attributes:
        fold: Number of the fold, from 1.
        learned_from: Users that the policy has learned from.
        users: Users with a reward who judge it.
        decisions: Their decisions with a reward.
        difference: Its mean reward minus that of the log there, by importance weights with a constant baseline at the
            order of the headline; NaN where not identified.
        reason: Why it is not identified; empty where it is.
        truth: Its mean true effect per decision with a reward; NaN where unknown.
    """

    fold: int
    learned_from: int
    users: int
    decisions: int
    difference: Interval
    reason: str = ""
    truth: float = math.nan


@dataclass(frozen=True)
class ProcedureValue:
    """The value of a learning procedure: the mean over K policies, each at the users that it has not learned from.

    Attributes:
        evaluation: The estimates, from all users.
        by_fold: Each policy by itself.
        difference_p: p-value of the test that all policies differ from the log by the same; NaN where fewer than two
            are identified.
        comparators: The policies that it is compared with, chosen on the users that teach in each fold.
        constraints: Price, use and budget of each constraint, at all users' slots.
        truth: Mean true effect per decision of the K policies; NaN where unknown.
    """

    evaluation: Evaluation
    by_fold: tuple[FoldValue, ...]
    difference_p: float = math.nan
    comparators: tuple[Comparator, ...] = ()
    constraints: tuple[ConstraintUse, ...] = ()
    truth: float = math.nan

    @property
    def folds(self) -> int:
        """Number of folds K."""
        return len(self.by_fold)

    @property
    def estimand(self) -> str:
        """What the value is, in words."""
        return estimand_of(self.folds)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; what is not a finite number is None."""
        folds = [
            serialization.finite_values(asdict(each)) | {"difference": interval_to_dict(each.difference)}
            for each in self.by_fold
        ]
        return {
            "estimand": self.estimand,
            "interval": INTERVAL,
            "not_of_the_policy": NOT_OF_THE_POLICY,
            "folds": self.folds,
            "evaluation": to_dict(self.evaluation),
            "by_fold": folds,
            "difference_p": None if math.isnan(self.difference_p) else self.difference_p,
            "comparators": [each.to_dict() for each in self.comparators],
            "constraints": [asdict(each) for each in self.constraints],
            "truth": None if math.isnan(self.truth) else self.truth,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProcedureValue:
        """Return what `to_dict` turned into plain values; what is None becomes NaN.

        Raises:
            ConfigError: If a value is of another type.
        """
        folds = [
            {**each, "difference": read_interval(each["difference"]), "truth": read_number(each["truth"])}
            for each in data["by_fold"]
        ]
        return cls(
            evaluation=from_dict(data["evaluation"]),
            by_fold=serialization.convert(tuple[FoldValue, ...], folds, "procedure"),
            difference_p=read_number(data["difference_p"]),
            comparators=tuple(map(Comparator.from_dict, data["comparators"])),
            constraints=serialization.convert(tuple[ConstraintUse, ...], data["constraints"], "procedure"),
            truth=read_number(data["truth"]),
        )


def name_of(agent: str, folds: int) -> str:
    """Return what stands for the policy where the learning procedure is valued."""
    return f"the learning procedure ({folds} policies of {agent})"


def estimand_of(folds: int) -> str:
    """Return what is estimated, in words."""
    return (
        f"the value of the learning procedure: the mean over {folds} policies, each learned from {1 - 1 / folds:.0%} "
        "of the users and judged by the others; not the value of the policy in the run"
    )


def fold_columns(level: str, folds: Sequence[FoldValue]) -> tuple[str, ...]:
    """Return the names of the columns of a table of folds; the true effect is left out where none is known."""
    columns = ("fold", "learned from", "judged by", "decisions", "difference to the log", level)
    return (*columns, "true effect") if any(math.isfinite(each.truth) for each in folds) else columns


def fold_cells(value: FoldValue, columns: int) -> tuple[str, ...]:
    """Return a fold as texts, one for each of `fold_columns`."""
    d = value.difference
    shown = (f"{d.point:+.4g}", f"[{d.low:.4g}, {d.high:.4g}]") if d.is_defined else ("not identified", value.reason)
    users = (f"{counted(value.learned_from, 'user')}", f"{counted(value.users, 'user')}", f"{value.decisions:,}")
    return (str(value.fold), *users, *shown, f"{value.truth:.4f}")[:columns]


def spread_sentence(value: ProcedureValue) -> str:
    """Return whether the policies differ in value by more than chance, as a sentence; empty where nothing tells."""
    if math.isnan(value.difference_p):
        return ""
    p = "below .001" if value.difference_p < 0.001 else f"{value.difference_p:.2g}"
    if value.difference_p < 0.05:
        return f"The policies differ in value by more than chance (p {p}): one may be worth less than their mean."
    return f"The policies do not differ in value by more than chance (p {p})."


def in_short(value: ProcedureValue) -> str:
    """Return the value and its difference to the log in a line."""
    best = headline(value.evaluation)
    if not best.identified:
        return why_not(best.reason)
    v, d = best.value, best.difference
    return (
        f"{v.point:+.4g} [{v.low:.4g}, {v.high:.4g}] per decision with a reward, difference to the log {d.point:+.4g} "
        f"[{d.low:.4g}, {d.high:.4g}]"
    )


def procedure_text(value: ProcedureValue) -> str:
    """Return the value as text for the terminal, but for what it is compared with."""
    best = headline(value.evaluation)
    level = f"{value.evaluation.settings.confidence_level:.0%}"
    columns = fold_columns(level, value.by_fold)
    lines = [
        f"Learning procedure: {in_short(value)}",
        f"It is {value.estimand}; right {best.assumption or NO_ASSUMPTION}.",
    ]
    if math.isfinite(value.truth):
        lines.append(f"True value, known because the market is simulated: {value.truth:+.4g}")
    lines += ["", *align([columns, *(fold_cells(each, len(columns)) for each in value.by_fold)]), ""]
    return "\n".join([*lines, *filter(None, (spread_sentence(value), INTERVAL, NOT_OF_THE_POLICY))])
