"""Sums over rows from which the regressions of a design follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from crosschannel.agents.funnel.design import Design

ROWS_PER_CHUNK = 1 << 16


@dataclass(frozen=True)
class DesignStatistics:
    """Weighted sums over rows, float64; they add up over rows, days and buckets.

    Attributes:
        gram: Products of columns (D, D).
        moment: Products of columns and targets (D, T).
        square: Squares of the targets (T,).
        rows: Number of rows.
    """

    gram: Tensor
    moment: Tensor
    square: Tensor
    rows: int

    @classmethod
    def empty(cls, columns: int, targets: int) -> DesignStatistics:
        """Return the sums of no row."""
        gram, moment = (torch.zeros(columns, width, dtype=torch.float64) for width in (columns, targets))
        return cls(gram, moment, torch.zeros(targets, dtype=torch.float64), rows=0)

    def __add__(self, other: DesignStatistics) -> DesignStatistics:
        if self.rows == 0 or other.rows == 0:  # matrices of 0 take no memory until something is written
            return other if self.rows == 0 else self
        return DesignStatistics(
            self.gram + other.gram, self.moment + other.moment, self.square + other.square, self.rows + other.rows
        )

    def add_in_place(self, other: DesignStatistics) -> DesignStatistics:
        """Return these sums with other rows, added in place where both have some: nothing else may use these sums."""
        if self.rows == 0 or other.rows == 0:
            return other if self.rows == 0 else self
        return DesignStatistics(
            gram=self.gram.add_(other.gram),
            moment=self.moment.add_(other.moment),
            square=self.square.add_(other.square),
            rows=self.rows + other.rows,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the sums as tensors and plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> DesignStatistics:
        """Restore what `state_dict` returned."""
        gram, moment, square = (state[name].clone() for name in ("gram", "moment", "square"))
        return cls(gram, moment, square, int(state["rows"]))

    def target(self, index: int) -> DesignStatistics:
        """Return the sums with one of the targets."""
        return DesignStatistics(self.gram, self.moment[:, index : index + 1], self.square[index : index + 1], self.rows)


def sum_rows(
    design: Design, x: Tensor, cells: Tensor, targets: Tensor, weight: Tensor | None = None
) -> DesignStatistics:
    """Sum rows in which something was sent.

    A pair of cells is summed at once, as the columns of all other cells are 0: of two modules with A and B actions
    there are A x B products of n / (A B) rows each. Chunks are summed in single precision and added in double.

    Args:
        design: The columns.
        x: Contexts (n, D).
        cells: Each module's cell (n, M).
        targets: Targets (n, T).
        weight: Weights (n,), 1 by default.
    """
    total = RunningSums.zeros(design, targets.shape[1])
    total.add(design, x, cells, targets, weight)
    return total.statistics()


@dataclass
class RunningSums:
    """Sums to which rows are added in place; of the Gram matrix the upper half.

    Attributes:
        gram: Products of columns (D, D), the upper half.
        moment: Products of columns and targets (D, T).
        square: Squares of the targets (T,).
        rows: Number of rows.
    """

    gram: Tensor
    moment: Tensor
    square: Tensor
    rows: int = 0

    @classmethod
    def zeros(cls, design: Design, targets: int) -> RunningSums:
        """Return the sums of no row."""
        empty = DesignStatistics.empty(design.columns, targets)
        return cls(empty.gram, empty.moment, empty.square)

    def add(self, design: Design, x: Tensor, cells: Tensor, targets: Tensor, weight: Tensor | None = None) -> None:
        """Add rows, in the precision of their contexts within a chunk: see `sum_rows`."""
        for start in range(0, len(x), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            part = x[rows]
            root = part.new_ones(len(part), 1) if weight is None else weight[rows].sqrt().unsqueeze(1)
            y = targets[rows] * root
            columns = design.common(part) * root, design.of_cells(part) * root
            _add_chunk(design, self.gram, self.moment, *columns, cells[rows], y)
            self.square += y.double().square().sum(0)
        self.rows += len(x)

    def statistics(self) -> DesignStatistics:
        """Return the sums, whose matrix is that of these: nothing may be added to these afterwards."""
        self.gram.triu_()
        self.gram += self.gram.triu(1).t()
        return DesignStatistics(self.gram, self.moment, self.square, self.rows)


def sum_common(design: Design, x: Tensor, targets: Tensor, weight: Tensor) -> DesignStatistics:
    """Sum rows with weights (n,) and the columns of the common part alone, such as those in which nothing was sent."""
    gram = torch.zeros(design.base, design.base, dtype=torch.float64)
    moment = torch.zeros(design.base, targets.shape[1], dtype=torch.float64)
    for start in range(0, len(x), ROWS_PER_CHUNK):
        rows = slice(start, start + ROWS_PER_CHUNK)
        root = weight[rows].sqrt().unsqueeze(1)
        common = design.common(x[rows]) * root
        gram += (common.t() @ common).double()
        moment += (common.t() @ (targets[rows] * root)).double()
    square = (targets.double().square() * weight.double().unsqueeze(1)).sum(0)
    return DesignStatistics(gram, moment, square, len(x))


def _add_chunk(
    design: Design, gram: Tensor, moment: Tensor, common: Tensor, own: Tensor, cells: Tensor, y: Tensor
) -> None:
    """Add a chunk to the upper triangle of the Gram matrix and to the moments, in place."""
    b = design.base
    gram[:b, :b] += (common.t() @ common).double()
    moment[:b] += (common.t() @ y).double()
    for m in range(len(design.cells)):
        order = torch.argsort(cells[:, m], stable=True)
        counts = torch.bincount(cells[:, m], minlength=design.cells[m]).tolist()
        for cell, rows in enumerate(torch.split(order, counts)):
            if not len(rows):
                continue
            mine, at = own[rows], _place(design, m, cell)
            gram[:b, at] += (common[rows].t() @ mine).double()
            moment[at] += (mine.t() @ y[rows]).double()
            gram[at, at] += (mine.t() @ mine).double()
            for j in range(m + 1, len(design.cells)):
                inner = torch.argsort(cells[rows, j], stable=True)
                sizes = torch.bincount(cells[rows, j], minlength=design.cells[j]).tolist()
                for other, part in enumerate(torch.split(mine[inner], sizes)):
                    if len(part):
                        gram[at, _place(design, j, other)] += (part.t() @ part).double()


def _place(design: Design, m: int, cell: int) -> slice:
    start = design.starts[m] + cell * design.each
    return slice(start, start + design.each)
