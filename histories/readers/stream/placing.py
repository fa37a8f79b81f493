"""Place the sends of a stream into the slots of a grid."""

from __future__ import annotations

import numpy as np

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.errors import Fault, raise_faults
from crosschannel.histories.readers.slots import SlotGrid, UserSlots, bounds
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.stream.rows import StreamRows


def send_actions(mapping: StreamMapping, modules: ActionSpace, stream: StreamRows, rule: IntArray) -> ObjectArray:
    """Return the action of the first module of each row (n,) that is a send, None for other rows.

    Args:
        mapping: How the stream is read.
        modules: The action space.
        stream: The stream.
        rule: The entry of `sends` that each row matches (n,), -1 for none.
    """
    name = modules.names[0]
    out = np.full(len(stream), None, dtype=object)
    for k, sends in enumerate(mapping.sends):
        rows = np.flatnonzero(rule == k)
        out[rows] = sends.constants[name] if name in sends.constants else stream.texts(sends.columns[name], rows)
    return out


def refuse_unsent(mapping: StreamMapping, modules: ActionSpace, stream: StreamRows, rule: IntArray) -> None:
    """Refuse rows on a grid whose action is to send nothing: they would count as a send, or hide one."""
    bad = send_actions(mapping, modules, stream, rule) == modules[0].actions[0]
    problem = "the action is to send nothing, which a grid assumes for every slot without a send"
    remedy = "Remove such rows from `sends`; or, if the log has all of them, use slots `sends_only`."
    stream.flag_rows("event", np.asarray(bad, dtype=bool), problem, remedy)
    raise_faults(stream.faults)


def user_slots(
    grid: SlotGrid, stream: StreamRows, kept: BoolArray, span: tuple[int, int], leave: IntArray
) -> UserSlots:
    """Return the slots of each user on a grid, given when users leave (U,).

    Raises:
        InputError: If the span does not have one complete period.
    """
    times = bounds(grid, *span)
    if len(times) < 2:
        problem = f"the stream does not cover one complete period of {grid.every} at {grid.at} {grid.time_zone}"
        remedy = "Use a finer grid; or give `span`, if the observation period is longer than the rows."
        raise_faults([Fault(stream.source, problem, remedy)])
    if stream.start is not None:
        start = stream.start
    elif grid.start_events:
        start = stream.first_time(kept & stream.named(grid.start_events))
    elif grid.start == "stream":
        start = np.full(len(stream.user_ids), times[0] - 1)
    else:
        start = stream.first_time(kept)
    return UserSlots.build(times, start, leave)


def origins(grid: SlotGrid, stream: StreamRows, slots: UserSlots, sends: IntArray) -> IntArray:
    """Return the row of each slot's send, the first if there are several, and -1 for none.

    Raises:
        InputError: If a period has several sends, and the grid does not allow that.
    """
    slot = slots.row(stream.user[sends], stream.time[sends])
    order = np.lexsort((stream.time[sends], slot))
    order = order[slot[order] >= 0]
    later = np.append(False, slot[order][1:] == slot[order][:-1])[: len(order)]
    if grid.several == "error" and later.any():
        bad = np.zeros(len(stream), dtype=bool)
        bad[sends[order[later]]] = True
        stream.flag_rows(
            "time",
            bad,
            f"the user has an earlier send in the same slot's period of {grid.every}",
            "Use a finer grid; or `several: first`, which keeps later sends as events and counts them.",
        )
        raise_faults(stream.faults)
    origin = np.full(len(slots), -1, dtype=np.int64)
    origin[slot[order[~later]]] = sends[order[~later]]
    return origin
