"""Decide which rows of a stream are read: not copies, retries, anonymous or isolated ones; each is counted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import raise_faults
from crosschannel.core.wording import counted
from crosschannel.histories.observation.span import observe
from crosschannel.histories.readers.repeats import Repeats, find_repeats
from crosschannel.histories.readers.sources import span_of
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.stream.rows import StreamRows


@dataclass(frozen=True)
class CleanRows:
    """The rows of a stream that are read.

    Attributes:
        kept: Which rows (n,) they are.
        span: The observation period, microseconds since 1970 UTC.
        counts: What was left out, for the history's summary.
        notes: Further lines for the summary.
    """

    kept: BoolArray
    span: tuple[int, int]
    counts: str
    notes: tuple[str, ...]


def clean(mapping: StreamMapping, stream: StreamRows, sent: BoolArray) -> CleanRows:
    """Return which rows are read, and the observation period; `sent` (n,) are the rows that are sends.

    Raises:
        InputError: If rows have the same message id and are not copies, or copies are not to be left out.
        ConfigError: If the span does not fit the rows.
    """
    kept = ~stream.anonymous
    rows = np.flatnonzero(kept)
    declared = span_of(mapping.span) if mapping.span else None
    observed = observe(stream.time[rows], ~sent[rows], lambda row: stream.name_row(int(rows[row])), declared)
    # First, since of a message that was sent again the try with a wrong clock may be the earliest.
    kept[rows] = observed.inside
    repeats = _repeats(mapping, stream, kept)
    counts = f"{np.count_nonzero(repeats.rows):,} duplicates"
    if mapping.anonymous != "error":
        counts += f", {np.count_nonzero(stream.anonymous):,} anonymous rows"
    if stream.empty:
        counts += f", {counted(stream.empty, 'file')} of 0 bytes"
    # The history itself counts what is outside a declared span.
    notes = repeats.notes() if declared else (*repeats.notes(), *observed.notes)
    return CleanRows(kept & ~repeats.rows, observed.span, counts, notes)


def _repeats(mapping: StreamMapping, stream: StreamRows, kept: BoolArray) -> Repeats:
    """Return the rows that repeat an earlier message."""
    if not stream.has("message_id"):
        return Repeats(np.zeros(len(stream), dtype=bool), np.zeros(0, dtype=np.int64))
    # Files without the column have no messages to compare.
    named = np.repeat(["message_id" in file.names for file in stream.files], np.diff(stream.ends, prepend=0))
    found = find_repeats(
        stream.native_texts("message_id"),
        stream.user,
        stream.event,
        stream.time,
        kept & named,
        mapping.duplicates,
        partial(stream.flag_rows, "message_id"),
    )
    raise_faults(stream.faults)
    return found
