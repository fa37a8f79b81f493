"""The terms of many estimates, stacked so that a bootstrap replicate computes all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.evaluation.estimators import Terms


@dataclass(frozen=True)
class StackedTerms:
    """The terms of all estimates, stacked for the bootstrap: constants, slopes and denominators."""

    constant: _Stack
    slope: _Stack
    denominator: _Stack

    @classmethod
    def build(cls, terms: Sequence[Terms | None], n: int) -> StackedTerms:
        """Stack terms; estimates without any get a denominator of 0, so that they have no value."""
        zeros = np.zeros(n)
        nothing = Terms(constant=zeros, slope=zeros, denominator=zeros)
        filled = [nothing if t is None else t for t in terms]
        return cls(
            constant=_Stack.build([t.constant for t in filled]),
            slope=_Stack.build([t.slope for t in filled]),
            denominator=_Stack.build([t.denominator for t in filled]),
        )

    def values(self, counts: FloatArray, rewards: FloatArray) -> FloatArray:
        """Return the values (K,) for counts (n,) and rewards (n,); NaN where the denominator is 0."""
        denominator = self.denominator.sums(counts)
        total = self.constant.sums(counts) + self.slope.sums(counts * rewards)
        return np.asarray(total / np.where(denominator > 0, denominator, np.nan))

    def influence(self, k: int, counts: FloatArray, rewards: FloatArray, value: float) -> FloatArray:
        r"""Return the influences of the decisions (n,) on value k, the rewards held fixed; NaN if it is undefined.

        .. math:: \psi_i = c_i (\text{constant}_i + \text{slope}_i r_i - \hat V \, \text{denominator}_i) /
            \textstyle\sum_j c_j \, \text{denominator}_j
        """
        denominator = counts * self.denominator.row(k)
        error = counts * (self.constant.row(k) + self.slope.row(k) * rewards) - value * denominator
        return np.asarray(error / np.where(denominator.any(), denominator.sum(), np.nan))


@dataclass(frozen=True)
class _Stack:
    """K arrays (n,), of which many are the same object: a row for each distinct one, and each array's row (K,)."""

    rows: FloatArray
    row_of: IntArray

    @classmethod
    def build(cls, arrays: Sequence[FloatArray]) -> _Stack:
        distinct = {id(array): array for array in arrays}
        row_of = {key: row for row, key in enumerate(distinct)}
        return cls(
            rows=np.stack(list(distinct.values())),
            row_of=np.array([row_of[id(array)] for array in arrays], dtype=np.int64),
        )

    def row(self, k: int) -> FloatArray:
        """Return array k (n,)."""
        return np.asarray(self.rows[self.row_of[k]])

    def sums(self, counts: FloatArray) -> FloatArray:
        """Return the sums of the arrays (K,), with decisions counted `counts` (n,) times."""
        return np.asarray((self.rows @ counts)[self.row_of])
