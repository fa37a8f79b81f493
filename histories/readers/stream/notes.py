"""Notes on the rows of a stream and on the slots of a grid, for the history's summary."""

from __future__ import annotations

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.times import HOUR, duration
from crosschannel.histories.history import CAUTION, History
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.stream.native import Slots
from crosschannel.histories.readers.stream.rows import StreamRows
from crosschannel.histories.windows import Timeline

#: How much larger the share of sends that follow an event must be, and by how many standard errors, for a caution.
MIN_TRIGGERED, ERRORS = 0.05, 4.0
#: Share of slots outside the time of sends from which on a note states it.
IDLE_SHARE = 0.05


def copy_notes(stream: StreamRows, kept: BoolArray) -> list[str]:
    """Return a note on rows that equal an earlier one in all that is read, where no message id identifies copies.

    Args:
        stream: The rows.
        kept: Which of them (n,) are read.
    """
    unnamed = np.repeat(["message_id" not in file.names for file in stream.files], np.diff(stream.ends, prepend=0))
    rows = np.flatnonzero(kept & unnamed)
    plain = pd.DataFrame({"user": stream.user[rows], "time": stream.time[rows], "event": stream.event[rows]})
    alike = plain.duplicated(keep=False).to_numpy()
    plain, rows = plain[alike], rows[alike]
    parts = np.split(rows, np.searchsorted(rows, stream.ends[:-1]))
    starts = stream.ends - [len(file.table) for file in stream.files]
    rest = [
        file.table.frame.iloc[part - start].drop(columns=[file.names["user_id"], file.names["time"]]).astype(str)
        for file, part, start in zip(stream.files, parts, starts, strict=True)
    ]
    copies = int(plain.join(pd.concat(rest).set_axis(plain.index).add_suffix(" of the file")).duplicated().sum())
    if not copies:
        return []
    return [
        f"{copies:,} rows equal an earlier one in every column that is read; each counts. If they were exported twice, "
        "map the column that identifies a row as `message_id`, and set `duplicates: keep_first`"
    ]


def zone_notes(grid: SlotGrid, stream: StreamRows) -> list[str]:
    """Return a note on times without a zone, which are read as UTC, where the slots are on another clock."""
    if grid.time_zone == "UTC" or not stream.zoneless:
        return []
    return [
        f"times without a zone are read as UTC, and slots are at {grid.at} {grid.time_zone}: "
        f"{', '.join(stream.zoneless[:3])}{' ...' if len(stream.zoneless) > 3 else ''}. If they are local times, set "
        f"`time_zone: {grid.time_zone}` beside the `path`"
    ]


def grid_notes(grid: SlotGrid, history: History, stream: StreamRows, slots: Slots, unplaced: IntArray) -> list[str]:
    """Return notes on the slots and sends of a grid, and on events between slots and their sends."""
    d, origin = slots, slots.origin
    sent = np.flatnonzero(origin >= 0)
    empty = np.bincount(history.decisions.user, minlength=history.n_users) == 0
    notes = [
        f"slots every {grid.every} at {grid.at} {grid.time_zone}: {len(origin):,}, {len(sent):,} with a send; kept as "
        f"events instead of decisions: {len(unplaced):,} sends outside all slots or after another send of their slot; "
        f"{np.count_nonzero(empty):,} users without a slot"
    ]
    if not len(sent):
        return notes
    idle = (d.time < d.time[sent].min()) | (d.time > d.time[sent].max())
    if idle.mean() > IDLE_SHARE:
        notes.append(
            f"{idle.mean():.0%} of the slots are before the first or after the last send of the log, when nobody got "
            "anything: set `span` to the time in which messages were sent"
        )
    lag = stream.time[origin[sent]] - d.time[sent]
    timeline = Timeline(history.events.time, history.event_offsets)

    def busy(rows: IntArray, length: IntArray) -> BoolArray:
        """Return which slots have an event of the user within a length (microseconds) after them."""
        after = timeline.before(d.user[rows], d.time[rows], inclusive=True)
        return np.asarray(timeline.before(d.user[rows], d.time[rows] + length) > after)

    unsent = np.flatnonzero(origin < 0)
    before_sends = busy(sent, lag)
    text = (
        f"sends are {np.median(lag) / HOUR:.1f} h (median) to {lag.max() / HOUR:.1f} h after their slot; "
        f"{before_sends.mean():.1%} of them follow an event of the user in between"
    )
    late = []
    if len(unsent):
        without = busy(unsent, np.resize(lag, len(unsent)))
        text += f", and {without.mean():.1%} of slots without a send have an event in an equally long interval"
        late += trigger_notes(d.user[sent], before_sends, d.user[unsent], without)
    if np.median(lag) > duration(grid.every) / 2:
        late.append(
            f"most sends come later than half a period after their slot at {grid.at}: much of the window after a slot "
            "is over before they act. Set `at` to a time just before the sends"
        )
    return [*notes, text, *late]


def trigger_notes(user: IntArray, busy: BoolArray, other: IntArray, without: BoolArray) -> list[str]:
    """Return a caution where sends follow events of their users, compared with the same users' slots without a send.

    Args:
        user: Users of the slots with a send (n,).
        busy: Whether an event lies between slot and send (n,).
        other: Users of the slots without a send (m,).
        without: Whether an event lies in an equally long interval after them (m,).
    """
    size = int(max(user.max(initial=0), other.max(initial=0))) + 1
    slots, events = np.bincount(other, minlength=size), np.bincount(other, without, size)
    known = slots[user] > 0
    if not known.any():
        return []
    user, busy = user[known], busy[known]
    usual = events[user] / slots[user]
    by_user = np.bincount(user, busy - usual, size)
    more = float(by_user.sum()) / len(user)
    if more < MIN_TRIGGERED or by_user.sum() < ERRORS * np.sqrt((by_user**2).sum()):
        return []
    return [
        f"{CAUTION}messages follow what users do: {busy.mean():.0%} of the sends have an event of their user between "
        f"slot and send, and {usual.mean():.0%} is usual for these users without a send. What made the log send is "
        "within the window after the slot, and counts as an effect. Set `at` to a time just before the sends, or log "
        "the decisions themselves and use `sends_only`"
    ]
