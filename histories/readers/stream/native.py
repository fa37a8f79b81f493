"""Write the slots and events of a stream as tables in the native columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.times import timestamps
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import decision_columns
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.stream.rows import StreamRows
from crosschannel.histories.sorting import argsort_by_user_and_time
from crosschannel.histories.windows import Timeline


@dataclass(frozen=True)
class Slots:
    """Decisions of a stream (k,).

    Attributes:
        origin: The row of each one's send, -1 for none.
        user: Codes of the users.
        time: Microseconds since 1970 UTC.
    """

    origin: IntArray
    user: IntArray
    time: IntArray


def decisions_table(
    mapping: StreamMapping, modules: ActionSpace, stream: StreamRows, kept: BoolArray, rule: IntArray, slots: Slots
) -> pd.DataFrame:
    """Return slots as a table in the native columns, given the entry of `sends` of each row (n,)."""
    origin, user, time = slots.origin, slots.user, slots.time
    sent = np.flatnonzero(origin >= 0)
    # Rows of the stream in ascending order, and the slots to which their values belong.
    sent = sent[np.argsort(origin[sent], kind="stable")]
    source = origin[sent]
    ids = stream.user_ids[user]
    on_grid = isinstance(mapping.slots, SlotGrid)
    moment, moments = pd.factorize(time)
    whole = moments.astype("datetime64[us]").astype("datetime64[m]" if on_grid else "datetime64[us]")
    texts = whole.astype(str).astype(object)
    frame: dict[str, Any] = {
        "decision_id": ids.astype(str).astype(object) + ("@" + texts)[moment],
        "user_id": ids,
        "time": timestamps(time),
        modules.names[0]: np.full(len(time), modules[0].actions[0], dtype=object),
    }
    for native in decision_columns(modules):
        for k, sends in enumerate(mapping.sends):
            if native not in sends.columns and native not in sends.constants:
                continue
            mine = rule[source] == k
            column = frame.setdefault(native, np.full(len(time), None, dtype=object))
            if native in sends.constants:
                column[sent[mine]] = sends.constants[native]
            elif native.startswith("propensity") and native not in modules.names:
                column[sent[mine]] = stream.raw(sends.columns[native], source[mine])
            else:
                column[sent[mine]] = stream.texts(sends.columns[native], source[mine])
    if stream.has("arm"):
        frame["arm"] = _arms(stream, kept, user, time)
    return _frame(frame)


def _arms(stream: StreamRows, kept: BoolArray, user: IntArray, time: IntArray) -> ObjectArray:
    """Return the arm of each slot: that of the user's latest row up to it, as a later one may depend on the send."""
    arms = stream.native_texts("arm")
    named = np.flatnonzero((arms != "") & kept)
    named = named[argsort_by_user_and_time(stream.user[named], stream.time[named])]
    offsets = np.searchsorted(stream.user[named], np.arange(len(stream.user_ids) + 1)).astype(np.int64)
    latest = Timeline(stream.time[named], offsets).before(user, time, inclusive=True) - 1
    out = np.full(len(time), None, dtype=object)
    known = latest >= offsets[user]
    out[known] = arms[named[latest[known]]]
    return out


def events_table(mapping: StreamMapping, stream: StreamRows, rows: IntArray) -> pd.DataFrame:
    """Return rows of the stream, ascending, as events in the native columns."""
    return _frame(
        {
            "user_id": stream.user_ids[stream.user[rows]],
            "time": timestamps(stream.time[rows]),
            "event": np.asarray(stream.names, dtype=object)[stream.event[rows]],
            "value": stream.event_values(mapping.values, rows),
        }
    )


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table whose text columns stay objects; inferring their types would take a third of the reading time."""
    kept = {name: pd.Series(part, dtype="object") if part.dtype == object else part for name, part in columns.items()}
    return pd.DataFrame(kept)
