"""The interaction ladder as plain values, for JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crosschannel.evaluation.ladder.results import Interaction, Ladder
from crosschannel.evaluation.report.plain_values import (
    estimate_to_dict,
    finite_or_none,
    interval_to_dict,
    read_estimate,
    read_interval,
    read_number,
)


def ladder_to_dict(ladder: Ladder | None) -> dict[str, Any] | None:
    """Return the ladder as plain values; None where there is none."""
    if ladder is None:
        return None
    return {
        "factors": list(ladder.factors),
        "independence": ladder.independence,
        "order": ladder.order,
        "why": ladder.why or None,
        "orders": [estimate_to_dict(e) for e in ladder.orders],
        "totals": [_interaction(each) for each in ladder.totals],
        "pairs": [_interaction(each) for each in ladder.pairs],
        "waterfall": [
            {
                "name": step.name,
                "kind": step.kind,
                "value": interval_to_dict(step.value),
                "reason": step.reason or None,
            }
            for step in ladder.waterfall
        ],
        "breakdown": ladder.breakdown,
    }


def ladder_from_dict(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the fields of the ladder that `ladder_to_dict` wrote, for `serialization.from_dict`."""
    if data is None:
        return None
    return {
        **{name: data[name] for name in ("factors", "independence", "order", "breakdown")},
        "why": data["why"] or "",
        "orders": [read_estimate(entry) for entry in data["orders"]],
        "totals": [_read_interaction(entry) for entry in data["totals"]],
        "pairs": [_read_interaction(entry) for entry in data["pairs"]],
        "waterfall": [
            {**step, "value": read_interval(step["value"]), "reason": step["reason"] or ""}
            for step in data["waterfall"]
        ],
    }


def _interaction(each: Interaction) -> dict[str, Any]:
    return {
        "order": each.order,
        "factors": list(each.factors),
        "value": interval_to_dict(each.value),
        "p_value": finite_or_none(each.p_value),
        "reason": each.reason or None,
    }


def _read_interaction(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "order": entry["order"],
        "factors": entry["factors"],
        "value": read_interval(entry["value"]),
        "p_value": read_number(entry["p_value"]),
        "reason": entry["reason"] or "",
    }
