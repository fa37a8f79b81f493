"""The evaluation of a policy over several slots as plain values, for JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from crosschannel.core import serialization
from crosschannel.evaluation.report.plain_values import finite_or_none, interval_to_dict, read_interval, read_number
from crosschannel.evaluation.sequential.results import TrajectoryEstimate, TrajectoryEvaluation


def trajectories_to_dict(evaluation: TrajectoryEvaluation) -> dict[str, Any]:
    """Return the evaluation as plain values; what is not a finite number is None, with the reason beside it."""
    return {
        "estimand": evaluation.estimand,
        "about": evaluation.about,
        "users": evaluation.users,
        "excluded": evaluation.excluded,
        "refitted": evaluation.refitted,
        "dropped_share": finite_or_none(evaluation.dropped_share),
        "settings": asdict(evaluation.settings),
        "logged": interval_to_dict(evaluation.logged),
        "estimates": [estimate_to_dict(each) for each in evaluation.estimates],
        "slots": [
            {"active": active, "support": {name: finite_or_none(x) for name, x in asdict(support).items()}}
            for active, support in zip(evaluation.active, evaluation.slots, strict=True)
        ],
    }


def trajectories_from_dict(data: Mapping[str, Any]) -> TrajectoryEvaluation:
    """Return the evaluation that `trajectories_to_dict` turned into plain values; what is None becomes NaN.

    Raises:
        ConfigError: If a value is of another type.
    """
    values = {
        **data,
        "dropped_share": read_number(data["dropped_share"]),
        "logged": read_interval(data["logged"]),
        "estimates": [_estimate_fields(each) for each in data["estimates"]],
        "slots": [{name: read_number(x) for name, x in slot["support"].items()} for slot in data["slots"]],
        "active": [slot["active"] for slot in data["slots"]],
    }
    return serialization.from_dict(TrajectoryEvaluation, values, "trajectories")


def estimate_to_dict(estimate: TrajectoryEstimate) -> dict[str, Any]:
    """Return one estimate as plain values."""
    return {
        "estimator": estimate.estimator,
        "identified": estimate.identified,
        "reason": estimate.reason or None,
        "value": interval_to_dict(estimate.value),
        "difference": interval_to_dict(estimate.difference),
    }


def estimate_from_dict(data: Mapping[str, Any]) -> TrajectoryEstimate:
    """Return the estimate that `estimate_to_dict` turned into plain values.

    Raises:
        ConfigError: If a value is of another type.
    """
    return serialization.from_dict(TrajectoryEstimate, _estimate_fields(data), "trajectories")


def _estimate_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "estimator": data["estimator"],
        "reason": data["reason"] or "",
        "value": read_interval(data["value"]),
        "difference": read_interval(data["difference"]),
    }
