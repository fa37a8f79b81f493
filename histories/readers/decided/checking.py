"""Whether the files of decided days fit together: arms with decisions, decisions with what the summary counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import Fault, raise_faults
from crosschannel.core.table_validator import TableValidator, first_true
from crosschannel.histories.arms import AGENT, WAITING
from crosschannel.histories.history import CAUTION
from crosschannel.histories.readers.decided.days import ARMS_FILE, SUMMARY_FILE, read_arms_of_day
from crosschannel.histories.readers.sources import SourceRows

#: From this share of the decided messages without a send on, and this number, a caution names them: as in the alerts.
MIN_SHARE_UNDELIVERED, MIN_UNDELIVERED = 0.2, 10
#: What to do where the log has another message than the one that was decided.
NOT_CARRIED_OUT = (
    "they must have what was sent; leave out decisions that were not carried out, and all of a time whose messages "
    "were sent a period later."
)


def notes_on_delivery(due: BoolArray, delivered: BoolArray) -> tuple[str, ...]:
    """Return a caution where many decided messages were not sent; none where the log has no message of the policy.

    Args:
        due: Decisions to send in the time of the log (k,).
        delivered: Decisions with a send in the log (k,).
    """
    decided, undelivered = int(due.sum()), int((due & ~delivered).sum())
    if undelivered < max(MIN_UNDELIVERED, MIN_SHARE_UNDELIVERED * decided) or undelivered == decided:
        return ()
    return (
        f"{CAUTION}{undelivered:,} of {decided:,} decided messages ({undelivered / decided:.0%}) have no send in the "
        "log: effects and values are those of deciding to send, which are less than those of a message. If the sending "
        "tool failed, leave all decisions of that time out; single ones without a send are not left out at random",
    )


def check_arms(decided: SourceRows) -> None:
    """Refuse decisions of a folder by date whose arm is not that of the user in the file of arms of the same day.

    Args:
        decided: The decisions, file by file; those that no file of arms stands beside are left alone.

    Raises:
        InputError: If so, or a file of arms has faults.
    """
    if "arm" not in decided.frame:
        return
    faults = list[Fault]()
    for file, rows in _by_file(decided):
        table = TableValidator(rows, file, faults)
        if not (Path(file).parent / ARMS_FILE).is_file():
            continue
        users, arms = read_arms_of_day(Path(file).parent)
        place = users.get_indexer(pd.Index(table.texts("user_id")))
        other = np.asarray(table.texts("arm") != arms[place], dtype=bool) & (place >= 0) & ~table.missing("arm")
        if (row := first_true(other)) is not None:
            table.flag_rows(
                *("arm", other, f"{ARMS_FILE} of the same day says {arms[place[row]]!r}"),
                "Restore both files as `decide` wrote them, or decide for the day again.",
            )
    raise_faults(faults)


def notes_on_edits(decided: SourceRows, modules: ActionSpace) -> tuple[str, ...]:
    """Return a note on days with more decisions for an action than their summary counted: rows were edited.

    Rows that were left out lower counts only, and those of users who were forgotten as well.

    Args:
        decided: Decisions of a folder by date, file by file.
        modules: What could be chosen.
    """
    found = [
        (Path(file).parent.name, *edit)
        for file, rows in _by_file(decided)
        if (edit := _edited(_counts_when_decided(Path(file).parent), rows, modules)) is not None
    ]
    if not found:
        return ()
    day, module, action, now, before = found[0]
    what = f"decisions of {day} were edited" + (f", and of {len(found) - 1:,} other days" if len(found) > 1 else "")
    return (
        f"{what}: {now:,} rows have {module} {action!r}, {before:,} had it when they were decided. Propensities must "
        "be those of what was sent",
    )


def _by_file(decided: SourceRows) -> Iterator[tuple[str, pd.DataFrame]]:
    first = 0
    for file, size in decided.files:
        yield file, decided.frame.iloc[first : first + size]
        first += size


def _counts_when_decided(day: Path) -> Mapping[str, Mapping[str, int]]:
    """Return the counts by module and action that the summary of a day has; none where there is no such summary."""
    try:
        counts = json.loads((day / SUMMARY_FILE).read_text(encoding="utf-8")).get("counts", {})
    except (OSError, ValueError, AttributeError):
        return {}
    return counts if isinstance(counts, dict) else {}


def _edited(
    before: Mapping[str, Mapping[str, int]], rows: pd.DataFrame, modules: ActionSpace
) -> tuple[str, str, int, int] | None:
    """Return a module and an action of which there are more rows than before, with both numbers; None if none."""
    if not before or "arm" not in rows or "policy" not in rows:
        return None
    chosen = rows[(rows["arm"] == AGENT) & ~rows["policy"].astype(str).str.endswith(WAITING)]
    for module in modules:
        counted: Mapping[str, Any] = before.get(module.name, {})
        for action, now in chosen[module.name].value_counts().items():
            if now > int(counted.get(str(action), 0)):
                return module.name, str(action), int(now), int(counted.get(str(action), 0))
    return None
