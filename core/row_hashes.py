"""Hashes of rows whose sums do not depend on the order of the rows or on how they are divided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import IntArray, UIntArray
from crosschannel.core.hashing import derive, mix

#: Two sums of 64 bits make a digest of 128.
SALTS = (0x66616374, 0x73656564)


def row_hashes(start: UIntArray, columns: Sequence[npt.NDArray[Any]]) -> UIntArray:
    """Return a hash of each row (n,) of some columns (n,), in their order, from a hash of what they are about (n,)."""
    out = start
    for column in columns:
        out = mix(out ^ _bits(column))
    return out


def sums_of_hashes(rows: UIntArray, table: int) -> UIntArray:
    """Return two sums (2,) of hashes (n,), modulo 2^64: they add up over parts of a log.

    Args:
        rows: The hashes.
        table: Number of the table that the rows are of: equal rows of two tables are different.
    """
    return np.array([derive(rows, salt ^ table).sum(dtype=np.uint64) for salt in SALTS], dtype=np.uint64)


def sums_by_group(rows: UIntArray, group: IntArray, groups: int, table: int) -> UIntArray:
    """Return the sums of `sums_of_hashes` (groups, 2) of each group of rows, by its code (n,)."""
    out = np.zeros((groups, len(SALTS)), dtype=np.uint64)
    for k, salt in enumerate(SALTS):
        np.add.at(out[:, k], group, derive(rows, salt ^ table))
    return out


def _bits(column: npt.NDArray[Any]) -> UIntArray:
    """Return the bits of each entry (n,); all entries that are not a number are equal."""
    if column.dtype.kind == "f":
        plain = np.where(np.isnan(column), -np.inf, column).astype(np.float64)
        return plain.view(np.uint64)
    return np.ascontiguousarray(column).astype(np.int64 if column.dtype.kind == "i" else np.uint64).view(np.uint64)
