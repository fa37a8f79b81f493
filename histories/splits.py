"""Split a history by user, with a stable hash, or by time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import uniforms
from crosschannel.histories.history import History
from crosschannel.histories.logs import renumber_messages, rows_after_selection, take_rows


def split_users(user_keys: UIntArray, shares: Mapping[str, float], seed: int = 0) -> npt.NDArray[Any]:
    """Return the name of each user's part, (U,).

    It depends on the user's id, the shares and the seed only, not on the history, the order of rows or the machine.

    Args:
        user_keys: Stable hashes of the user ids (U,), as in `History.user_keys`.
        shares: Expected share of each part, in order; they add up to 1. A part with share 0 is empty.
        seed: Another seed gives an independent split.

    Raises:
        ConfigError: If a share is negative or they do not add up to 1.
    """
    sizes = np.array(list(shares.values()), dtype=np.float64)
    if len(sizes) == 0 or not (sizes >= 0).all() or abs(sizes.sum() - 1) > 1e-9:
        raise ConfigError(f"the shares {dict(shares)} do not add up to 1, or one of them is negative")
    # Only the inner bounds are used, so that no user is left out if the last one is rounded below 1.
    part = np.searchsorted(np.cumsum(sizes)[:-1], uniforms(user_keys, seed), side="right")
    return np.asarray(np.array(list(shares), dtype=object)[part])


def split_time(history: History, until: int) -> tuple[History, BoolArray]:
    """Return the history up to a time, and a mask of the later decisions.

    The later decisions are rows of the whole history and not a history of their own, because their context includes
    earlier events.

    Args:
        history: The whole history.
        until: The time in microseconds since 1970 UTC, within the history's span.

    Returns:
        The history of all users with the decisions and events strictly before `until`, whose span ends there; and the
        mask (n,) of the whole history's decisions at `until` or later.

    Raises:
        ConfigError: If all decisions are before `until`, or none.
    """
    later = history.decisions.time >= until
    if later.all() or not later.any():
        first, last = history.decisions.time.min(), history.decisions.time.max()
        start, end, at = np.array([first, last, until], dtype="datetime64[us]")
        raise ConfigError(f"all decisions are on one side of {at}: choose a time between {start} and {end}")
    known = history.events.time < until
    before = replace(
        history,
        decisions=take_rows(history.decisions, ~later),
        events=renumber_messages(take_rows(history.events, known), rows_after_selection(~later)),
        span=(history.span[0], until),
    )
    return before, later
