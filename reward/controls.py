"""Means of the controls by cell, and widening a cell until it has enough of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.exact_sums import ExactSums


@dataclass(frozen=True)
class CellMeans:
    r"""Mean change of the controls in each cell, each with a weight such as the odds of a message.

    .. math:: \bar\Delta_c = \frac{\sum_j w_j \Delta_j}{W_c}, \qquad
        n_c = \frac{W_c^2}{\sum_j w_j^2}, \qquad
        s_c^2 = \frac{n_c}{n_c - 1} \frac{\sum_j w_j (\Delta_j - \bar\Delta_c)^2}{W_c}

    with equal weights the plain number, mean and standard deviation. Kish (1965), "Survey sampling".

    Attributes:
        cell: Cells, ascending (c,).
        n: Effective number of controls in each (c,).
        mean: Their mean change (c,).
        sd: Standard deviation of their change (c,).
        closes: When the last of the windows that it rests on closes, microseconds (c,); 0 where that was not given.
    """

    cell: IntArray
    n: FloatArray
    mean: FloatArray
    sd: FloatArray
    closes: IntArray

    @classmethod
    def of(
        cls,
        values: FloatArray,
        cell: IntArray,
        counts: FloatArray | None,
        closes: IntArray | None = None,
        odds: FloatArray | None = None,
    ) -> CellMeans:
        """Averages values (n,) of controls by cell (n,), each counted `counts` (n,) times with weight `odds` (n,)."""
        cells, code = np.unique(cell, return_inverse=True)
        size = len(cells)
        m = np.ones(len(values)) if counts is None else counts
        odds = None if odds is None or (odds == 1.0).all() else odds
        o = np.ones(len(values)) if odds is None else _relative(odds, code, size)
        w = m * o
        total = ExactSums.from_values(w, code, size).value()
        last = np.zeros(size, dtype=np.int64)
        if closes is not None:
            last[:] = np.iinfo(np.int64).min
            np.maximum.at(last, code, closes)
        with np.errstate(divide="ignore", invalid="ignore"):
            n = total if odds is None else total**2 / ExactSums.from_values(w * o, code, size).value()
            mean = ExactSums.from_values(w * values, code, size).value() / total
            # In units of a power of two near the cell's largest distance, squares stay small enough for exact sums.
            distance = np.where(w > 0, values - mean[code], 0.0)
            unit = np.ldexp(1.0, np.frexp(_largest(np.abs(distance), code, size))[1])
            square = ExactSums.from_values(w * (distance / unit[code]) ** 2, code, size).value()
            # Without weights total and n are equal, and this is exactly n - 1.
            sd = sd_of(square, unit, total - total / n)
        return cls(cells, n, mean, sd, last)

    def look_up(self, cell: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Number, mean and standard deviation (n,) for each cell asked for; 0 and NaN where there is none."""
        hit, place = self.find(cell)
        if len(self.cell) == 0:
            return np.zeros(len(cell)), np.full(len(cell), np.nan), np.full(len(cell), np.nan)
        return (
            np.where(hit, self.n[place], 0.0),
            np.where(hit, self.mean[place], np.nan),
            np.where(hit, self.sd[place], np.nan),
        )

    def find(self, cell: IntArray) -> tuple[BoolArray, IntArray]:
        """Whether there are controls in each cell asked for (n,), and its place among the cells (n,)."""
        if len(self.cell) == 0:
            return np.zeros(len(cell), dtype=bool), np.zeros(len(cell), dtype=np.int64)
        place = np.minimum(np.searchsorted(self.cell, cell), len(self.cell) - 1)
        return self.cell[place] == cell, place

    def expected(self, cell: IntArray) -> Expected:
        """What the controls of each cell asked for (n,) say about a decision without a message."""
        n, mean, sd = self.look_up(cell)
        hit, place = self.find(cell)
        closes = np.where(hit, self.closes[place], 0) if len(self.cell) else np.zeros(len(cell), dtype=np.int64)
        with np.errstate(divide="ignore", invalid="ignore"):
            se = sd * np.sqrt(1.0 + 1.0 / n)
        return Expected(n, mean, se, closes, np.zeros(len(cell), dtype=np.int64))


def sd_of(square: FloatArray, unit: FloatArray, freedom: FloatArray) -> FloatArray:
    """Standard deviations (c,) from sums of squared distances (c,) in squares of units (c,), by degrees of freedom."""
    return np.asarray(unit * np.sqrt(square / freedom))


def _largest(values: FloatArray, code: IntArray, size: int) -> FloatArray:
    out = np.zeros(size)
    np.maximum.at(out, code, values)
    return out


def _relative(weights: FloatArray, code: IntArray, size: int) -> FloatArray:
    """Weights (n,) in units of a power of two near the cell's largest, so that tiny ones keep their digits."""
    return np.asarray(np.ldexp(weights, -np.frexp(_largest(weights, code, size))[1][code]))


@dataclass(frozen=True)
class Expected:
    """What is expected of n decisions without a message. All arrays (n,).

    Attributes:
        n: Controls that it rests on, an effective number where they have weights.
        mean: Expected change.
        se: Standard error of one decision's reward: a new control's distance from an estimated mean.
        closes: When the last window of these controls closes, microseconds.
        level: How often the cell was widened; -1 where even the widest cell has too few controls.
    """

    n: FloatArray
    mean: FloatArray
    se: FloatArray
    closes: IntArray
    level: IntArray


def narrowest(found: Iterable[Expected], least: int) -> Expected:
    """For each decision the first of several expectations, narrow to wide, that rests on `least` controls.

    Where none does, the widest stays, at level -1.
    """
    chosen: Expected | None = None
    for level, wider in enumerate(found):
        enough = (wider.n >= least) & ~np.isnan(wider.mean)
        if chosen is None:
            chosen = Expected(wider.n, wider.mean, wider.se, wider.closes, np.where(enough, level, -1))
            continue
        kept = chosen.level >= 0
        chosen = Expected(
            n=np.where(kept, chosen.n, wider.n),
            mean=np.where(kept, chosen.mean, wider.mean),
            se=np.where(kept, chosen.se, wider.se),
            closes=np.where(kept, chosen.closes, wider.closes),
            level=np.where(kept, chosen.level, np.where(enough, level, -1)),
        )
    assert chosen is not None  # there is always the widest level
    return chosen
