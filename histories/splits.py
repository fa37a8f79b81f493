"""Splits a history: by user, with a stable hash, or by time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import uniforms
from crosschannel.histories.history import History, take_rows


def split_users(user_keys: UIntArray, shares: Mapping[str, float], seed: int = 0) -> npt.NDArray[Any]:
    """The name of the part that each user belongs to, (U,).

    A user's part depends on nothing but the user's id, the shares and the seed: it is the same in every history,
    in every order of rows and on every machine.

    Args:
        user_keys: Stable hashes of the user ids (U,), as in `History.user_keys`.
        shares: Expected share of each part, in order; they add up to 1. A share of 0 is an empty part.
        seed: Another seed gives an independent split.

    Raises:
        ConfigError: If a share is negative or they do not add up to 1.
    """
    sizes = np.array(list(shares.values()), dtype=np.float64)
    if len(sizes) == 0 or not (sizes >= 0).all() or abs(sizes.sum() - 1) > 1e-9:
        raise ConfigError(f"the shares {dict(shares)} do not add up to 1, or one of them is negative")
    # Only the inner bounds are used, so that rounding of the last one cannot leave a user out.
    part = np.searchsorted(np.cumsum(sizes)[:-1], uniforms(user_keys, seed), side="right")
    return np.asarray(np.array(list(shares), dtype=object)[part])


def split_time(history: History, until: int) -> tuple[History, BoolArray]:
    """What was known at a time, and which decisions came later.

    The later decisions are not a history of their own, because their context reaches back: they are rows of the
    whole one.

    Args:
        history: The whole history.
        until: The time in microseconds since 1970 UTC, within the history's span.

    Returns:
        The history of all users with the decisions and events strictly before `until`, whose span ends there; and
        a mask (n,) over the whole history's decisions of those at `until` or later.

    Raises:
        ConfigError: If `until` leaves no decision on one of the sides.
    """
    later = history.decisions.time >= until
    if later.all() or not later.any():
        first, last = history.decisions.time.min(), history.decisions.time.max()
        start, end, at = np.array([first, last, until], dtype="datetime64[us]")
        raise ConfigError(f"all decisions lie on one side of {at}: choose a time between {start} and {end}")
    known = history.events.time < until
    before = replace(
        history,
        decisions=take_rows(history.decisions, ~later),
        events=take_rows(history.events, known),
        span=(history.span[0], until),
    )
    return before, later
