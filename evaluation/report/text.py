"""The evaluation in words, as a plain table for the terminal and as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from evaluation.bootstrap import Interval
from evaluation.results import Estimate, Evaluation

LARGE_SHARE = 0.05
#: What a table of the support begins with, as text and as a page.
SUPPORT = ("policy chooses", "decisions", "ESS", "ESS of users", "kurtosis", "largest weight")
SOURCES = {
    "logged": "logged propensities",
    "by design": "propensities by design",
    "estimated": "estimated propensities",
    "missing": "no propensities",
}


def headline(evaluation: Evaluation) -> Estimate:
    """The estimate that answers for the policy as a whole: doubly robust where there is a model, else SNIPS.

    Never the direct method if there is another: its word alone is not evidence. If the log identifies no weighted
    estimate of the whole action, it is the first of these that is not identified.
    """
    order = {name: rank for rank, name in enumerate(("dr", "snips", "ips", "switch-dr"))}
    joint = [e for e in evaluation.estimates if e.module is None]
    return min(joint, key=lambda e: (e.estimator == "dm", not e.identified, order.get(e.estimator, len(order))))


def findings(evaluation: Evaluation) -> list[str]:
    """What the numbers say and what they do not, one plain sentence each, the answer first."""
    best = headline(evaluation)
    out = [_verdict(evaluation, best)]
    if not best.identified:
        out += [
            f"Alone, the policy's {e.module} would change the mean reward by {number(e.difference)}, interval "
            f"{bounds(e.difference)}" + (", which includes zero." if e.difference.contains(0.0) else ".")
            for e in evaluation.estimates
            if e.module is not None and e.estimator == best.estimator and e.identified
        ]
    if evaluation.propensity_source == "estimated":
        out.append("The weights rest on estimated propensities: their error is not in the intervals.")
    total = sum(evaluation.reward_counts.values())
    if evaluation.decisions < total:
        out.append(
            f"{total - evaluation.decisions:,} of {total:,} decisions have no reward and are left out: "
            "every value is about the others."
        )
    if not evaluation.refitted:
        out.append("The rewards were held fixed in the bootstrap: their own error is not in the intervals.")
    elif evaluation.lost > 0.01:
        out.append(
            f"In an average replicate {evaluation.lost:.1%} of the rewards are not identified: some calendar cells "
            "have hardly enough controls."
        )
    if evaluation.least_kept < 1:
        out.append(
            "Where a later message could take a reward away, decisions that kept theirs stand for those that did not, "
            f"by the inverse of their chance (at least {evaluation.least_kept:.2g}): values are of the action with "
            "nothing sent in the rest of the window."
        )
    for e in _one_each(evaluation):
        s = e.support
        share = s.largest_weight / (s.decisions * s.mean_weight) if s.decisions and s.mean_weight else math.nan
        if share > LARGE_SHARE:
            out.append(f"One decision carries {share:.0%} of the weight of {_place(e)}: its values hang on it.")
    if any(e.estimator == "dm" and e.identified for e in evaluation.estimates):
        out.append("dm is the outcome model's opinion: its interval lacks the model's error and may miss the truth.")
    return out


def _verdict(evaluation: Evaluation, e: Estimate) -> str:
    if not e.identified:
        return f"The log does not identify the value of {evaluation.policy} ({e.reason})."
    d, level = e.difference, f"{evaluation.settings.level:.0%}"
    numbers = f"{e.estimator}: difference {number(d)}, {level} interval {bounds(d)}"
    if d.contains(0.0):
        return (
            f"The interval includes zero: the log does not show that {evaluation.policy} is better or worse than the "
            f"logged policy ({numbers})."
        )
    word = "better" if d.point > 0 else "worse"
    return f"The log shows that {evaluation.policy} is {word} than the logged policy ({numbers})."


def number(interval: Interval) -> str:
    """The value with four digits, or a dash where there is none."""
    return f"{interval.point:+.4g}" if interval.known else "-"


def bounds(interval: Interval) -> str:
    """The interval's bounds, or a dash where there are none."""
    return f"[{interval.low:.4g}, {interval.high:.4g}]" if interval.known else "-"


def _place(e: Estimate) -> str:
    return e.module or "the whole action"


def _one_each(evaluation: Evaluation) -> list[Estimate]:
    """One estimate of every estimand: the weights do not depend on the estimator."""
    return list({e.module: e for e in evaluation.estimates}.values())


def text_table(evaluation: Evaluation) -> str:
    """The evaluation as text: what was evaluated, the values, the support, what it says."""
    level = f"{evaluation.settings.level:.0%}"
    rows: list[tuple[str, ...]] = [("policy chooses", "estimator", "value", level, "minus logged", level)]
    rows.append(("the log itself", "mean", number(evaluation.logged), bounds(evaluation.logged), "", ""))
    for e in evaluation.estimates:
        if e.identified:
            cells = (number(e.value), bounds(e.value), number(e.difference), bounds(e.difference))
        else:
            cells = (f"not identified ({e.reason})", "", "", "")
        rows.append((_place(e), e.estimator, *cells))
    support: list[tuple[str, ...]] = [(*SUPPORT, "mean weight", "no support")]
    for e in _one_each(evaluation):
        s = e.support
        plain = (s.ess, s.ess_users, s.kurtosis, s.largest_weight, s.mean_weight)
        texts = [f"{x:,.0f}" for x in plain[:2]] + [f"{x:.3g}" for x in plain[2:]]
        texts = [text if math.isfinite(x) else "-" for text, x in zip(texts, plain, strict=True)]
        support.append((_place(e), f"{s.decisions:,}", *texts, f"{s.unsupported:.1%}"))
    head = (
        f"{evaluation.policy} on {evaluation.log}: {evaluation.decisions:,} decisions with a reward of "
        f"{evaluation.users:,} users, {SOURCES[evaluation.propensity_source]}, mean reward per decision"
    )
    words = [f"{_place(e)}: {e.estimand}" for e in _one_each(evaluation)]
    return "\n".join([head, "", *words, "", *aligned(rows), "", *aligned(support), "", *findings(evaluation)])


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their cells, except that a reason may run over the empty cells to its right."""
    widths = [
        max(len(row[j]) for row in rows if j + 1 == len(row) or row[j + 1] or not row[j].startswith("not identified"))
        for j in range(len(rows[0]))
    ]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain values; what is not a finite number is None, and the reason stands beside it."""
    estimates = [
        {
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
        for e in evaluation.estimates
    ]
    return {
        "policy": evaluation.policy,
        "log": evaluation.log,
        "propensities": SOURCES[evaluation.propensity_source],
        "decisions": evaluation.decisions,
        "users": evaluation.users,
        "reward_counts": dict(evaluation.reward_counts),
        "reward_refitted": evaluation.refitted,
        "reward_lost": _finite(evaluation.lost),
        "reward_least_kept": _finite(evaluation.least_kept),
        "settings": asdict(evaluation.settings),
        "interval": "Student's t with the standard error of a bootstrap over users",
        "logged": _interval(evaluation.logged),
        "estimates": estimates,
        "findings": findings(evaluation),
    }


def _interval(interval: Interval) -> dict[str, Any] | None:
    return asdict(interval) if interval.known else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
