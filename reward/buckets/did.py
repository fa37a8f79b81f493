"""DiD rewards of a history in buckets of users: sum the controls of each bucket, add up the sums, reward each bucket.

Four passes over the buckets, each a pure function of one bucket; between them only numbers per cell are kept. All sums
are exact and all other steps independent of order, so that rewards are equal to the last bit to those of the whole
history, however it is divided and whichever engine runs the passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.histories.readers.folder import read_history
from crosschannel.reward.buckets.cells import MergedCells, largest, smallest
from crosschannel.reward.controls import CellMeans, sd_from_squares
from crosschannel.reward.exact_sums import ExactSums
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.measurement.amounts import largest_amounts
from crosschannel.reward.measurement.outcomes import NO_CELL, Outcomes, measure, measure_with
from crosschannel.reward.measurement.preprocessing import FittedPreprocessing
from crosschannel.reward.measurement.ties import check_order_is_known
from crosschannel.reward.models import FittedDid
from crosschannel.reward.spec import RewardSpec

# Runs a function over paths, as the engines of `crosschannel.engines` do.
RunOverPaths = Callable[[Callable[[Path], Any], Sequence[Path]], Iterator[Any]]


class MeasuredControls(NamedTuple):
    """The controls of some users at one level of the matching. All arrays (n,).

    Attributes:
        change: The change from before to after.
        cell: The cell.
        closes_at: When the window closes, microseconds.
        ipc_weight: The weight by the inverse probability of censoring, at least 1: see `Outcomes.ipc_weight`.
    """

    change: FloatArray
    cell: IntArray
    closes_at: IntArray
    ipc_weight: FloatArray


@dataclass(frozen=True)
class ControlSums:
    """Sums of the controls of some users by cell; `+` adds the sums of other users.

    Attributes:
        cell: Cells, ascending (c,).
        weight: Sums of the controls' weights, their number where all are 1 (c,).
        square: Sums of the squares of the weights (c,).
        total: Sums of their changes, each times its weight (c,).
        smallest: Smallest change (c,).
        largest: Largest change (c,).
        closes_at: When the last of their windows closes, microseconds (c,).
        scale: A power of two, in units of which `total` is kept: see `FittedPreprocessing.unit`.
    """

    cell: IntArray
    weight: ExactSums
    square: ExactSums
    total: ExactSums
    smallest: FloatArray
    largest: FloatArray
    closes_at: IntArray
    scale: float = 1.0

    @classmethod
    def from_controls(cls, controls: MeasuredControls, scale: float = 1.0) -> ControlSums:
        """Sum the changes of controls by cell, with the times at which their windows close."""
        cells, code = np.unique(controls.cell, return_inverse=True)
        size, change, w = len(cells), controls.change, controls.ipc_weight
        return cls(
            cell=cells,
            weight=ExactSums.from_values(w, code, size),
            square=ExactSums.from_values(w * w, code, size),
            total=ExactSums.from_values(w * (change / scale), code, size),
            smallest=smallest(change, code, size),
            largest=largest(change, code, size),
            closes_at=largest(controls.closes_at, code, size),
            scale=scale,
        )

    def __add__(self, other: ControlSums) -> ControlSums:
        both = MergedCells.from_cells(self.cell, other.cell)
        return ControlSums(
            cell=both.cell,
            weight=both.sums(self.weight, other.weight),
            square=both.sums(self.square, other.square),
            total=both.sums(self.total, other.total),
            smallest=both.smallest(self.smallest, other.smallest),
            largest=both.largest(self.largest, other.largest),
            closes_at=both.largest(self.closes_at, other.closes_at),
            scale=self.scale,
        )

    @property
    def n(self) -> FloatArray:
        """Effective number of controls in each cell, their number where all weights are 1 (c,)."""
        return np.asarray(self.weight.value() ** 2 / self.square.value())

    @property
    def mean(self) -> FloatArray:
        """Mean change of each cell's controls (c,)."""
        return self.total.value() / self.weight.value() * self.scale

    @property
    def unit(self) -> FloatArray:
        """A power of two above the largest distance of a cell's changes from their mean (c,)."""
        # Rounding keeps order: the largest rounded distance is that of the smallest or of the largest change.
        largest = np.maximum(np.abs(self.largest - self.mean), np.abs(self.smallest - self.mean))
        return np.ldexp(1.0, np.frexp(largest)[1])

    def means_alone(self) -> CellMeans:
        """Return the means by cell without standard deviations, which need another pass: they are NaN."""
        nothing = np.full(len(self.cell), np.nan)
        return CellMeans(cell=self.cell, n=self.n, mean=self.mean, sd=nothing, closes_at=self.closes_at)

    def means(self, squares: ControlSquares) -> CellMeans:
        """Return the means of all users' controls by cell, equal to those of `CellMeans.fit` on the whole history."""
        with np.errstate(divide="ignore", invalid="ignore"):
            n, total = self.n, self.weight.value()
            sd = sd_from_squares(squares.total.value(), self.unit, total - total / n)
            return CellMeans(cell=self.cell, n=n, mean=self.mean, sd=sd, closes_at=self.closes_at)


@dataclass(frozen=True)
class ControlSquares:
    """Weighted sums of squared distances from the mean by cell (c,), in squared units of the cells; `+` adds users."""

    cell: IntArray
    total: ExactSums

    def __add__(self, other: ControlSquares) -> ControlSquares:
        both = MergedCells.from_cells(self.cell, other.cell)
        return ControlSquares(both.cell, both.sums(self.total, other.total))


def control_sums(path: Path, spec: RewardSpec, preprocessing: FittedPreprocessing) -> tuple[ControlSums, ...]:
    """Sum the controls of a bucket by the cells of each level of `spec.matching`: the second pass."""
    return sums_of_controls(_measured(path, spec, preprocessing), spec)


def sums_of_controls(outcomes: Outcomes, spec: RewardSpec) -> tuple[ControlSums, ...]:
    """Sum the controls of measured outcomes by the cells of each level of `spec.matching`."""
    scale = outcomes.preprocessing.unit(spec)
    return tuple(ControlSums.from_controls(controls, scale) for controls in _controls(outcomes, spec))


def control_squares(
    path: Path, spec: RewardSpec, preprocessing: FittedPreprocessing, sums: tuple[ControlSums, ...]
) -> tuple[ControlSquares, ...]:
    """Sum the squared distances of a bucket's controls from the means over all buckets: the third pass."""
    return squares_of_controls(_measured(path, spec, preprocessing), spec, sums)


def squares_of_controls(
    outcomes: Outcomes, spec: RewardSpec, sums: tuple[ControlSums, ...]
) -> tuple[ControlSquares, ...]:
    """Sum the squared distances of the controls of measured outcomes from the means that sums over all users say."""
    out = []
    for controls, known in zip(_controls(outcomes, spec), sums, strict=True):
        cells, code = np.unique(controls.cell, return_inverse=True)
        place = np.searchsorted(known.cell, cells)
        distance = controls.change - known.mean[place][code]
        with np.errstate(divide="ignore", invalid="ignore"):
            square = controls.ipc_weight * (distance / known.unit[place][code]) ** 2
        out.append(ControlSquares(cells, ExactSums.from_values(square, code, len(cells))))
    return tuple(out)


def bucket_amounts(path: Path, spec: RewardSpec) -> FloatArray:
    """Return the largest amounts of a bucket's users (G,): they determine the scales of exact sums: the first pass."""
    return largest_amounts(spec.goals, read_history(path))


def bucket_rewards(path: Path, fitted: FittedDid) -> RewardFrame:
    """Return the rewards of a bucket's decisions, in its order: the last pass."""
    return fitted.transform(read_history(path))


def fit_did(
    paths: Sequence[Path], spec: RewardSpec, run: RunOverPaths, preprocessing: FittedPreprocessing | None = None
) -> FittedDid:
    """Fit a DiD reward over buckets, as `DidReward(spec).fit` does on the history of all their users.

    Args:
        paths: The buckets: see `histories.buckets`.
        spec: What is measured.
        run: Runs a function over the buckets: an engine of `crosschannel.engines`.
        preprocessing: What is fitted in order to measure. It may be left out where the spec has nothing to fit;
            otherwise it is that of a sample, such as one bucket's `measure(read_history(path), spec).preprocessing`.

    Raises:
        ConfigError: If there is no bucket, or the spec has something to fit and no preprocessing is given.
    """
    if not paths:
        raise ConfigError("there are no buckets to fit a reward on: the folder has none")
    if preprocessing is None:
        if fitted := spec.fitted_from_all_users:
            raise ConfigError(
                f"the reward fits {', '.join(fitted)} from all users at once, which no bucket has: pass the "
                "preprocessing of a sample, such as measure(read_history(path), spec).preprocessing of one bucket"
            )
        amounts = reduce(np.maximum, run(partial(bucket_amounts, spec=spec), paths))
        preprocessing = replace(measure(read_history(paths[0]), spec).preprocessing, largest=amounts)
    sums = sum_over_buckets(run(partial(control_sums, spec=spec, preprocessing=preprocessing), paths))
    squares = sum_over_buckets(run(partial(control_squares, spec=spec, preprocessing=preprocessing, sums=sums), paths))
    means = tuple(total.means(square) for total, square in zip(sums, squares, strict=True))
    return FittedDid(spec=spec, preprocessing=preprocessing, controls=means)


def _measured(path: Path, spec: RewardSpec, preprocessing: FittedPreprocessing) -> Outcomes:
    history = read_history(path)
    check_order_is_known(history, spec.goals)
    return measure_with(history, spec, preprocessing)


def _controls(outcomes: Outcomes, spec: RewardSpec) -> Iterator[MeasuredControls]:
    for level in spec.matching.levels:
        cell = outcomes.cells(level)
        rows = outcomes.control & (cell != NO_CELL)
        yield MeasuredControls(
            outcomes.change[rows], cell[rows], outcomes.available_at[rows], outcomes.ipc_weight[rows]
        )


def sum_over_buckets(parts: Iterator[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Add up the levels' sums over the buckets as they arrive: only one bucket's are held beside the total."""
    return reduce(lambda total, part: tuple(map(add, total, part)), parts)
