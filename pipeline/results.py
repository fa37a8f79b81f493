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
from crosschannel.evaluation import Evaluation, from_dict, text_table, to_dict
from crosschannel.reward import RewardLosses

#: Raise it when a stored result could no longer be what the program would find.
RESULT_VERSION = 2


@dataclass(frozen=True)
class TrueValue:
    """The true value of one policy, known because the market is simulated.

    Attributes:
        policy: The policy's name.
        per_decision: Mean true effect per decision with a reward at the test users' logged decisions, weighted as in
            the off-policy estimates: their estimand.
        per_user: Mean incremental goal value per fresh user over the market's days.
        per_user_se: Its standard error over users.
        lift: `per_user` as a share of what happens with nothing sent; NaN where that is nothing.
        sends_per_user: Mean number of messages per user.
        unsubscribed: Share of the users who unsubscribed.
        users: Number of fresh users.
    """

    policy: str
    per_decision: float
    per_user: float
    per_user_se: float
    lift: float
    sends_per_user: float
    unsubscribed: float
    users: int


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
    """

    evaluation: Evaluation
    truth: tuple[TrueValue, ...]
    policy_table: pd.DataFrame
    history: str
    notes: tuple[str, ...] = ()
    losses: Mapping[str, RewardLosses] = field(default_factory=dict)

    def __str__(self) -> str:
        return summary_text(self)

    def metrics(self) -> dict[str, Any]:
        """Return the values as plain numbers, for `metrics.json`; what is not identified is None, with its reason."""
        truth = [{name: _finite(value) for name, value in asdict(row).items()} for row in self.truth]
        rewards = {whose: _losses_to_dict(losses) for whose, losses in self.losses.items()}
        return {"evaluation": to_dict(self.evaluation), "rewards": rewards, "truth": truth}

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
                tuple[TrueValue, ...], [row | {"lift": _number(row["lift"])} for row in data["truth"]], "truth"
            ),
            policy_table=pd.read_csv(io.StringIO(data["policy_table"]), keep_default_na=False, na_values=[""]),
            history=convert(str, data["history"], "history"),
            notes=convert(tuple[str, ...], data["notes"], "notes"),
            losses={whose: _losses_from_dict(entry) for whose, entry in data["rewards"].items()},
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
    if result.truth:
        table = truth_table(result.truth, result.evaluation.population)
        parts += ["", "Ground truth, known because the market is simulated", "", table]
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
    widths = [max(len(row[j]) for row in rows) for j in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    users = values[0].users
    notes = [
        f"* mean true effect per decision with a reward: the test users' {population}, as in the off-policy estimate",
        f"** true incremental goal value when deployed to {users:,} fresh users, with its 95 % margin",
    ]
    return "\n".join([*lines, *notes])


def _losses_to_dict(losses: RewardLosses) -> dict[str, Any]:
    return {
        "decisions": losses.decisions,
        "lost_share": losses.share,
        "lost": [asdict(each) for each in losses.lost],
        "warning": losses.warning or None,
    }


def _losses_from_dict(data: Mapping[str, Any]) -> RewardLosses:
    return serialization.from_dict(RewardLosses, {name: data[name] for name in ("decisions", "lost")}, "rewards")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
