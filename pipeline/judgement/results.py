"""The result of judging a policy: as an object, as plain values for JSON and back, and as text of its tables."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from crosschannel.core import serialization
from crosschannel.core.serialization import convert
from crosschannel.evaluation import Evaluation, GateVerdict, from_dict, headline_text, text_table, to_dict
from crosschannel.evaluation.report.plain_values import read_number
from crosschannel.pipeline.judgement.following import FollowedPolicy, followed_text, followed_title
from crosschannel.pipeline.judgement.records import Calibration, Comparator, ConstraintUse, Evidence, TrueValue
from crosschannel.pipeline.judgement.tables import (
    comparators_table,
    comparators_title,
    constraints_in_words,
    constraints_table,
    truth_table,
)
from crosschannel.pipeline.procedure.records import ProcedureValue, procedure_text
from crosschannel.reward import RewardLosses

#: Raise it when a stored result could no longer be what the program would find.
RESULT_VERSION = 13


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

    def details(self) -> str:
        """Return what the summary (`str`) leaves out, as text: every estimate and its support."""
        return details_text(self)

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
    """Return the verdict, what it rests on and what supports or contradicts it, as text for the terminal."""
    warnings = [f"Warning, {whose} decisions: {each.warning}" for whose, each in result.losses.items() if each.warning]
    evaluation = result.evaluation
    parts = [
        *([str(result.gate), ""] if result.gate is not None else []),
        *result.notes,
        *warnings,
        *([""] if result.notes or warnings else []),
        "Off-policy estimate, from the log alone",
        "",
        headline_text(evaluation),
    ]
    if result.comparators:
        title = comparators_title(evaluation, constrained=bool(result.constraints))
        parts += ["", title, "", comparators_table(result.comparators)]
    if result.followed is not None:
        parts += ["", followed_title(result.followed), "", followed_text(result.followed)]
    if result.procedure is not None:
        parts += ["", "The learning procedure, from all users", "", procedure_text(result.procedure)]
        if result.procedure.comparators:
            parts += ["", "Other policies on all users; constants are those of the users who teach in each fold", ""]
            parts.append(comparators_table(result.procedure.comparators))
    if result.constraints:
        parts += ["", f"Constraints: {constraints_in_words(evaluation)}", "", constraints_table(result.constraints)]
    if result.truth:
        table = truth_table(result.truth, evaluation.population)
        parts += ["", "Ground truth, known because the market is simulated", "", table]
    if result.advice:
        parts += ["", "What would identify the value", "", *result.advice]
    return "\n".join(parts)


def details_text(result: EvaluationResult) -> str:
    """Return every estimate, the decisions without a reward and the funnel's calibration, as text for the terminal."""
    parts = [
        *(losses.text(whose) for whose, losses in result.losses.items()),
        "",
        "Every off-policy estimate, from the log alone",
        "",
        text_table(result.evaluation),
    ]
    if result.calibration is not None:
        parts += ["", str(result.calibration)]
    return "\n".join(parts)


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
