"""Exact sums in fixed point: they do not depend on the order of rows, on other users or on buckets.

Integers add up exactly and in any order. Each quantity has a power-of-two scale, written as its number of binary places
(`bits`): fitted once on a training log to the largest sum that a user could have, and used for every later log, so that
amounts in the millions (VND, IDR) and in millionths keep their digits alike. Scales change in steps of eight places, so
that a few more events rarely change them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError

#: Binary places of sums that have no scale of their own, such as those of logarithms.
DEFAULT_BITS = 32
#: The largest sum of the training log lies below 2^56 in fixed point: later logs may have 64 times as much.
LOG2_OF_LARGEST_FITTED = 56
LARGEST_SUM = 2.0**62
BITS_PER_STEP = 8
#: Values that are this many units of their scale, or more, are represented to a hundredth.
MIN_UNITS_OF_VALUES = 64
#: Beyond, powers of two would leave the range of floating-point numbers.
MAX_BITS = 968


def largest_sum(value: FloatArray, chosen: BoolArray, offsets: IntArray) -> float:
    """Return an upper bound of the absolute sums of any user's chosen events: their number times the largest, at most.

    As a maximum over users of a product it is the same in every order of rows and in every division into buckets.

    Args:
        value: Values of all events (e,), sorted by user.
        chosen: Which of them are summed (e,).
        offsets: First event of each user (U + 1,).
    """
    if not chosen.any():
        return 0.0
    filled = np.flatnonzero(np.diff(offsets))
    first = offsets[filled]
    count = np.add.reduceat(chosen.astype(np.float64), first)
    largest = np.maximum.reduceat(np.where(chosen, np.abs(value), 0.0), first)
    return float((count * largest).max(initial=0.0))


def fit_bits(largest: float) -> int:
    """Return the binary places with which sums up to `largest` are represented.

    Raises:
        ConfigError: If it is not finite.
    """
    if not math.isfinite(largest):
        raise ConfigError("the values are too large to be summed: their sum is infinite")
    if largest == 0.0:
        return DEFAULT_BITS
    bits = BITS_PER_STEP * math.floor((LOG2_OF_LARGEST_FITTED - math.log2(largest)) / BITS_PER_STEP)
    return min(max(bits, -MAX_BITS), MAX_BITS)


def check_resolution(value: FloatArray, largest: float, name: str) -> None:
    """Refuse values (e,) most of which would be rounded away by the scale of sums up to `largest`.

    One amount of 1e18 (a placeholder) among thousands of 30 would leave zeros of all others, limits or not.

    Args:
        value: The values that are summed.
        largest: An upper bound of their sums.
        name: What is summed, for the message.

    Raises:
        ConfigError: If the median of those that are not 0 has fewer than `MIN_UNITS_OF_VALUES` units of the scale.
    """
    used = np.abs(value[value != 0.0])
    if len(used) and (median := float(np.median(used))) < MIN_UNITS_OF_VALUES * 2.0 ** -fit_bits(largest):
        raise ConfigError(
            f"the values of {name!r} differ too much to be summed exactly: half of them are {median:g} or less, and "
            f"the largest is {used.max():g}. Check the largest for placeholders and errors of units, and correct it in "
            "the log"
        )


def sums_fit(squares: float, n: int, bits: int) -> bool:
    """Return whether n values with this sum of squares surely fit into 64 bits, in whatever way they are summed."""
    # The sum of squares, which costs less than a look at every value, bounds the sum of all.
    return n == 0 or math.sqrt(n * squares) < LARGEST_SUM * 2.0**-bits


def check_sums(value: FloatArray, offsets: IntArray, bits: int, name: str) -> None:
    """Refuse values (e,) of which a user's sum does not fit into 64 bits with a scale.

    Args:
        value: Values of all events, 0 where they are not summed (e,).
        offsets: First event of each user (U + 1,).
        bits: The binary places.
        name: What is summed, for the message.

    Raises:
        ConfigError: If a sum is too large.
    """
    limit = LARGEST_SUM * 2.0**-bits
    with np.errstate(over="ignore"):
        if sums_fit(float(value @ value), len(value), bits):
            return
        filled = np.flatnonzero(np.diff(offsets))
        total = np.add.reduceat(np.abs(value), offsets[filled])
    if not (total < limit).all():
        raise ConfigError(
            f"the values of {name!r} of one user add up to {total.max():g}, more than {limit:g}: they are too large "
            "for exact sums with the scale that was fitted on the training log. Check them for errors of units or "
            "currency; if they are right, train again on a log that has such values"
        )


def to_fixed(value: FloatArray, bits: int = DEFAULT_BITS) -> IntArray:
    """Convert values to 64-bit fixed-point numbers with a resolution of `2^-bits`.

    A running total may wrap around: the difference of two totals is right all the same, as long as the sum in between
    stays below 2^63. Whoever sums a log's values makes sure of that with `check_sums`.
    """
    scaled = np.multiply(value, 2.0**bits, dtype=np.float64)
    return np.rint(scaled, out=scaled).astype(np.int64)


def from_fixed(value: IntArray, bits: int = DEFAULT_BITS) -> FloatArray:
    """Convert fixed-point sums to floating-point numbers."""
    return np.asarray(value * 2.0**-bits, dtype=np.float64)


def unit_of(largest: Sequence[float]) -> float:
    """Return a power of two such that values up to the sum of `largest` are between 2^8 and 2^16 of it, at most."""
    total = float(sum(largest))
    if total == 0.0:
        return 1.0
    return math.ldexp(1.0, BITS_PER_STEP * math.ceil((math.log2(total) - 2 * BITS_PER_STEP) / BITS_PER_STEP))
