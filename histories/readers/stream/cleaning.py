"""Decide which rows of a stream are read: not copies, retries, anonymous or isolated ones; each is counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import raise_faults
from crosschannel.core.times import HOUR
from crosschannel.histories.readers.sources import span_of
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.stream.rows import StreamRows
from crosschannel.histories.span import observe


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
    kept, counts, notes = _without_duplicates(mapping, stream)
    rows = np.flatnonzero(kept)
    declared = span_of(mapping.span) if mapping.span else None
    observed = observe(stream.time[rows], ~sent[rows], lambda row: stream.name_row(int(rows[row])), declared)
    inside = kept.copy()
    inside[rows] = observed.inside
    if mapping.anonymous == "leave_out":
        counts += f", {np.count_nonzero(stream.anonymous):,} anonymous rows"
    if stream.empty:
        counts += f", {stream.empty:,} files of 0 bytes"
    # The history itself counts what is outside a declared span.
    return CleanRows(inside, observed.span, counts, notes if declared else (*notes, *observed.notes))


def _without_duplicates(mapping: StreamMapping, stream: StreamRows) -> tuple[BoolArray, str, tuple[str, ...]]:
    """Return which rows (n,) are kept, and the counts: those with a user and, of each message id, the earliest.

    Rows of one id are the same message if they have the same user and event. With equal times they are copies; with
    others they are retries, as clients that send again stamp each try with a time of its own.
    """
    kept = ~stream.anonymous
    if not stream.has("message_id"):
        return kept, "0 duplicates", ()
    ids = stream.native_texts("message_id")
    # Files without the column have no messages to compare.
    named = np.repeat(["message_id" in file.names for file in stream.files], np.diff(stream.ends, prepend=0))
    missing = kept & named & (ids == "")
    stream.flag_rows(
        "message_id", missing, "the message id is missing", "Fill it in, or leave `message_id` out of the mapping."
    )
    rows = np.flatnonzero(kept & named & ~missing)
    code, known = pd.factorize(ids[rows])
    order = np.lexsort((stream.time[rows], code))
    rows, code = rows[order], code[order]
    earliest = rows[np.searchsorted(code, np.arange(len(known)))][code]
    same = (stream.user[rows] == stream.user[earliest]) & (stream.event[rows] == stream.event[earliest])
    delay = stream.time[rows] - stream.time[earliest]
    again = rows != earliest

    def mask(chosen: BoolArray) -> BoolArray:
        out = np.zeros(len(stream), dtype=bool)
        out[rows[chosen]] = True
        return out

    remedy = "Ids must be unique: choose another column for `message_id`, or correct the export."
    problem = "an earlier row with another user or event has the same message id"
    stream.flag_rows("message_id", mask(again & ~same), problem, remedy)
    if mapping.duplicates == "error":
        copy, retry = again & same & (delay == 0), again & same & (delay > 0)
        remedy = "Remove the copies, or set `duplicates: keep_first`."
        stream.flag_rows("message_id", mask(copy), "the row repeats an earlier one", remedy)
        remedy = "Remove the retries, or set `duplicates: keep_first`, which keeps the earliest and counts the others."
        stream.flag_rows("message_id", mask(retry), "the row repeats an earlier one at a later time", remedy)
    raise_faults(stream.faults)
    late = again & (delay > 0)
    notes = []
    if late.any():
        median, most = _length(float(np.median(delay[late]))), _length(float(delay[late].max()))
        notes.append(
            f"of the duplicates {np.count_nonzero(late):,} are retries of the same message {median} (median) to {most} "
            "after the first, which was kept"
        )
    return kept & ~mask(again), f"{np.count_nonzero(again):,} duplicates", tuple(notes)


def _length(microseconds: float) -> str:
    hours = float(microseconds) / HOUR
    return f"{hours * 3600:,.0f} s" if hours < 1 else f"{hours:,.1f} h"
