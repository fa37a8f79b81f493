"""The evaluation as plain text for the terminal: tables of the values and the support, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence

from crosschannel.core.wording import counted
from crosschannel.evaluation.estimates import Estimate
from crosschannel.evaluation.report.formatting import (
    SUPPORT_COLUMNS,
    align,
    format_bounds,
    format_number,
    format_point,
    propensity_label,
    why_not,
)
from crosschannel.evaluation.report.ladder_text import ladder_blocks, ladder_sentences, orders_block
from crosschannel.evaluation.report.sentences import caveats, module_effects, verdict
from crosschannel.evaluation.results import Evaluation


def text_table(evaluation: Evaluation) -> str:
    """Return the evaluation as text: what was evaluated, the values, the support, the verdict and the caveats."""
    estimands = [f"{e.label}: {e.estimand}" for e in evaluation.one_per_estimand]
    sentences = [verdict(evaluation), *module_effects(evaluation), *caveats(evaluation)]
    blocks = [
        [_head(evaluation)],
        *ladder_blocks(evaluation),
        estimands,
        align(_value_rows(evaluation, evaluation.estimates)),
        align(_support_rows(evaluation)),
        sentences,
    ]
    return _joined(blocks)


def headline_text(evaluation: Evaluation) -> str:
    """Return the value of the whole action as text: by every order, or without a ladder by every estimator."""
    if evaluation.ladder is not None:
        values, meaning = orders_block(evaluation, evaluation.ladder), ladder_sentences(evaluation)
    else:
        whole = [e for e in evaluation.estimates if e.module is None]
        values, meaning = align(_value_rows(evaluation, whole)), [verdict(evaluation)]
    # What the log contradicts is said with the ladder, and is a caveat as well.
    sentences = list(dict.fromkeys([*meaning, *caveats(evaluation, of_headline=True)]))
    return _joined([[_head(evaluation)], values, sentences])


def _joined(blocks: Sequence[Sequence[str]]) -> str:
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _head(evaluation: Evaluation) -> str:
    return (
        f"{evaluation.policy} on {evaluation.log}: mean reward per decision with a reward; {evaluation.population}, "
        f"{counted(evaluation.users, 'user')}, {propensity_label(evaluation.propensity_counts)}"
    )


def _value_rows(evaluation: Evaluation, estimates: Sequence[Estimate]) -> list[tuple[str, ...]]:
    level = f"{evaluation.settings.confidence_level:.0%}"
    logged = evaluation.logged
    shown = (format_point(logged), format_bounds(logged)) if logged.is_defined else ("not identified", "")
    rows: list[tuple[str, ...]] = [
        ("policy chooses", "estimator", "value", level, "difference", level),
        ("(logging policy)", "mean", *shown, "", ""),
    ]
    for e in estimates:
        if e.value.is_defined:
            value = (format_point(e.value), format_bounds(e.value))
            name = e.estimator if e.identified else f"({e.estimator})"
            rows.append((e.label, name, *value, format_point(e.difference), format_bounds(e.difference)))
        else:
            rows.append((e.label, e.estimator, why_not(e.reason), "", "", ""))
    return rows


def _support_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [(*SUPPORT_COLUMNS, "mean weight", "unsupported mass")]
    for e in evaluation.one_per_estimand:
        s = e.support
        sizes = [format_number(x, ",.0f") for x in (s.ess, s.ess_users)]
        numbers = [format_number(x, ".3g") for x in (s.kurtosis, s.largest_weight, s.mean_weight)]
        rows.append((e.label, f"{s.decisions:,}", *sizes, *numbers, f"{s.unsupported_mass:.1%}"))
    return rows
