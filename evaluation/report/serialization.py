"""The evaluation as plain values, for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.report.formatting import PROPENSITY_LABELS
from crosschannel.evaluation.report.sentences import caveats, module_effects, verdict
from crosschannel.evaluation.results import Estimate, Evaluation


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as plain values; what is not a finite number is None, with the reason beside it."""
    return {
        "policy": evaluation.policy,
        "log": evaluation.log,
        "propensities": PROPENSITY_LABELS[evaluation.propensity_source],
        "decisions": evaluation.decisions,
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
