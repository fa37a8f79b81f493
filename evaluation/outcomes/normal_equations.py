"""Ridge regression on indicators (x) features, from sums over decisions that are kept once, solved block by block."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve, cholesky
from scipy.sparse import bsr_array, csr_array
from scipy.sparse.linalg import LinearOperator, cg

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import NotIdentified

PATTERNS_PER_BLOCK = 256

MAX_DENSE = 600
"""Unknowns up to which the normal equations are solved as one matrix; above it, one module is eliminated first."""

MAX_SCHUR = 1200
"""Unknowns that may remain after that; above it, several modules are large, and the solution is iterative."""

CG_TOLERANCE = 1e-9
MAX_CG_STEPS = 10_000


@dataclass(frozen=True)
class NormalEquations:
    """The sums that a least-squares fit on `h (x) z` and its error need, each kept once.

    Both factors of the Gram matrix of `h (x) z` are symmetric, and two actions of one module never occur together.

    Attributes:
        n: Number of decisions.
        pairs: The pairs of indicators that occur together, as two arrays (P,), the first not larger.
        gram: Gram matrix, by pair of indicators and pair of features (P, D (D + 1) / 2).
        cross: Products of the features with the rewards (indicators, D).
        square: Sum of the squared rewards.
    """

    n: int
    pairs: tuple[IntArray, IntArray]
    gram: FloatArray
    cross: FloatArray
    square: float

    @classmethod
    def from_decisions(cls, z: FloatArray, h: FloatArray, pattern: IntArray, rewards: FloatArray) -> NormalEquations:
        """Compute the sums of the features `h[pattern] (x) z`, without ever building these.

        Decisions with the same indicators share their part of the Kronecker product, so that a Gram matrix of z for
        each distinct row of h is enough. A row has few indicators: their pairs are all that it adds to.
        """
        width, count = z.shape[1], h.shape[1]
        order = np.argsort(pattern, kind="stable")
        z, rewards = z[order], rewards[order]
        edges = np.searchsorted(pattern[order], np.arange(len(h) + 1))
        pairs, of_pair = _pairs(h)
        of_indicator = csr_array(h.T)
        left, right = np.triu_indices(width)
        gram = np.zeros((len(pairs[0]), len(left)))
        cross = np.zeros((count, width))
        for start in range(0, len(h), PATTERNS_PER_BLOCK):
            block = slice(start, min(start + PATTERNS_PER_BLOCK, len(h)))
            rows = [slice(edges[j], edges[j + 1]) for j in range(block.start, block.stop)]
            gram += of_pair[:, block] @ np.stack([(z[r].T @ z[r])[left, right] for r in rows])
            cross += of_indicator[:, block] @ np.stack([z[r].T @ rewards[r] for r in rows])
        return cls(n=len(z), pairs=pairs, gram=gram, cross=cross, square=float(rewards @ rewards))

    def __add__(self, other: NormalEquations) -> NormalEquations:
        return replace(
            self,
            n=self.n + other.n,
            gram=self.gram + other.gram,
            cross=self.cross + other.cross,
            square=self.square + other.square,
        )

    def __sub__(self, other: NormalEquations) -> NormalEquations:
        return replace(
            self,
            n=self.n - other.n,
            gram=self.gram - other.gram,
            cross=self.cross - other.cross,
            square=self.square - other.square,
        )

    def solve(self, penalty: FloatArray, count: int, eliminated: slice) -> FloatArray:
        """Return the coefficients (count, D) of the first `count` indicators alone under a diagonal penalty.

        Args:
            penalty: Penalty of each coefficient (indicators, D).
            count: Number of indicators.
            eliminated: Indicators of one module. No two of them occur together, so that their blocks of the Gram matrix
                are solved one by one; what remains has as many unknowns as the other indicators have. The time is
                linear in the number of these indicators.
        """
        width = self.cross.shape[1]
        if count * width <= MAX_DENSE:
            ridge = self._dense(np.arange(count), penalty)
            factor = cholesky(ridge, lower=True, overwrite_a=True, check_finite=False)
            solution = cho_solve((factor, True), self.cross[:count].reshape(-1), check_finite=False)
            return np.asarray(solution.reshape(count, width))
        if (count - (eliminated.stop - eliminated.start)) * width <= MAX_SCHUR:
            return self._solve_by_elimination(penalty, count, eliminated)
        return self._solve_by_iteration(penalty, count)

    def _solve_by_iteration(self, penalty: FloatArray, count: int) -> FloatArray:
        """Solve by conjugate gradients on the blocks that are not 0, preconditioned by those of single indicators."""
        width = self.cross.shape[1]
        first, second = self.pairs
        known = (first < count) & (second < count)
        blocks, first, second = self._whole(known), first[known], second[known]
        own = np.zeros((count, width, width))
        own[first[first == second]] = blocks[first == second]
        own[:, np.arange(width), np.arange(width)] += penalty[:count]
        apart = first != second
        row = np.concatenate([np.arange(count), first[apart], second[apart]])
        column = np.concatenate([np.arange(count), second[apart], first[apart]])
        order = np.argsort(row, kind="stable")
        edges = np.searchsorted(row[order], np.arange(count + 1))
        data = np.concatenate([own, blocks[apart], blocks[apart]])[order]
        matrix = bsr_array((data, column[order], edges), shape=(count * width, count * width))
        inverse = np.linalg.inv(own)

        def precondition(v: FloatArray) -> FloatArray:
            return np.asarray(np.einsum("kij,kj->ki", inverse, np.ravel(v).reshape(count, width)).reshape(-1))

        size = count * width
        solution, unfinished = cg(
            matrix,
            self.cross[:count].reshape(-1),
            rtol=CG_TOLERANCE,
            maxiter=MAX_CG_STEPS,
            M=LinearOperator((size, size), matvec=precondition, dtype=np.float64),
        )
        if unfinished:
            raise NotIdentified(f"the outcome model of {count:,} actions did not converge in {MAX_CG_STEPS:,} steps")
        return np.asarray(solution.reshape(count, width))

    def _solve_by_elimination(self, penalty: FloatArray, count: int, eliminated: slice) -> FloatArray:
        width = self.cross.shape[1]
        inside = np.zeros(count, dtype=bool)
        inside[eliminated] = True
        rest = np.flatnonzero(~inside)
        own, between = self._own_blocks(inside, penalty), self._blocks_between(inside)
        # One right-hand side for each unknown of the rest, and one for the rewards.
        right = np.concatenate([between, self.cross[:count][inside][:, :, None]], axis=2)
        solved = np.linalg.solve(own, right)
        n = len(rest) * width
        flat, back = between.reshape(-1, n), solved.reshape(-1, n + 1)
        schur = self._dense(rest, penalty) - flat.T @ back[:, :n]
        target = self.cross[rest].reshape(-1) - flat.T @ back[:, n]
        first = cho_solve(cho_factor(schur, lower=True, overwrite_a=True, check_finite=False), target)
        out = np.empty((count, width))
        out[rest] = first.reshape(-1, width)
        out[inside] = solved[:, :, n] - solved[:, :, :n] @ first
        return out

    def squared_error(self, coefficients: FloatArray) -> float:
        """Return the sum of squared errors of the coefficients (indicators, D) on these decisions."""
        first, second = self.pairs
        left, right = np.triu_indices(self.cross.shape[1])
        a, b = coefficients[first], coefficients[second]
        # Each pair of different indicators or features stands twice in the whole matrix.
        products = a[:, left] * b[:, right]
        products += np.where(left == right, 0.0, a[:, right] * b[:, left])
        quadratic = np.einsum("pf,pf->p", self.gram, products) @ np.where(first == second, 1.0, 2.0)
        return float(self.square - 2 * (coefficients * self.cross).sum() + quadratic)

    def _whole(self, rows: BoolArray) -> FloatArray:
        """Return the matrices (k, D, D) of some pairs."""
        width = self.cross.shape[1]
        left, right = np.triu_indices(width)
        out = np.empty((int(rows.sum()), width, width))
        out[:, left, right] = out[:, right, left] = self.gram[rows]
        return out

    def _dense(self, some: IntArray, penalty: FloatArray) -> FloatArray:
        """Return the ridge matrix of some indicators, ascending, as one matrix."""
        width = self.cross.shape[1]
        place = np.full(len(self.cross), -1)
        place[some] = np.arange(len(some))
        first, second = (place[each] for each in self.pairs)
        both = (first >= 0) & (second >= 0)
        blocks, first, second = self._whole(both), first[both], second[both]
        out = np.zeros((len(some), width, len(some), width))
        out[first, :, second, :] = blocks
        out[second, :, first, :] = blocks
        matrix = out.reshape(len(some) * width, -1)
        matrix[np.diag_indices(len(matrix))] += penalty[some].reshape(-1)
        return matrix

    def _own_blocks(self, inside: BoolArray, penalty: FloatArray) -> FloatArray:
        """Return the ridge matrices (k, D, D) of the k eliminated indicators."""
        some = np.flatnonzero(inside)
        width = self.cross.shape[1]
        first, second = self.pairs
        own = (first == second) & np.isin(first, some)
        out = np.zeros((len(some), width, width))
        out[np.searchsorted(some, first[own])] = self._whole(own)
        out[:, np.arange(width), np.arange(width)] += penalty[some]
        return out

    def _blocks_between(self, inside: BoolArray) -> FloatArray:
        """Return the Gram matrices (k, D, (count - k) D) of the eliminated indicators with the others."""
        width, count = self.cross.shape[1], len(inside)
        place = np.where(inside, np.cumsum(inside), np.cumsum(~inside)) - 1
        out = np.zeros((int(inside.sum()), width, int((~inside).sum()), width))
        for this, that in (self.pairs, self.pairs[::-1]):
            known = (this < count) & (that < count)
            known[known] = inside[this[known]] & ~inside[that[known]]
            out[place[this[known]], :, place[that[known]], :] = self._whole(known)
        return out.reshape(len(out), width, -1)


def _pairs(h: FloatArray) -> tuple[tuple[IntArray, IntArray], csr_array]:
    """Return the pairs of indicators that occur together, and which rows of h (J, indicators) have each (P, J)."""
    count = h.shape[1]
    row, column = np.nonzero(h)
    edges = np.searchsorted(row, np.arange(len(h) + 1))
    size = np.diff(edges)
    # Every indicator of a row meets the row's later ones and itself.
    later = edges[1:][row] - np.arange(len(row))
    first = np.repeat(np.arange(len(row)), later)
    second = first + np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later)
    key, code = np.unique(column[first] * count + column[second], return_inverse=True)
    values = h[row[first], column[first]] * h[row[first], column[second]]
    matrix = csr_array((values, (code, row[first])), shape=(len(key), len(size)))
    return (key // count, key % count), matrix
