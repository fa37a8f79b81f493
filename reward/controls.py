"""Means of the controls by calendar cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histories.modules import FloatArray, IntArray
from reward.sums import ExactSums


@dataclass(frozen=True)
class CellMeans:
    """Mean change of the controls in each calendar cell.

    Attributes:
        cell: Cells, ascending (c,).
        n: Controls in each (c,).
        mean: Their mean change (c,).
        sd: Standard deviation of their change (c,).
    """

    cell: IntArray
    n: FloatArray
    mean: FloatArray
    sd: FloatArray

    @classmethod
    def of(cls, values: FloatArray, cell: IntArray, weights: FloatArray | None) -> CellMeans:
        """Averages values (n,) of controls by cell (n,), each counted `weights` (n,) times."""
        cells, code = np.unique(cell, return_inverse=True)
        w = np.ones(len(values)) if weights is None else weights
        n = ExactSums.of(w, code, len(cells)).value()
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = ExactSums.of(w * values, code, len(cells)).value() / n
            square = ExactSums.of(w * (values - mean[code]) ** 2, code, len(cells)).value()
            sd = np.sqrt(square / (n - 1.0))
        return cls(cells, n, mean, sd)

    def look_up(self, cell: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Number, mean and standard deviation (n,) for each cell asked for; 0 and NaN where there is none."""
        if len(self.cell) == 0:
            return np.zeros(len(cell)), np.full(len(cell), np.nan), np.full(len(cell), np.nan)
        place = np.minimum(np.searchsorted(self.cell, cell), len(self.cell) - 1)
        hit = self.cell[place] == cell
        return (
            np.where(hit, self.n[place], 0.0),
            np.where(hit, self.mean[place], np.nan),
            np.where(hit, self.sd[place], np.nan),
        )
