"""What is known of a policy beside its estimates as tables of text: true values, comparators, constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crosschannel.core.wording import counted
from crosschannel.evaluation import Evaluation, Interval
from crosschannel.evaluation.report.formatting import reasons_once, why_not
from crosschannel.pipeline.judgement.records import Comparator, ConstraintUse, TrueValue


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
    lines = _aligned(rows)
    users = values[0].users
    notes = [
        f"* mean true effect per decision with a reward: the test users' {population}, as in the off-policy estimate",
        f"** true incremental goal value when deployed to {users:,} fresh users, with its 95 % margin",
    ]
    return "\n".join([*lines, *notes])


#: The columns of a table of comparators.
COMPARATOR_COLUMNS = ("policy", "value", "difference to the log", "the policy minus it", "ESS", "true effect")


def comparators_title(evaluation: Evaluation, *, constrained: bool) -> str:
    """Return what the table of comparators holds, in words.

    Args:
        evaluation: The evaluation of the policy that they are compared with.
        constrained: Whether that policy keeps constraints.
    """
    limits = "; of them only `greedy` keeps the constraints" if constrained else ""
    order = (
        ""
        if evaluation.ladder is None
        else f", at order {evaluation.ladder.order} as the headline, but by weights alone, without its outcome model"
    )
    return f"Other policies on the same users{order}; constants were chosen on the training users{limits}"


def comparator_cells(row: Comparator) -> tuple[str, ...]:
    """Return a comparator as texts, one for each of `COMPARATOR_COLUMNS`."""
    name = f"{row.policy}: {row.detail}" if row.detail and "," not in row.detail else row.policy
    truth = f"{row.truth:.4f}" if math.isfinite(row.truth) else "-"
    size = f"{row.ess:,.0f}" if math.isfinite(row.ess) else "-"
    if row.reason:
        return (name, why_not(row.reason), "", "", size, truth)
    intervals = (row.value, row.difference, row.lead)
    shown = (f"{each.point:.4f} {_bounds(each)}" if each.is_defined else "-" for each in intervals)
    return (name, *shown, size, truth)


def comparators_table(rows: Sequence[Comparator]) -> str:
    """Return comparators as a table; the column of true effects is left out where none is known."""
    cells = reasons_once([COMPARATOR_COLUMNS, *map(comparator_cells, rows)])
    if not any(math.isfinite(row.truth) for row in rows):
        cells = [row[:-1] for row in cells]
    return "\n".join([*_aligned(cells), *constants_in_words(rows)])


def constants_in_words(rows: Sequence[Comparator]) -> list[str]:
    """Return a line for each comparator that always chooses the same whole action."""
    return [f"{row.policy}: {row.detail}" for row in rows if "," in row.detail]


def _bounds(interval: Interval) -> str:
    return f"[{interval.low:.4f}, {interval.high:.4f}]"


#: The columns of a table of constraints.
CONSTRAINT_COLUMNS = ("constraint", "shadow price", "expected use", "budget", "binds at")


def constraints_in_words(evaluation: Evaluation) -> str:
    """Return what the numbers in a table of constraints count, over which decisions and users, in which units."""
    decisions, users = counted(evaluation.logged_decisions, "decision"), counted(evaluation.users, "user")
    return (
        "expected use and budget are numbers of events or of messages, or costs of a budget, of the test users' "
        f"{decisions} in all ({users} with a reward); a "
        "shadow price is what one more of it is worth, in reward units"
    )


def constraint_cells(row: ConstraintUse) -> tuple[str, ...]:
    """Return a constraint as texts, one for each of `CONSTRAINT_COLUMNS`."""
    numbers = (f"{row.price:.4g}", f"{row.use:.4g}", f"{row.budget:.4g}")
    return (row.name, *numbers, f"{row.binding:.0%} of {row.decision_times:,} decision times")


def constraints_table(constraints: Sequence[ConstraintUse]) -> str:
    """Return the shadow price, use and budget of constraints as a table."""
    return "\n".join(_aligned([CONSTRAINT_COLUMNS, *map(constraint_cells, constraints)]))


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
