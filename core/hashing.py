"""Stable hashes of ids and rows: the same on every machine, after a restart and in any order of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, ObjectArray, UIntArray

#: Largest seed that all generators of random numbers take.
MAX_SEED = 2**32 - 1
#: Two sums of 64 bits make a digest of 128.
DIGEST_SALTS = (0x66616374, 0x73656564)


def mix(values: UIntArray) -> UIntArray:
    """Scramble 64-bit words so that neighbouring ones become independent, by the finaliser of splitmix64.

    Steele, Lea & Flood (2014), "Fast splittable pseudorandom number generators", OOPSLA.
    """
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def keys(ids: npt.NDArray[Any]) -> UIntArray:
    """Return a 64-bit key for each id (n,), from its text: 17 and "17" are the same user."""
    array = np.asarray(ids)
    text = array.astype(str).astype(object) if array.dtype.kind != "O" else array
    return np.asarray(pd.util.hash_array(np.asarray(text, dtype=object), categorize=False), dtype=np.uint64)


def label_keys(labels: ObjectArray) -> UIntArray:
    """Return the `keys` of labels (n,) of which few are different, each of which is hashed once."""
    codes, names = pd.factorize(labels)
    out = keys(np.array([*names, None], dtype=object))[codes]
    if (missing := codes < 0).any():
        out[missing] = keys(labels[missing])  # None and NaN are different texts
    return out


def derive(key: UIntArray, salt: int) -> UIntArray:
    """Return new keys, independent of the old ones, from these and a salt."""
    salted = mix(np.asarray([salt & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))[0]
    return mix(np.asarray(key, dtype=np.uint64) ^ salted)


def unit(words: UIntArray) -> FloatArray:
    """Return numbers strictly between 0 and 1 from the upper 52 bits of words; with 53, the largest would be 1."""
    return (words >> np.uint64(12)).astype(np.float64) * 2.0**-52 + 2.0**-53


def uniforms(key: UIntArray, salt: int) -> FloatArray:
    """Return a uniform number in (0, 1) for each key; it depends on the key and the salt only."""
    return unit(derive(key, salt))


def in_sample(key: UIntArray, share: float, salt: int) -> BoolArray:
    """Mark rows (n,) by their keys (n,): a share of them, whatever their order, and independent of other salts."""
    return uniforms(key, salt) < share


def row_fingerprints(rows: npt.NDArray[np.float32]) -> ObjectArray:
    """Return a 64-bit hash of each row (N, D) of 32-bit numbers, bit by bit, as 16 hexadecimal digits (N,)."""
    words = np.ascontiguousarray(rows, dtype=np.float32).view(np.uint32)
    out = np.full(len(words), words.shape[1], dtype=np.uint64)
    for column in words.T:
        out = mix(out ^ column)
    return hexadecimal(out[:, None])


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
    return np.array([derive(rows, salt ^ table).sum(dtype=np.uint64) for salt in DIGEST_SALTS], dtype=np.uint64)


def sums_by_group(rows: UIntArray, group: IntArray, groups: int, table: int) -> UIntArray:
    """Return the sums of `sums_of_hashes` (groups, 2) of each group of rows, by its code (n,)."""
    out = np.zeros((groups, len(DIGEST_SALTS)), dtype=np.uint64)
    for k, salt in enumerate(DIGEST_SALTS):
        np.add.at(out[:, k], group, derive(rows, salt ^ table))
    return out


def _bits(column: npt.NDArray[Any]) -> UIntArray:
    """Return the bits of each entry (n,); all entries that are not a number are equal."""
    if column.dtype.kind == "f":
        plain = np.where(np.isnan(column), -np.inf, column).astype(np.float64)
        return plain.view(np.uint64)
    return np.ascontiguousarray(column).astype(np.int64 if column.dtype.kind == "i" else np.uint64).view(np.uint64)


def hexadecimal(words: UIntArray) -> ObjectArray:
    """Return words (n, k) of 64 bits as texts of 16 k hexadecimal digits (n,)."""
    width = 16 * words.shape[1]
    digits = words.astype(">u8").tobytes().hex()
    return np.frombuffer(digits.encode(), dtype=f"S{width}").astype(str).astype(object)


def pseudonyms(ids: npt.NDArray[Any], secret: str) -> ObjectArray:
    """Return a text of 32 hexadecimal digits for each id (n,): two keyed hashes (SipHash) of its text.

    Nobody can find an id by trying all possible ones who does not know the secret.

    Args:
        ids: The ids.
        secret: 32 characters of ASCII.
    """
    texts = np.asarray(ids).astype(str).astype(object)
    words = [pd.util.hash_array(texts, hash_key=key, categorize=False) for key in (secret[:16], secret[16:])]
    return hexadecimal(np.stack(words, axis=1))
