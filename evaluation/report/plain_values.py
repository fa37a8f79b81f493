"""Numbers, intervals and estimates as plain values, for JSON, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from crosschannel.evaluation.bootstrap import UNDEFINED, Interval
from crosschannel.evaluation.estimates import Estimate


def estimate_to_dict(e: Estimate) -> dict[str, Any]:
    """Return an estimate as plain values."""
    return {
        "estimand": e.estimand,
        "module": e.module,
        "estimator": e.estimator,
        "identified": e.identified,
        "reason": e.reason or None,
        "assumption": e.assumption or None,
        "value": interval_to_dict(e.value),
        "difference": interval_to_dict(e.difference),
        "decisions": e.decisions,
        "users": e.users,
        "support": {name: finite_or_none(x) for name, x in asdict(e.support).items()},
    }


def interval_to_dict(interval: Interval) -> dict[str, Any] | None:
    """Return an interval as plain values; None where it is undefined."""
    return asdict(interval) if interval.is_defined else None


def finite_or_none(value: float) -> float | None:
    """Return a number, or None where it is not finite."""
    return value if math.isfinite(value) else None


def read_estimate(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an estimate that `estimate_to_dict` wrote."""
    fields = ("estimand", "module", "estimator", "decisions", "users")
    return {
        **{name: entry[name] for name in fields},
        "value": read_interval(entry["value"]),
        "difference": read_interval(entry["difference"]),
        "support": {name: read_number(value) for name, value in entry["support"].items()},
        "reason": entry["reason"] or "",
        "assumption": entry["assumption"] or "",
    }


def read_interval(entry: Mapping[str, float] | None) -> Mapping[str, float]:
    """Return the fields of an interval that `interval_to_dict` wrote."""
    return asdict(UNDEFINED) if entry is None else entry


def read_number(value: float | None) -> Any:
    """Return a number that `finite_or_none` wrote."""
    return math.nan if value is None else value
