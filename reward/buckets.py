"""DiD rewards of a history in buckets: controls are summed per bucket, the sums added up, then each bucket rewarded.

Three passes over the buckets, each a pure function of one bucket; between them only numbers per cell are kept. All sums
are exact and all other steps independent of order, so that rewards are equal to the last bit to those of the whole
history, however it is divided and whichever engine runs the passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.exact_sums import ExactSums
from crosschannel.histories.readers.folder import read_history
from crosschannel.reward.controls import CellMeans, sd_of
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.measurement.outcomes import NO_CELL, measure
from crosschannel.reward.measurement.preprocessing import Gauge
from crosschannel.reward.models import FittedDid
from crosschannel.reward.spec import RewardSpec

Run = Callable[[Callable[[Path], Any], Sequence[Path]], Iterator[Any]]

_FURTHEST = np.iinfo(np.int64)


@dataclass(frozen=True)
class ControlSums:
    """What the controls of some users add to each cell; `+` gives that of all their users.

    Attributes:
        cell: Cells, ascending (c,).
        n: Controls in each (c,).
        total: Sums of their changes (c,).
        least: Smallest change (c,).
        most: Largest change (c,).
        closes: When the last of their windows closes, microseconds (c,).
    """

    cell: IntArray
    n: IntArray
    total: ExactSums
    least: FloatArray
    most: FloatArray
    closes: IntArray

    @classmethod
    def of(cls, change: FloatArray, cell: IntArray, closes: IntArray) -> ControlSums:
        """Sums over controls: changes (n,), cells (n,) and the times at which windows close (n,)."""
        cells, code = np.unique(cell, return_inverse=True)
        return cls(
            cell=cells,
            n=np.bincount(code, minlength=len(cells)).astype(np.int64),
            total=ExactSums.from_values(change, code, len(cells)),
            least=_extreme(np.minimum, np.inf, change, code, len(cells)),
            most=_extreme(np.maximum, -np.inf, change, code, len(cells)),
            closes=_extreme(np.maximum, _FURTHEST.min, closes, code, len(cells)),
        )

    def __add__(self, other: ControlSums) -> ControlSums:
        cells, code = np.unique(np.concatenate([self.cell, other.cell]), return_inverse=True)
        size = len(cells)
        return ControlSums(
            cell=cells,
            n=np.bincount(code, np.concatenate([self.n, other.n]), size).astype(np.int64),
            total=ExactSums.combine([self.total, other.total], code, size),
            least=_extreme(np.minimum, np.inf, np.concatenate([self.least, other.least]), code, size),
            most=_extreme(np.maximum, -np.inf, np.concatenate([self.most, other.most]), code, size),
            closes=_extreme(np.maximum, _FURTHEST.min, np.concatenate([self.closes, other.closes]), code, size),
        )

    @property
    def mean(self) -> FloatArray:
        """Mean change of each cell's controls (c,)."""
        return self.total.value() / self.n

    @property
    def unit(self) -> FloatArray:
        """A power of two above the largest distance of a cell's changes from their mean (c,)."""
        # Rounding keeps order: the largest rounded distance is that of the smallest or of the largest change.
        largest = np.maximum(np.abs(self.most - self.mean), np.abs(self.least - self.mean))
        return np.ldexp(1.0, np.frexp(largest)[1])

    def means(self, squares: ControlSquares) -> CellMeans:
        """The controls of all users as a fitted DiD reward looks them up, as `CellMeans.of` makes them at once."""
        with np.errstate(divide="ignore", invalid="ignore"):
            n = self.n.astype(np.float64)
            return CellMeans(self.cell, n, self.mean, sd_of(squares.total.value(), self.unit, n - 1.0), self.closes)


@dataclass(frozen=True)
class ControlSquares:
    """Sums of squared distances from the mean (c,), in squares of the cells' units, over cells (c,); `+` adds users."""

    cell: IntArray
    total: ExactSums

    def __add__(self, other: ControlSquares) -> ControlSquares:
        cells, code = np.unique(np.concatenate([self.cell, other.cell]), return_inverse=True)
        return ControlSquares(cells, ExactSums.combine([self.total, other.total], code, len(cells)))


def control_sums(path: Path, spec: RewardSpec, gauge: Gauge) -> tuple[ControlSums, ...]:
    """First pass: the controls of a bucket, summed by the cells of each level of `spec.matching`."""
    return tuple(ControlSums.of(*rows) for rows in _controls(path, spec, gauge))


def control_squares(
    path: Path, spec: RewardSpec, gauge: Gauge, sums: tuple[ControlSums, ...]
) -> tuple[ControlSquares, ...]:
    """Second pass: their squared distances from the means over all buckets."""
    out = []
    for (change, cell, _), known in zip(_controls(path, spec, gauge), sums, strict=True):
        cells, code = np.unique(cell, return_inverse=True)
        place = np.searchsorted(known.cell, cells)
        distance = change - known.mean[place][code]
        with np.errstate(divide="ignore", invalid="ignore"):
            square = (distance / known.unit[place][code]) ** 2
        out.append(ControlSquares(cells, ExactSums.from_values(square, code, len(cells))))
    return tuple(out)


def bucket_rewards(path: Path, fitted: FittedDid) -> RewardFrame:
    """Third pass: the rewards of a bucket's decisions, in its order."""
    return fitted.transform(read_history(path))


def fit_did(paths: Sequence[Path], spec: RewardSpec, run: Run, gauge: Gauge | None = None) -> FittedDid:
    """Fits a DiD reward over buckets, as `DidReward(spec).fit` does on the history of all their users.

    Args:
        paths: The buckets: see `histories.buckets`.
        spec: What is measured.
        run: Runs a function over the buckets: an engine of `engines`.
        gauge: What was learned in order to measure. It may be left out where the spec learns nothing; otherwise it is
            that of a sample, such as one bucket's `measure(read_history(path), spec).gauge`.

    Raises:
        ConfigError: If there is no bucket, or the spec has something to learn and no gauge is given.
    """
    if not paths:
        raise ConfigError("there are no buckets to fit a reward on: the folder has none")
    if gauge is None:
        learned = [f"the winsor quantile of {goal.event!r}" for goal in spec.goals if goal.winsor is not None]
        learned += ["strata"] * (spec.matching.strata > 1) + ["attribute values"] * bool(spec.matching.within)
        learned += ["the rhythm"] * (spec.rhythm is not None)
        if learned:
            raise ConfigError(
                f"the reward learns {', '.join(learned)} from all users at once, which no bucket has: hand over the "
                "gauge of a sample, such as measure(read_history(path), spec).gauge of one bucket"
            )
        gauge = measure(read_history(paths[0]), spec).gauge
    sums = _added(run(partial(control_sums, spec=spec, gauge=gauge), paths))
    squares = _added(run(partial(control_squares, spec=spec, gauge=gauge, sums=sums), paths))
    means = tuple(total.means(square) for total, square in zip(sums, squares, strict=True))
    return FittedDid(spec=spec, gauge=gauge, controls=means)


def _controls(path: Path, spec: RewardSpec, gauge: Gauge) -> Iterator[tuple[FloatArray, IntArray, IntArray]]:
    outcomes = measure(read_history(path), spec, gauge)
    for level in spec.matching.levels:
        cell = outcomes.cells(level)
        rows = outcomes.control & (cell != NO_CELL)
        if (outcomes.stake[rows] != 1.0).any():
            raise ConfigError(
                "`overlap: exclude` weighs controls by their chance to be left alone, which these passes do not: "
                "use `shared`, or a post window that ends before the next slot"
            )
        yield outcomes.change[rows], cell[rows], outcomes.available_at[rows]


def _added(parts: Iterator[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Adds up the levels' sums over the buckets as they come: only one bucket's are held beside the total."""
    return reduce(lambda total, part: tuple(map(add, total, part)), parts)


def _extreme(function: np.ufunc, start: float, values: npt.NDArray[Any], code: IntArray, size: int) -> npt.NDArray[Any]:
    out = np.full(size, start, dtype=values.dtype)
    function.at(out, code, values)
    return out
