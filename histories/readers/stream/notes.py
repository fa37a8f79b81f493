"""Notes on the slots of a grid, for the history's summary."""

from __future__ import annotations

import numpy as np

from crosschannel.core.arrays import IntArray
from crosschannel.core.times import HOUR, duration
from crosschannel.histories.history import History
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.stream.native import Slots
from crosschannel.histories.readers.stream.rows import StreamRows
from crosschannel.histories.windows import Timeline

#: Share of slots outside the time of sends from which on a note states it.
IDLE_SHARE = 0.05


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

    def busy(rows: IntArray, length: IntArray) -> float:
        """Return the share of slots with an event of the user within a length (microseconds) after them."""
        after = timeline.before(d.user[rows], d.time[rows], inclusive=True)
        return float(np.mean(timeline.before(d.user[rows], d.time[rows] + length) > after))

    unsent = np.flatnonzero(origin < 0)
    text = (
        f"sends are {np.median(lag) / HOUR:.1f} h (median) to {lag.max() / HOUR:.1f} h after their slot; "
        f"{busy(sent, lag):.1%} of them follow an event of the user in between"
    )
    if len(unsent):
        share = busy(unsent, np.resize(lag, len(unsent)))
        text += f", and {share:.1%} of slots without a send have an event in an equally long interval"
    late = []
    if np.median(lag) > duration(grid.every) / 2:
        late.append(
            f"most sends come later than half a period after their slot at {grid.at}: much of the window after a slot "
            "is over before they act. Set `at` to a time just before the sends"
        )
    return [*notes, text, *late]
