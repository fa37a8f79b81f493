"""Sums from which average effects by `did`, their intervals and their tests follow; those of other users are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.reward.buckets.cells import MergedCells
from crosschannel.reward.controls import CellMeans, find
from crosschannel.reward.effects.estimates import Effect
from crosschannel.reward.exact_sums import ExactSums
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.measurement.outcomes import NO_CELL, Outcomes
from crosschannel.reward.models import FittedDid
from crosschannel.reward.spec import RewardSpec


@dataclass(frozen=True)
class Units:
    """Powers of two, in which exact sums are kept.

    Attributes:
        value: Of rewards: see `FittedPreprocessing.unit`.
        weight: Of the weights of decisions; 1 where all weights are.
    """

    value: float
    weight: float


@dataclass(frozen=True)
class CellSums:
    """Sums by cell (c,): of weights, of their squares, and of weighted values. `+` adds those of other users.

    Attributes:
        cell: Cells, ascending.
        n: Number of rows.
        weight: Sums of weights.
        square: Sums of their squares.
        total: Sums of weighted values.
        units: The units of these sums.
    """

    cell: IntArray
    n: IntArray
    weight: ExactSums
    square: ExactSums
    total: ExactSums
    units: Units

    @classmethod
    def from_rows(cls, value: FloatArray, cell: IntArray, weight: FloatArray, units: Units) -> CellSums:
        """Sum rows (n,) by their cells."""
        cells, code = np.unique(cell, return_inverse=True)
        size, w = len(cells), weight / units.weight
        return cls(
            cell=cells,
            n=np.bincount(code, minlength=size).astype(np.int64),
            weight=ExactSums.from_values(w, code, size),
            square=ExactSums.from_values(w**2, code, size),
            total=ExactSums.from_values(w * (value / units.value), code, size),
            units=units,
        )

    def __add__(self, other: CellSums) -> CellSums:
        both = MergedCells.from_cells(self.cell, other.cell)
        return CellSums(
            cell=both.cell,
            n=both.counts(self.n, other.n),
            weight=both.sums(self.weight, other.weight),
            square=both.sums(self.square, other.square),
            total=both.sums(self.total, other.total),
            units=self.units,
        )

    def means(self) -> CellMeans:
        """Return the means of controls by cell, without the standard deviations and times that effects do not need."""
        weight, nothing = self.weight.value(), np.full(len(self.cell), np.nan)
        n = weight**2 / self.square.value()  # exactly the number where all weights are 1
        return CellMeans(
            cell=self.cell,
            n=n,
            mean=self.total.value() / weight * self.units.value,
            sd=nothing,
            closes_at=np.zeros(len(self.cell), dtype=np.int64),
        )

    def at(self, cell: IntArray) -> FloatArray:
        """Return the sum of the weights of each cell asked for (n,); 0 where there is none."""
        hit, place = find(self.cell, cell)
        return np.where(hit, np.append(self.weight.value(), 0.0)[place], 0.0) * self.units.weight


def sum_controls(outcomes: Outcomes, spec: RewardSpec, units: Units) -> tuple[CellSums, ...]:
    """Sum the controls' changes by the cells of each level of the matching."""
    out = []
    for level in spec.matching.levels:
        cell = outcomes.cells(level)
        rows = outcomes.control & (cell != NO_CELL)
        out.append(CellSums.from_rows(outcomes.change[rows], cell[rows], outcomes.ipc_weight[rows], units))
    return tuple(out)


@dataclass(frozen=True)
class GroupSums:
    """Sums over the sent decisions of a group; `+` adds those of other users.

    Attributes:
        sent: Number of sent decisions, also without a reward.
        levels: Sums of their rewards by the cells of each level, of those whose reward is from that level.
    """

    sent: int
    levels: tuple[CellSums, ...]

    @classmethod
    def from_outcomes(
        cls, outcomes: Outcomes, spec: RewardSpec, frame: RewardFrame, group: BoolArray | None, units: Units
    ) -> GroupSums:
        """Sum the rewards of a group of decisions (n,), by default of all."""
        wanted = outcomes.treated if group is None else outcomes.treated & group
        levels = []
        for code, level in enumerate(spec.matching.levels):
            rows = np.flatnonzero(wanted & frame.identified & (frame.level == code))
            cell = outcomes.cells(level)[rows]
            levels.append(CellSums.from_rows(frame.reward[rows], cell, outcomes.ipc_weight[rows], units))
        return cls(int(wanted.sum()), tuple(levels))

    def __add__(self, other: GroupSums) -> GroupSums:
        return GroupSums(self.sent + other.sent, tuple(map(add, self.levels, other.levels)))

    @property
    def n(self) -> int:
        """Number of sent decisions with a reward."""
        return int(sum(level.n.sum() for level in self.levels))

    @property
    def weight(self) -> float:
        """Sum of their weights."""
        return _total([level.weight for level in self.levels]) * self.levels[0].units.weight

    @property
    def value(self) -> float:
        """Their mean reward."""
        units = self.levels[0].units
        return _total([level.total for level in self.levels]) / (self.weight / units.weight) * units.value


def _total(sums: Sequence[ExactSums]) -> float:
    """Return the total of sums by cell, which does not depend on the cells' order."""
    each = [ExactSums.combine([one], np.zeros(len(one.high), dtype=np.int64), 1) for one in sums]
    return float(reduce(add, each).value()[0])


@dataclass(frozen=True)
class UserSums:
    """What an interval needs of users; `+` adds other users.

    Attributes:
        square: Sum of the squares of their influence.
        users: Number of users with decisions of the group or with controls of it.
        treated: Number of users with decisions of the group.
        control: Number of users with controls of it.
        controls: Number of controls.
    """

    square: float
    users: int
    treated: int
    control: int
    controls: int

    def __add__(self, other: UserSums) -> UserSums:
        return UserSums(
            square=self.square + other.square,
            users=self.users + other.users,
            treated=self.treated + other.treated,
            control=self.control + other.control,
            controls=self.controls + other.controls,
        )

    def effect(self, sums: GroupSums, label: str) -> Effect:
        """Return the average effect on a group, with the error of `TreatmentEffects`."""
        users = self.users
        return Effect(
            label=label,
            value=sums.value,
            se=float(np.sqrt(self.square * users / (users - 1))) if users > 1 else np.nan,
            n_treated=sums.n,
            n_controls=self.controls,
            n_without=sums.sent - sums.n,
            n_users=min(self.treated, self.control),
        )


def influence_of_users(
    outcomes: Outcomes,
    fitted: FittedDid,
    frame: RewardFrame,
    controls: tuple[CellSums, ...],
    group: BoolArray | None,
    sums: GroupSums,
    users: int,
) -> tuple[UserSums, FloatArray]:
    r"""Return the influence of a bucket's users (U,) on an effect, and what its interval needs of them.

    .. math:: \psi_u = \frac{1}{W} \sum_{i \in g, u} w_i (r_i - \hat\theta)
        - \sum_l \sum_{j \in l, u} \frac{W_{g, l, c_j}}{W} \frac{w_j r_j}{W_{l, c_j}}

    with the sums of weights W over all buckets, of the group and of the controls, by the cells of each level: see
    `Influences`, of which this is the kind `did`.

    Args:
        outcomes: What was measured in the bucket (n decisions).
        fitted: The reward, fitted to all buckets.
        frame: Its rewards in the bucket.
        controls: Sums of the controls of all buckets, for each level.
        group: The decisions (n,) that the effect is about; None for all that are treated.
        sums: Sums of the group over all buckets.
        users: Number of users of the bucket.
    """
    o, spec = outcomes, fitted.spec
    wanted = o.treated if group is None else o.treated & group
    rows = np.flatnonzero(wanted & frame.identified)
    own = (frame.reward[rows] - sums.value) * (o.ipc_weight[rows] / sums.weight)
    influence = np.bincount(o.user[rows], own, users).astype(np.float64)
    used = np.zeros(len(o), dtype=bool)
    levels = zip(spec.matching.levels, fitted.at_each_level(), controls, sums.levels, strict=True)
    for level, alone, in_cells, of_group in levels:
        reward = alone.transform_outcomes(o).reward
        cell = o.cells(level)
        behind = np.flatnonzero(o.control & ~np.isnan(reward))
        share = of_group.at(cell[behind]) / sums.weight
        behind, share = behind[share > 0], share[share > 0]
        mean = o.ipc_weight[behind] * reward[behind] / in_cells.at(cell[behind])
        influence -= np.bincount(o.user[behind], share * mean, users)
        used[behind] = True
    is_treated, is_control = (np.bincount(o.user[some], minlength=users) > 0 for some in (rows, used))
    found = UserSums(
        square=float((influence**2).sum()),
        users=int((is_treated | is_control).sum()),
        treated=int(is_treated.sum()),
        control=int(is_control.sum()),
        controls=int(used.sum()),
    )
    return found, influence
