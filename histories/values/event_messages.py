"""Which decision's message an event is about, where the log says so: an opened e-mail names the one that was sent."""

from __future__ import annotations

import numpy as np
import pandas as pd

from crosschannel.core.arrays import IntArray, ObjectArray
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.wording import counted
from crosschannel.histories.logs import NO_MESSAGE, UNKNOWN_MESSAGE


def messages_of_events(
    events: TableValidator, decision_id: ObjectArray, decision_user: IntArray, event_user: IntArray
) -> IntArray | None:
    """Return the row of the decision that each event names in its column `decision_id` (e,), or None without it.

    Add a fault where it is a decision of another user.

    Args:
        events: The table of events.
        decision_id: Ids of the decisions (n,), integers or text; if the events differ in that, both are text.
        decision_user: User codes of the decisions (n,).
        event_user: User codes of the events (e,).
    """
    if not events.has("decision_id"):
        return None
    missing = events.missing("decision_id")
    whole = events.integers("decision_id") if decision_id.dtype.kind in "iu" else None
    asked = events.texts("decision_id") if whole is None else whole
    known = decision_id if whole is not None else decision_id.astype(str).astype(object)
    index = pd.Index(known)
    row = np.full(len(events), NO_MESSAGE, dtype=np.int64)
    if index.is_unique:  # otherwise that is a fault of the decisions, which is reported
        row = np.asarray(index.get_indexer(pd.Index(asked)), dtype=np.int64)
    row = np.where(missing, NO_MESSAGE, np.where(row < 0, UNKNOWN_MESSAGE, row))
    named = row >= 0
    others = np.zeros(len(row), dtype=bool)
    others[named] = (decision_user[row[named]] != event_user[named]) & (event_user[named] >= 0)
    events.flag_rows(
        "decision_id",
        others,
        "the decision is another user's",
        "Give the event the id of a decision of its own user, or leave it empty.",
    )
    return row


def message_notes(message: IntArray | None, event_time: IntArray, decision_time: IntArray) -> list[str]:
    """Return notes on events that name no decision of the log, or one that was made after them."""
    if message is None:
        return []
    notes, named = [], message >= 0
    if unknown := int((message == UNKNOWN_MESSAGE).sum()):
        notes.append(
            f"{unknown:,} of {int((message != NO_MESSAGE).sum()):,} events that name a decision name one that is not "
            "in the log: they are engagement with none"
        )
    if early := int((event_time[named] < decision_time[message[named]]).sum()):
        notes.append(f"{counted(early, 'event')} with the id of a later decision: engagement with none")
    return notes
