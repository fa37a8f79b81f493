"""The result of judging a policy: as an object, as plain values for JSON and back, and as text."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from crosschannel.core import serialization
from crosschannel.core.serialization import convert
from crosschannel.core.wording import counted
from crosschannel.evaluation import Evaluation, GateVerdict, Interval, from_dict, text_table, to_dict
from crosschannel.evaluation.report.formatting import reasons_once, why_not
from crosschannel.evaluation.report.plain_values import read_number
from crosschannel.pipeline.judgement.evidence_records import Evidence
from crosschannel.pipeline.judgement.following import FollowedPolicy, followed_text, followed_title
from crosschannel.pipeline.judgement.records import Calibration, Comparator, ConstraintUse, TrueValue
from crosschannel.pipeline.procedure.records import ProcedureValue, procedure_text
from crosschannel.reward import RewardLosses

#: Raise it when a stored result could no longer be what the program would find.
RESULT_VERSION = 12


@dataclass(frozen=True)
class EvaluationResult:
    """What is known of a run's policy.

    Attributes:
        evaluation: Off-policy estimates on the test users.
        truth: True values by policy, the run's own first; empty where the history is not simulated.
        policy_table: What the policy does, by module, action and segment of users: see `agents.policy_table`.
        history: Summary of the log that the evaluation rests on.
        notes: What a reader has to know before the numbers, such as that the log is not the one of the training.
        losses: The decisions of the training and of the test users that have no reward, by `training` and `test`.
        constraints: Price, use and budget of each constraint at the test users' slots.
        calibration: Calibration of the agent's funnel; None without one.
        comparators: The policies that it is compared with.
        gate: The verdict by the configuration's rule.
        advice: What would identify the value, where the log does not.
        evidence: What the policy does beside the log, where its weights lie, and how its agent's estimates are
            calibrated.
        followed: The value of the policy over the episodes of `evaluation.trajectories`; None where there are none.
        procedure: The value of the learning procedure by `evaluation.procedure`; None where it was not asked for.
    """

    evaluation: Evaluation
    truth: tuple[TrueValue, ...]
    policy_table: pd.DataFrame
    history: str
    notes: tuple[str, ...] = ()
    losses: Mapping[str, RewardLosses] = field(default_factory=dict)
    constraints: tuple[ConstraintUse, ...] = ()
    calibration: Calibration | None = None
    comparators: tuple[Comparator, ...] = ()
    gate: GateVerdict | None = None
    advice: tuple[str, ...] = ()
    evidence: Evidence = field(default_factory=Evidence)
    followed: FollowedPolicy | None = None
    procedure: ProcedureValue | None = None

    def __str__(self) -> str:
        return summary_text(self)

    def metrics(self) -> dict[str, Any]:
        """Return the values as plain numbers, for `metrics.json`; what is not identified is None, with its reason."""
        truth = [serialization.finite_values(asdict(row)) for row in self.truth]
        rewards = {whose: _losses_to_dict(losses) for whose, losses in self.losses.items()}
        return {
            "evaluation": to_dict(self.evaluation),
            "rewards": rewards,
            "truth": truth,
            "constraints": [asdict(row) for row in self.constraints],
            "calibration": None if self.calibration is None else serialization.finite_values(asdict(self.calibration)),
            "comparators": [each.to_dict() for each in self.comparators],
            "gate": None if self.gate is None else self.gate.to_dict(),
            "advice": list(self.advice),
            "evidence": self.evidence.to_dict(),
            "followed": None if self.followed is None else self.followed.to_dict(),
            "procedure": None if self.procedure is None else self.procedure.to_dict(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for `evaluation.json`."""
        return {
            **self.metrics(),
            "version": RESULT_VERSION,
            "history": self.history,
            "notes": list(self.notes),
            "policy_table": self.policy_table.to_csv(index=False),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EvaluationResult:
        """Return the result that `to_dict` turned into plain values.

        Raises:
            ConfigError: If a value is of another type.
        """
        return cls(
            evaluation=from_dict(data["evaluation"]),
            truth=convert(
                tuple[TrueValue, ...], [row | {"lift": read_number(row["lift"])} for row in data["truth"]], "truth"
            ),
            policy_table=pd.read_csv(io.StringIO(data["policy_table"]), keep_default_na=False, na_values=[""]),
            history=convert(str, data["history"], "history"),
            notes=convert(tuple[str, ...], data["notes"], "notes"),
            losses={whose: _losses_from_dict(entry) for whose, entry in data["rewards"].items()},
            constraints=convert(tuple[ConstraintUse, ...], data["constraints"], "constraints"),
            calibration=_calibration_from_dict(data["calibration"]),
            comparators=tuple(map(Comparator.from_dict, data["comparators"])),
            gate=None if data["gate"] is None else GateVerdict.from_dict(data["gate"]),
            advice=convert(tuple[str, ...], data["advice"], "advice"),
            evidence=Evidence.from_dict(data["evidence"]),
            followed=None if data["followed"] is None else FollowedPolicy.from_dict(data["followed"]),
            procedure=None if data["procedure"] is None else ProcedureValue.from_dict(data["procedure"]),
        )


def summary_text(result: EvaluationResult) -> str:
    """Return the estimates, and where the market is simulated the true values, as text for the terminal."""
    lost = [losses.text(whose) for whose, losses in result.losses.items()]
    warnings = [f"Warning, {whose} decisions: {each.warning}" for whose, each in result.losses.items() if each.warning]
    parts = [
        *result.notes,
        "",
        *lost,
        *warnings,
        "",
        "Off-policy estimate, from the log alone",
        "",
        text_table(result.evaluation),
    ]
    if result.comparators:
        parts += ["", comparators_title(result), "", comparators_table(result.comparators)]
    if result.followed is not None:
        parts += ["", followed_title(result.followed), "", followed_text(result.followed)]
    if result.procedure is not None:
        parts += ["", "The learning procedure, from all users", "", procedure_text(result.procedure)]
        if result.procedure.comparators:
            parts += ["", "Other policies on all users; constants are those of the users who teach in each fold", ""]
            parts.append(comparators_table(result.procedure.comparators))
    if result.calibration is not None:
        parts += ["", str(result.calibration)]
    if result.constraints:
        parts += ["", f"Constraints: {constraints_in_words(result)}", "", constraints_table(result.constraints)]
    if result.truth:
        table = truth_table(result.truth, result.evaluation.population)
        parts += ["", "Ground truth, known because the market is simulated", "", table]
    if result.advice:
        parts += ["", "What would identify the value", "", *result.advice]
    if result.gate is not None:
        parts += ["", str(result.gate)]
    return "\n".join(parts)


def truth_table(values: Sequence[TrueValue], population: str) -> str:
    """Return the true value of each policy as a table.

    Args:
        values: The values.
        population: The decisions that the values per decision are means over: `Evaluation.population`.
    """
    head = ("policy", "per decision*", "per user**", "+-", "lift", "of the oracle", "messages", "unsubscribed")
    best = next(value.per_user for value in values if value.policy == "oracle")
    rows = [head]
    for value in values:
        rows.append(
            (
                value.policy,
                f"{value.per_decision:.4f}",
                f"{value.per_user:.3f}",
                f"{1.96 * value.per_user_se:.3f}" if value.per_user_se > 0 else "",
                f"{value.lift:+.1%}" if math.isfinite(value.lift) else "-",
                f"{value.per_user / best:.0%}" if best > 0 else "-",
                f"{value.sends_per_user:.1f}",
                f"{value.unsubscribed:.1%}",
            )
        )
    lines = _aligned(rows)
    users = values[0].users
    notes = [
        f"* mean true effect per decision with a reward: the test users' {population}, as in the off-policy estimate",
        f"** true incremental goal value when deployed to {users:,} fresh users, with its 95 % margin",
    ]
    return "\n".join([*lines, *notes])


#: The columns of a table of comparators.
COMPARATOR_COLUMNS = ("policy", "value", "difference to the log", "the policy minus it", "ESS", "true effect")


def comparators_title(result: EvaluationResult) -> str:
    """Return what the table of comparators holds, in words."""
    limits = "; of them only `greedy` keeps the constraints" if result.constraints else ""
    ladder = result.evaluation.ladder
    order = "" if ladder is None else f", at order {ladder.order} as the headline"
    return f"Other policies on the same users{order}; constants were chosen on the training users{limits}"


def comparator_cells(row: Comparator) -> tuple[str, ...]:
    """Return a comparator as texts, one for each of `COMPARATOR_COLUMNS`."""
    name = f"{row.policy}: {row.detail}" if row.detail and "," not in row.detail else row.policy
    truth = f"{row.truth:.4f}" if math.isfinite(row.truth) else "-"
    size = f"{row.ess:,.0f}" if math.isfinite(row.ess) else "-"
    if row.reason:
        return (name, why_not(row.reason), "", "", size, truth)
    intervals = (row.value, row.difference, row.lead)
    shown = (f"{each.point:.4f} {_bounds(each)}" if each.is_defined else "-" for each in intervals)
    return (name, *shown, size, truth)


def comparators_table(rows: Sequence[Comparator]) -> str:
    """Return comparators as a table; the column of true effects is left out where none is known."""
    cells = reasons_once([COMPARATOR_COLUMNS, *map(comparator_cells, rows)])
    if not any(math.isfinite(row.truth) for row in rows):
        cells = [row[:-1] for row in cells]
    return "\n".join([*_aligned(cells), *constants_in_words(rows)])


def constants_in_words(rows: Sequence[Comparator]) -> list[str]:
    """Return a line for each comparator that always chooses the same whole action."""
    return [f"{row.policy}: {row.detail}" for row in rows if "," in row.detail]


def _bounds(interval: Interval) -> str:
    return f"[{interval.low:.4f}, {interval.high:.4f}]"


#: The columns of a table of constraints.
CONSTRAINT_COLUMNS = ("constraint", "shadow price", "expected use", "budget", "binds at")


def constraints_in_words(result: EvaluationResult) -> str:
    """Return what the numbers in a table of constraints count, over which decisions and users, in which units."""
    found = result.evaluation
    return (
        "expected use and budget are numbers of events or of messages, or costs of a budget, of the test users' "
        f"{counted(found.logged_decisions, 'decision')} in all ({counted(found.users, 'user')} with a reward); a "
        "shadow price is what one more of it is worth, in reward units"
    )


def constraint_cells(row: ConstraintUse) -> tuple[str, ...]:
    """Return a constraint as texts, one for each of `CONSTRAINT_COLUMNS`."""
    numbers = (f"{row.price:.4g}", f"{row.use:.4g}", f"{row.budget:.4g}")
    return (row.name, *numbers, f"{row.binding:.0%} of {row.decision_times:,} decision times")


def constraints_table(constraints: Sequence[ConstraintUse]) -> str:
    """Return the shadow price, use and budget of constraints as a table."""
    return "\n".join(_aligned([CONSTRAINT_COLUMNS, *map(constraint_cells, constraints)]))


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _losses_to_dict(losses: RewardLosses) -> dict[str, Any]:
    return {
        "decisions": losses.decisions,
        "lost_share": losses.share,
        "lost": [asdict(each) for each in losses.lost],
        "warning": losses.warning or None,
    }


def _losses_from_dict(data: Mapping[str, Any]) -> RewardLosses:
    return serialization.from_dict(RewardLosses, {name: data[name] for name in ("decisions", "lost")}, "rewards")


def _calibration_from_dict(data: Mapping[str, float | None] | None) -> Calibration | None:
    if data is None:
        return None
    return serialization.from_dict(Calibration, serialization.number_values(data), "calibration")
