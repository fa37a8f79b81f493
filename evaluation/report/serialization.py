"""The evaluation as plain values, for JSON, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from crosschannel.core import serialization
from crosschannel.evaluation.bootstrap import UNDEFINED, Interval
from crosschannel.evaluation.report.formatting import propensity_label
from crosschannel.evaluation.report.sentences import caveats, module_effects, verdict
from crosschannel.evaluation.results import Estimate, Evaluation


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as plain values; what is not a finite number is None, with the reason beside it."""
    return {
        "policy": evaluation.policy,
        "log": evaluation.log,
        "propensities": propensity_label(evaluation.propensity_counts),
        "propensity_counts": dict(evaluation.propensity_counts),
        "population": evaluation.population,
        "decisions": evaluation.decisions,
        "logged_decisions": evaluation.logged_decisions,
        "users": evaluation.users,
        "reward_counts": dict(evaluation.reward_counts),
        "reward_refitted": evaluation.refitted,
        "reward_dropped_share": _finite(evaluation.dropped_share),
        "min_p_uncensored": _finite(evaluation.min_p_uncensored),
        "settings": asdict(evaluation.settings),
        "interval": "Student's t with the standard error of a bootstrap over users",
        "logged": _interval(evaluation.logged),
        "estimates": [_estimate(e) for e in evaluation.estimates],
        "verdict": verdict(evaluation),
        "module_effects": module_effects(evaluation),
        "caveats": caveats(evaluation),
    }


def _estimate(e: Estimate) -> dict[str, Any]:
    return {
        "estimand": e.estimand,
        "module": e.module,
        "estimator": e.estimator,
        "identified": e.identified,
        "reason": e.reason or None,
        "value": _interval(e.value),
        "difference": _interval(e.difference),
        "decisions": e.decisions,
        "users": e.users,
        "support": {name: _finite(x) for name, x in asdict(e.support).items()},
    }


def _interval(interval: Interval) -> dict[str, Any] | None:
    return asdict(interval) if interval.is_defined else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def from_dict(data: Mapping[str, Any]) -> Evaluation:
    """Return the evaluation that `to_dict` turned into plain values; what is None becomes NaN.

    Raises:
        ConfigError: If a value is of another type.
    """
    fields = ("policy", "log", "decisions", "users", "propensity_counts", "reward_counts", "settings")
    values = {
        **{name: data[name] for name in fields},
        "logged": _read_interval(data["logged"]),
        "estimates": [_read_estimate(entry) for entry in data["estimates"]],
        "refitted": data["reward_refitted"],
        "dropped_share": _read_number(data["reward_dropped_share"]),
        "min_p_uncensored": _read_number(data["min_p_uncensored"]),
    }
    return serialization.from_dict(Evaluation, values, "evaluation")


def _read_estimate(entry: Mapping[str, Any]) -> dict[str, Any]:
    fields = ("estimand", "module", "estimator", "decisions", "users")
    return {
        **{name: entry[name] for name in fields},
        "value": _read_interval(entry["value"]),
        "difference": _read_interval(entry["difference"]),
        "support": {name: _read_number(value) for name, value in entry["support"].items()},
        "reason": entry["reason"] or "",
    }


def _read_interval(entry: Mapping[str, float] | None) -> Mapping[str, float]:
    return asdict(UNDEFINED) if entry is None else entry


def _read_number(value: float | None) -> Any:
    return math.nan if value is None else value
