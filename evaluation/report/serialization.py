"""The evaluation as plain values, for JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from crosschannel.core import serialization
from crosschannel.core.errors import ConfigError
from crosschannel.evaluation.report.formatting import propensity_label
from crosschannel.evaluation.report.ladder_serialization import ladder_from_dict, ladder_to_dict
from crosschannel.evaluation.report.plain_values import (
    estimate_to_dict,
    finite_or_none,
    interval_to_dict,
    read_estimate,
    read_interval,
    read_number,
)
from crosschannel.evaluation.report.sentences import caveats, headline, module_effects, verdict
from crosschannel.evaluation.results import Evaluation

#: Raise it when a key changes its meaning or is left out.
SCHEMA = 2


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as plain values; what is not a finite number is None, with the reason beside it."""
    return {
        "schema": SCHEMA,
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
        "reward_dropped_share": finite_or_none(evaluation.dropped_share),
        "min_p_uncensored": finite_or_none(evaluation.min_p_uncensored),
        "settings": asdict(evaluation.settings),
        "interval": "Student's t with the standard error of a bootstrap over users",
        "logged": interval_to_dict(evaluation.logged),
        "headline": estimate_to_dict(headline(evaluation)),
        "ladder": ladder_to_dict(evaluation.ladder),
        "no_ladder": evaluation.no_ladder or None,
        "estimates": [estimate_to_dict(e) for e in evaluation.estimates],
        "verdict": verdict(evaluation),
        "module_effects": module_effects(evaluation),
        "caveats": caveats(evaluation),
    }


def from_dict(data: Mapping[str, Any]) -> Evaluation:
    """Return the evaluation that `to_dict` turned into plain values; what is None becomes NaN.

    Raises:
        ConfigError: If the schema is another one, a value is of another type, or the whole action's is absent.
    """
    if data.get("schema") != SCHEMA:
        raise ConfigError(f"the evaluation has the schema {data.get('schema')!r}, not {SCHEMA}: evaluate again")
    fields = ("policy", "log", "decisions", "users", "propensity_counts", "reward_counts", "settings")
    values = {
        **{name: data[name] for name in fields},
        "logged": read_interval(data["logged"]),
        "estimates": [read_estimate(entry) for entry in data["estimates"]],
        "ladder": ladder_from_dict(data["ladder"]),
        "no_ladder": data["no_ladder"] or "",
        "refitted": data["reward_refitted"],
        "dropped_share": read_number(data["reward_dropped_share"]),
        "min_p_uncensored": read_number(data["min_p_uncensored"]),
    }
    evaluation = serialization.from_dict(Evaluation, values, "evaluation")
    if all(e.module is not None for e in evaluation.estimates):
        raise ConfigError("the evaluation has no estimate of the whole action")
    if (ladder := evaluation.ladder) is not None:
        if not 0 < ladder.order < len(ladder.orders):
            raise ConfigError(f"the evaluation's ladder has no order {ladder.order}")
        if not {"logged", "channel", "policy"} <= {step.kind for step in ladder.waterfall}:
            raise ConfigError("the evaluation's ladder has no steps from the log to the policy")
    return evaluation
