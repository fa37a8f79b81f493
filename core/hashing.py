"""Stable hashes of ids: the same on every machine, after every restart and in every order of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import FloatArray, UIntArray


def mix(values: UIntArray) -> UIntArray:
    """Scrambles 64-bit words so that neighbours become independent: the finaliser of splitmix64.

    Steele, Lea & Flood (2014), "Fast splittable pseudorandom number generators", OOPSLA.
    """
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def keys(ids: npt.NDArray[Any]) -> UIntArray:
    """One 64-bit key for each id (n,), from its text, so that 17 and "17" are the same user."""
    array = np.asarray(ids)
    text = array.astype(str).astype(object) if array.dtype.kind != "O" else array
    return np.asarray(pd.util.hash_array(np.asarray(text, dtype=object), categorize=False), dtype=np.uint64)


def derive(key: UIntArray, salt: int) -> UIntArray:
    """New independent keys from old ones and a salt."""
    salted = mix(np.asarray([salt & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))[0]
    return mix(np.asarray(key, dtype=np.uint64) ^ salted)


def unit(words: UIntArray) -> FloatArray:
    """Numbers strictly between 0 and 1 from the upper 52 bits of 64-bit words: with 53, the largest would be 1."""
    return (words >> np.uint64(12)).astype(np.float64) * 2.0**-52 + 2.0**-53


def uniforms(key: UIntArray, salt: int) -> FloatArray:
    """Uniform numbers in (0, 1), one for each key, that depend on nothing but the key and the salt."""
    return unit(derive(key, salt))
