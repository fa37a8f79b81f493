"""Counter-based random numbers: each is a hash of user, day and purpose, so that no draw depends on another."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray, UIntArray
from crosschannel.core.hashing import mix, unit

MAX_POISSON_COUNT = 250


class Purpose(enum.IntEnum):
    """Purpose of a draw. The numbers are part of the market's definition: changing one changes every simulation."""

    USER_KEY = 1
    USER = 2
    CALENDAR = 3
    POLICY = 4
    ORGANIC_VISITS = 10
    ORGANIC_TIME = 11
    ORGANIC_ORDER = 12
    DAY_KIND = 13
    DELIVERED_TIME = 20
    OPENED = 21
    OPENED_TIME = 22
    UNSUBSCRIBED = 23
    UNSUBSCRIBED_TIME = 24
    EXTRA_VISITS = 25
    EXTRA_TIME = 26
    EXTRA_ORDER = 27
    EXTRA_DELAY = 28
    EXTRA_OFFLINE = 29


def random_words(
    key: UIntArray,
    purpose: Purpose,
    day: npt.ArrayLike = 0,
    first: npt.ArrayLike = 0,
    second: npt.ArrayLike = 0,
    number: npt.ArrayLike = 0,
) -> UIntArray:
    """Return random 64-bit words, one for each combination of key and counters; all arguments broadcast.

    Args:
        key: 64-bit keys of users.
        purpose: Purpose of the draw.
        day: Market day, below 2^16.
        first: A counter below 2^8, such as a service.
        second: Another counter below 2^8, such as a block.
        number: A counter below 2^16, such as the number of a visit.
    """
    packed: Any = np.uint64(int(purpose))
    for counter, bits in ((day, 16), (first, 8), (second, 8), (number, 16)):
        packed = (packed << np.uint64(bits)) | np.asarray(counter).astype(np.uint64)
    return mix(np.asarray(key ^ mix(np.asarray(packed, dtype=np.uint64)), dtype=np.uint64))


def uniform(
    key: UIntArray,
    purpose: Purpose,
    day: npt.ArrayLike = 0,
    first: npt.ArrayLike = 0,
    second: npt.ArrayLike = 0,
    number: npt.ArrayLike = 0,
) -> FloatArray:
    """Return uniform numbers in (0, 1); arguments as in `random_words`."""
    return unit(random_words(key, purpose, day, first, second, number))


def normal(
    key: UIntArray, purpose: Purpose, first: int, second: npt.ArrayLike = 0, day: npt.ArrayLike = 0
) -> FloatArray:
    """Return standard normal numbers from two uniforms: Box & Muller (1958), Annals of Mathematical Statistics."""
    radius = np.sqrt(-2.0 * np.log(uniform(key, purpose, day, first, second, 0)))
    return np.asarray(radius * np.cos(2.0 * np.pi * uniform(key, purpose, day, first, second, 1)))


def poisson(u: FloatArray, rate: npt.ArrayLike) -> IntArray:
    """Return Poisson counts of given rates by inversion: the smallest k with `u <= P(count <= k)`.

    Rates are those of single users and blocks, below 100; counts are at most `MAX_POISSON_COUNT`. For a fixed u the
    count rises with the rate, so that potential outcomes that share u differ as little as possible.
    """
    rates = np.broadcast_to(np.asarray(rate, dtype=np.float64), u.shape)
    nothing = np.exp(-rates)
    count = np.zeros(u.shape, dtype=np.int64)
    rest = np.flatnonzero(u > nothing)
    term = nothing.reshape(-1)[rest]
    below, target, mean = term, u.reshape(-1)[rest], rates[np.unravel_index(rest, u.shape)]
    k = 0
    while len(rest) and k < MAX_POISSON_COUNT:
        k += 1
        term = term * mean / k
        below = below + term
        count.reshape(-1)[rest] = k
        more = target > below
        rest, term, below, target, mean = rest[more], term[more], below[more], target[more], mean[more]
    return count


def categorical(u: FloatArray, probabilities: FloatArray) -> IntArray:
    """Return codes (N,) with probabilities (N, A) by inversion of uniforms (N,); probability 0 is never drawn."""
    cumulative = np.cumsum(probabilities, axis=1)
    cumulative /= cumulative[:, -1:]
    return np.asarray((u[:, None] >= cumulative).sum(1), dtype=np.int64)


def inverse(u: FloatArray, shares: Sequence[float]) -> IntArray:
    """Return codes with the given probabilities, the same for all, by inversion of uniforms of any shape."""
    return np.asarray(np.searchsorted(np.cumsum(shares)[:-1], u, side="right"), dtype=np.int64)
