"""Mean change of the controls by cell, and the fallback to wider cells where controls are too few."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.reward.exact_sums import ExactSums

#: An effective number of controls is rounded by less than this share of it.
ROUNDING = 1e-9


@dataclass(frozen=True)
class WeightedMeans:
    """Means of the controls by cell, without their spread: see `CellMeans`.

    Attributes:
        n: Effective number of controls in each cell (c,).
        mean: Their mean (c,).
        total: Sum of their weights (c,).
        weight: Weight of each control (n,), counts included.
    """

    n: FloatArray
    mean: FloatArray
    total: FloatArray
    weight: FloatArray


@dataclass(frozen=True)
class Controls:
    """Controls grouped by cell, whose values can be averaged with any counts.

    Attributes:
        cell: Cells, ascending (c,).
        code: Index of each control's cell among them (n,).
        weights: Weight of each control (n,), as given; None where all are 1.
        unit: A power of two, in which exact sums of values are kept: see `FittedPreprocessing.unit`.
    """

    cell: IntArray
    code: IntArray
    weights: FloatArray | None
    unit: float = 1.0

    @classmethod
    def from_cells(cls, cell: IntArray, weights: FloatArray | None = None, unit: float = 1.0) -> Controls:
        """Group controls by their cells (n,), with weights (n,) that are not tiny: see `near_one_by_cell`."""
        cells, code = np.unique(cell, return_inverse=True)
        return cls(cells, code, None if weights is None or (weights == 1.0).all() else weights, unit)

    def average(self, values: FloatArray, counts: FloatArray | None = None) -> WeightedMeans:
        """Average values (n,) by cell, each counted `counts` (n,) times."""
        size, weights = len(self.cell), 1.0 if self.weights is None else self.weights
        w = (np.ones(len(values)) if counts is None else counts) * weights
        total = ExactSums.from_values(w, self.code, size).value()
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.weights is None:
                n = total
            else:
                n = total**2 / ExactSums.from_values(w * weights, self.code, size).value()
            mean = ExactSums.from_values(w * (values / self.unit), self.code, size).value() / total * self.unit
        # Where all weights of a draw are below the resolution of the cell's largest, there are no controls.
        return WeightedMeans(np.where(total > 0, n, 0.0), np.where(total > 0, mean, np.nan), total, w)


def find(cells: IntArray, cell: IntArray) -> tuple[BoolArray, IntArray]:
    """Return whether each cell asked for (n,) is one of some ascending cells (c,), and its index among them (n,)."""
    if len(cells) == 0:
        return np.zeros(len(cell), dtype=bool), np.zeros(len(cell), dtype=np.int64)
    place = np.minimum(np.searchsorted(cells, cell), len(cells) - 1)
    return cells[place] == cell, place


@dataclass(frozen=True)
class CellMeans:
    r"""Mean change of the controls in each cell, each with a weight such as the odds of a message.

    .. math:: \bar\Delta_c = \frac{\sum_j w_j \Delta_j}{W_c}, \qquad
        n_c = \frac{W_c^2}{\sum_j w_j^2}, \qquad
        s_c^2 = \frac{n_c}{n_c - 1} \frac{\sum_j w_j (\Delta_j - \bar\Delta_c)^2}{W_c}

    With equal weights these are the plain number, mean and standard deviation. Kish (1965), "Survey sampling".

    Attributes:
        cell: Cells, ascending (c,).
        n: Effective number of controls in each (c,).
        mean: Their mean change (c,).
        sd: Standard deviation of their change (c,).
        closes_at: When the last window that the mean rests on closes, microseconds (c,); 0 where that was not given.
    """

    cell: IntArray
    n: FloatArray
    mean: FloatArray
    sd: FloatArray
    closes_at: IntArray

    @classmethod
    def fit(
        cls,
        values: FloatArray,
        cell: IntArray,
        counts: FloatArray | None,
        closes_at: IntArray | None = None,
        weights: FloatArray | None = None,
        unit: float = 1.0,
    ) -> CellMeans:
        """Average values (n,) of controls by cell (n,), each counted `counts` (n,) times with its weight (n,).

        Weights must not be tiny (`near_one_by_cell`). Exact sums are kept in a `unit`, a power of two.
        """
        controls = Controls.from_cells(cell, weights, unit)
        code, size = controls.code, len(controls.cell)
        average = controls.average(values, counts)
        n, mean, total, w = average.n, average.mean, average.total, average.weight
        last = np.zeros(size, dtype=np.int64)
        if closes_at is not None:
            last[:] = np.iinfo(np.int64).min
            np.maximum.at(last, code, closes_at)
        with np.errstate(divide="ignore", invalid="ignore"):
            # In units of a power of two near the cell's largest distance, squares stay small enough for exact sums.
            distance = np.where((w > 0) & (total[code] > 0), values - mean[code], 0.0)
            largest = np.ldexp(1.0, np.frexp(_largest(np.abs(distance), code, size))[1])
            square = ExactSums.from_values(w * (distance / largest[code]) ** 2, code, size).value()
            # Without weights total and n are equal, and this is exactly n - 1.
            sd = sd_from_squares(square, largest, total - total / n)
        return cls(cell=controls.cell, n=n, mean=mean, sd=sd, closes_at=last)

    def look_up(self, cell: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return number, mean and standard deviation (n,) for each cell asked for; 0 and NaN where there is none."""
        hit, place = self.find(cell)
        if len(self.cell) == 0:
            return np.zeros(len(cell)), np.full(len(cell), np.nan), np.full(len(cell), np.nan)
        return (
            np.where(hit, self.n[place], 0.0),
            np.where(hit, self.mean[place], np.nan),
            np.where(hit, self.sd[place], np.nan),
        )

    def find(self, cell: IntArray) -> tuple[BoolArray, IntArray]:
        """Return whether there are controls in each cell asked for (n,), and its index among the cells (n,)."""
        return find(self.cell, cell)

    def expected(self, cell: IntArray) -> ExpectedChange:
        """Return the change that the controls of each cell asked for (n,) predict for a decision without a message."""
        n, mean, sd = self.look_up(cell)
        hit, place = self.find(cell)
        closes_at = np.where(hit, self.closes_at[place], 0) if len(self.cell) else np.zeros(len(cell), dtype=np.int64)
        with np.errstate(divide="ignore", invalid="ignore"):
            se = sd * np.sqrt(1.0 + 1.0 / n)
        return ExpectedChange(n=n, mean=mean, se=se, closes_at=closes_at, level=np.zeros(len(cell), dtype=np.int64))


def sd_from_squares(square: FloatArray, unit: FloatArray, freedom: FloatArray) -> FloatArray:
    """Return standard deviations (c,) from sums of squared distances in squared units (c,) and degrees of freedom."""
    return np.asarray(unit * np.sqrt(square / freedom))


def _largest(values: FloatArray, code: IntArray, size: int) -> FloatArray:
    out = np.zeros(size)
    np.maximum.at(out, code, values)
    return out


def near_one_by_cell(weights: FloatArray, cell: IntArray) -> FloatArray:
    """Divide weights (n,) by a power of two near the largest of their cell (n,), so that tiny ones keep their digits.

    Means by cell are the same. Inverse probabilities are at least 1 and do not need it: buckets can sum them before
    the largest of a cell is known.
    """
    if (weights == 1.0).all():
        return weights
    cells, code = np.unique(cell, return_inverse=True)
    return np.asarray(np.ldexp(weights, -np.frexp(_largest(weights, code, len(cells)))[1][code]))


@dataclass(frozen=True)
class ExpectedChange:
    """The change that is expected of n decisions without a message. All arrays (n,).

    Attributes:
        n: Controls that it rests on, an effective number where they have weights.
        mean: Expected change.
        se: Standard error of one decision's reward: the distance of a new control from an estimated mean.
        closes_at: When the last window of these controls closes, microseconds.
        level: Level of the cell, as in `Matching.levels`; -1 where even the widest cell has too few controls.
    """

    n: FloatArray
    mean: FloatArray
    se: FloatArray
    closes_at: IntArray
    level: IntArray


def are_enough(n: FloatArray, min_controls: int) -> BoolArray:
    """Return where effective numbers of controls (n,) are at least `min_controls`, but for rounding.

    Twenty controls with equal weights have an effective number that may be a rounding error below 20.
    """
    return np.asarray(n >= min_controls * (1.0 - ROUNDING))


def narrowest_sufficient(found: Iterable[ExpectedChange], min_controls: int) -> ExpectedChange:
    """Take for each decision the first of several expectations, narrow to wide, with at least `min_controls` controls.

    Where none has, the widest stays, at level -1.
    """
    chosen: ExpectedChange | None = None
    for level, wider in enumerate(found):
        enough = are_enough(wider.n, min_controls) & ~np.isnan(wider.mean)
        if chosen is None:
            chosen = ExpectedChange(
                n=wider.n,
                mean=wider.mean,
                se=wider.se,
                closes_at=wider.closes_at,
                level=np.where(enough, level, -1),
            )
            continue
        done = chosen.level >= 0
        chosen = ExpectedChange(
            n=np.where(done, chosen.n, wider.n),
            mean=np.where(done, chosen.mean, wider.mean),
            se=np.where(done, chosen.se, wider.se),
            closes_at=np.where(done, chosen.closes_at, wider.closes_at),
            level=np.where(done, chosen.level, np.where(enough, level, -1)),
        )
    assert chosen is not None  # there is always the widest level
    return chosen
