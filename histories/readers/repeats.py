"""Find rows that repeat an earlier message: copies of an export, and retries of a client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray, ObjectArray
from crosschannel.core.times import HOUR
from crosschannel.histories.values.identifiers import lost_digits, means_nobody

Duplicates = Literal["error", "keep_first"]
#: Adds a fault for the rows of a mask, with a problem and a remedy.
FlagRows = Callable[[BoolArray, str, str], None]


@dataclass(frozen=True)
class Repeats:
    """Rows that repeat an earlier message.

    Attributes:
        rows: Which rows (n,) they are.
        delay: How much later than the first each one is (count,), microseconds.
    """

    rows: BoolArray
    delay: IntArray

    def notes(self) -> tuple[str, ...]:
        """Return a note on retries, if there are any."""
        late = self.delay[self.delay > 0]
        if not len(late):
            return ()
        return (
            f"of the duplicates {len(late):,} are retries of the same message {_length(np.median(late))} (median) to "
            f"{_length(late.max())} after the first, which was kept",
        )


def find_repeats(
    ids: ObjectArray,
    user: npt.NDArray[Any],
    event: npt.NDArray[Any],
    time: IntArray,
    among: BoolArray,
    duplicates: Duplicates,
    flag: FlagRows,
) -> Repeats:
    """Return the rows (n,) that repeat an earlier message, in time; the earliest of each message id is not one.

    Rows of one id are the same message if they have the same user and event. With equal times they are copies; with
    others they are retries, as clients that send again stamp each try with a time of its own.

    Args:
        ids: Message ids (n,), empty where missing.
        user: Users (n,).
        event: Events (n,).
        time: Microseconds since 1970 UTC (n,).
        among: The rows (n,) that are compared.
        duplicates: Whether repeats are faults.
        flag: A function that adds faults: of ids that are missing or not unique, and of repeats.
    """
    missing = among & (ids == "")
    flag(missing, "the message id is missing", "Fill it in, or leave `message_id` out of the mapping.")
    empty = among & ~missing & (means_nobody(ids) | lost_digits(ids))
    problem = "the message id is a word for none, or a rounded number: different messages would count as one"
    flag(empty, problem, "Leave it out of the mapping, or correct the export.")
    rows = np.flatnonzero(among & ~missing)
    code, known = pd.factorize(ids[rows])
    order = np.lexsort((time[rows], code))
    rows, code = rows[order], code[order]
    earliest = rows[np.searchsorted(code, np.arange(len(known)))][code]
    same = (user[rows] == user[earliest]) & (event[rows] == event[earliest])
    delay = time[rows] - time[earliest]
    again = rows != earliest

    def mask(chosen: BoolArray) -> BoolArray:
        out = np.zeros(len(ids), dtype=bool)
        out[rows[chosen]] = True
        return out

    remedy = "Ids must be unique: choose another column for `message_id`, or correct the export."
    flag(mask(again & ~same), "an earlier row with another user or event has the same message id", remedy)
    if duplicates == "error":
        remedy = "Remove the copies, or set `duplicates: keep_first`."
        flag(mask(again & same & (delay == 0)), "the row repeats an earlier one", remedy)
        remedy = "Remove the retries, or set `duplicates: keep_first`, which keeps the earliest and counts the others."
        flag(mask(again & same & (delay > 0)), "the row repeats an earlier one at a later time", remedy)
    return Repeats(mask(again), delay[again])


def _length(microseconds: float) -> str:
    hours = float(microseconds) / HOUR
    return f"{hours * 3600:,.0f} s" if hours < 1 else f"{hours:,.1f} h"
