"""Numbers by cell of two sets of users as those of both together: the cells of either, ascending, each once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import IntArray
from crosschannel.reward.exact_sums import ExactSums

_EARLIEST = np.iinfo(np.int64).min


@dataclass(frozen=True)
class MergedCells:
    """The cells of two sets of users (a,) and (b,), merged.

    Attributes:
        cell: The merged cells, ascending (c,).
        code: Index among them of each cell of the first set, then of each of the second (a + b,).
    """

    cell: IntArray
    code: IntArray

    @classmethod
    def from_cells(cls, first: IntArray, second: IntArray) -> MergedCells:
        """Merge the cells (a,) and (b,)."""
        return cls(*np.unique(np.concatenate([first, second]), return_inverse=True))

    def counts(self, first: IntArray, second: IntArray) -> IntArray:
        """Return whole numbers (c,), added up by cell."""
        return np.bincount(self.code, np.concatenate([first, second]), len(self.cell)).astype(np.int64)

    def sums(self, first: ExactSums, second: ExactSums) -> ExactSums:
        """Return exact sums (c,), added up by cell."""
        return ExactSums.combine([first, second], self.code, len(self.cell))

    def smallest(self, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the smaller number of each cell (c,)."""
        return smallest(np.concatenate([first, second]), self.code, len(self.cell))

    def largest(self, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the larger number of each cell (c,)."""
        return largest(np.concatenate([first, second]), self.code, len(self.cell))


def smallest(values: npt.NDArray[Any], code: IntArray, size: int) -> npt.NDArray[Any]:
    """Return the smallest of some numbers (n,) by the code of their cell (n,), of `size` cells that all have some."""
    out = np.full(size, np.inf, dtype=values.dtype)
    np.minimum.at(out, code, values)
    return out


def largest(values: npt.NDArray[Any], code: IntArray, size: int) -> npt.NDArray[Any]:
    """Return the largest of some numbers or times (n,) by the code of their cell (n,), as `smallest` does."""
    out = np.full(size, _EARLIEST if values.dtype.kind == "i" else -np.inf, dtype=values.dtype)
    np.maximum.at(out, code, values)
    return out
