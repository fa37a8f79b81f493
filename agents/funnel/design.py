"""The columns of regressions in which the modules' effects add up, and their prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crosschannel.core.action_changes import design_matrix
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import IntArray

#: Columns up to which every effect varies with the whole context: the cost of a fit grows with their cube.
MAX_COLUMNS = 4096
#: Share of these up to which actions have effects of their own for each choice of the module that they are conditioned
#: on.
SHARE_OF_TABLES = 0.5
#: Messages for each column from which effects vary with the context and an earlier module; a fit of few rows is then
#: cheap too.
MESSAGES_PER_COLUMN = 1
#: Share of a cell's prior variance that cells with the same labels have in common.
SHARED_BY_LABELS = 0.5


@dataclass(frozen=True)
class Design:
    r"""Columns of :math:`\psi(x)^\top \beta + \sum_m \varphi(x)^\top \theta_{m, a_m}`.

    The first part is common to all messages, with features :math:`\psi(x) = [1, x, |x|]`; each cell of each module (an
    action, or an entry of its table) adds an effect of its own, with :math:`\varphi(x) = [1, x]`. The context is
    divided by the root of its width, so that the prior variance of a block is the variance that it explains.

    Attributes:
        modules: All known actions.
        effects: The same actions, whose cells have effects: without the modules' conditions where an action's effects
            are the same whatever the module has chosen that it is conditioned on.
        width: Number of context features D.
        base: Number of columns of the common part.
        each: Number of columns of one cell: 1 + D, or 1 where these would be more than `MAX_COLUMNS` in all.
        cells: Number of cells of each module.
        starts: First column of each module.
        block: Block of each column, which share a prior variance: the common intercept, each common slope and absolute
            value, then each module's intercepts, and its slopes of each context feature.
        group: Group of each block (blocks,), whose variances are similar: the common intercept, slopes and absolute
            values, then each module's intercepts and slopes.
        affinity: For each module, the inverse of the prior correlation of its cells (cells, cells).
    """

    modules: ActionSpace
    effects: ActionSpace
    width: int
    base: int
    each: int
    cells: tuple[int, ...]
    starts: tuple[int, ...]
    block: Tensor
    group: Tensor
    affinity: tuple[Tensor, ...]

    @classmethod
    def build(cls, modules: ActionSpace, width: int) -> Design:
        """Build the columns for an action space and a number of context features.

        An action has effects of its own for each choice of the module that it is conditioned on, if these take at most
        `SHARE_OF_TABLES` of the columns that a fit may have.
        """
        shared, each = modules.without_conditions(), 1 + width
        if _columns(modules, width, each) <= SHARE_OF_TABLES * MAX_COLUMNS:
            return cls._build(modules, modules, width, each)
        return cls._build(modules, shared, width, each if _columns(shared, width, each) <= MAX_COLUMNS else 1)

    def of_rows(self, messages: int) -> Design:
        """Return the columns for a number of messages: those of all effects if these are enough for each column."""
        if messages >= MESSAGES_PER_COLUMN * self.columns:
            return self
        if messages >= MESSAGES_PER_COLUMN * _columns(self.modules.without_conditions(), self.width, self.each):
            return self.without_conditions()
        return self.with_intercepts_only()

    @property
    def shared(self) -> bool:
        """Whether an action's effects are the same whatever the module has chosen that it is conditioned on."""
        return self.effects != self.modules

    def without_conditions(self) -> Design:
        """Return the columns of effects that are the same whatever an earlier module has chosen."""
        return self._build(self.modules, self.modules.without_conditions(), self.width, self.each)

    def with_intercepts_only(self) -> Design:
        """Return the columns without the slopes of the cells' effects."""
        return self._build(self.modules, self.effects, self.width, 1)

    @classmethod
    def _build(cls, modules: ActionSpace, effects: ActionSpace, width: int, each: int) -> Design:
        cells = tuple(effects.n_table_cells(m) for m in range(len(effects)))
        base = 1 + 2 * width
        block = [torch.arange(base)] + [base + m * each + torch.arange(each).repeat(n) for m, n in enumerate(cells)]
        group = [0] + [1] * width + [2] * width
        for m in range(len(cells)):
            group += [3 + 2 * m] + [4 + 2 * m] * (each - 1)
        starts = (base + each * np.concatenate([[0], np.cumsum(cells)[:-1]])).astype(int)
        affinity = tuple(_affinity(effects, m) for m in range(len(effects)))
        return cls(
            modules=modules,
            effects=effects,
            width=width,
            base=base,
            each=each,
            cells=cells,
            starts=tuple(starts.tolist()),
            block=torch.cat(block),
            group=torch.tensor(group),
            affinity=affinity,
        )

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.block)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.group)

    @property
    def groups(self) -> int:
        """Number of groups of blocks."""
        return 3 + 2 * len(self.cells)

    def scale_slopes(self, coefficients: Tensor, weight: float) -> Tensor:
        """Return coefficients (..., columns) with the slopes of the cells' effects multiplied by a weight."""
        return torch.where(self.slopes[self.block], weight * coefficients, coefficients)

    @property
    def slopes(self) -> Tensor:
        """Which blocks (blocks,) are slopes of the cells' effects."""
        return (self.group > 3) & (self.group % 2 == 0)

    @property
    def contexts(self) -> Tensor:
        """Which columns (columns,) vary with the context: all but the intercepts."""
        out = self.slopes[self.block]
        out[1 : self.base] = True
        return out

    def common(self, x: Tensor) -> Tensor:
        """Return the features (N, base) of the common part, for contexts (N, D)."""
        scaled = x / max(self.width, 1) ** 0.5
        return torch.cat([x.new_ones(len(x), 1), scaled, scaled.abs()], 1)

    def of_cells(self, x: Tensor) -> Tensor:
        """Return the features (N, each) of every cell's effect, for contexts (N, D)."""
        ones = x.new_ones(len(x), 1)
        return torch.cat([ones, x / max(self.width, 1) ** 0.5], 1) if self.each > 1 else ones

    def cells_of(self, actions: IntArray) -> Tensor:
        """Return the cell of each module (n, M) for actions (n, M)."""
        found = [self.effects.table_cell(m, actions) for m in range(len(self.cells))]
        return torch.from_numpy(np.stack(found, 1))

    def cells_of_table(self, m: int) -> Tensor:
        """Return the cell of each entry of module m's table (entries,): that of its action if effects are shared."""
        return torch.arange(self.modules.n_table_cells(m)) % self.cells[m]

    def precision(self, variance: Tensor) -> Tensor:
        """Return the prior precision (columns, columns) for the blocks' variances (blocks,)."""
        out = torch.diag(1.0 / variance[self.block])
        for m, (start, count) in enumerate(zip(self.starts, self.cells, strict=True)):
            inside = torch.arange(start, start + count * self.each).view(count, self.each)
            for k in range(self.each):
                columns = inside[:, k]
                out[columns[:, None], columns] = self.affinity[m] / variance[self.block[start + k]]
        return out

    def squares(self, coefficients: Tensor) -> Tensor:
        """Return the prior's quadratic form of coefficients (columns, C) by block (blocks, C), at variance 1."""
        return self._by_block(coefficients, coefficients)

    def _by_block(self, left: Tensor, right: Tensor) -> Tensor:
        out = torch.zeros(self.blocks, left.shape[1], dtype=left.dtype)
        out.index_add_(0, self.block[: self.base], left[: self.base] * right[: self.base])
        for m, (start, count) in enumerate(zip(self.starts, self.cells, strict=True)):
            stop = start + count * self.each
            a, b = (part[start:stop].view(count, self.each, -1) for part in (left, right))
            out.index_add_(
                0, self.block[start : start + self.each], torch.einsum("akc,ab,bkc->kc", a, self.affinity[m], b)
            )
        return out


def _columns(effects: ActionSpace, width: int, each: int) -> int:
    """Return the number of columns, which says whether to build them: their prior takes the inverse of many cells."""
    return 1 + 2 * width + each * sum(effects.n_table_cells(m) for m in range(len(effects)))


def _affinity(modules: ActionSpace, m: int) -> Tensor:
    """Return the inverse of the prior correlation of module m's cells: cells with equal labels go together."""
    shared = design_matrix(modules, m)[:, 1:]
    size = np.square(shared).sum(1).mean() if shared.size else 0.0
    correlation = np.eye(modules.n_table_cells(m))
    if size > 0:
        correlation = (1.0 - SHARED_BY_LABELS) * correlation + SHARED_BY_LABELS * shared @ shared.T / size
    return torch.from_numpy(np.linalg.inv(correlation))
