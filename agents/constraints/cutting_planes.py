r"""Minimise the Lagrangian dual over prices by cutting planes.

With the votes' gain :math:`V(\lambda)` and use :math:`U(\lambda)` at prices :math:`\lambda`, and budgets :math:`b`, the
dual :math:`D(\lambda) = V + \lambda \cdot (b - U)` is convex and piecewise linear, and each evaluation gives one of its
pieces. Kelley (1960), "The cutting-plane method for solving convex programs": minimise the largest of the pieces found
so far, evaluate there, add a piece. Seen from the primal it is the decomposition of Dantzig & Wolfe (1960): the weights
of the pieces mix the choices made at their prices into a policy that keeps the budgets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from crosschannel.agents.constraints.contested import Choices, ContestedVotes
from crosschannel.agents.constraints.votes import Votes
from crosschannel.core.arrays import BoolArray, FloatArray

#: A mixture is accepted where a new piece exceeds the others by no more than this share.
DUAL_GAP = 1e-7
#: How far beside a corner the votes are evaluated, as a share of its prices.
ASIDE = 1e-4
GOLDEN_RATIO = (1.0 + 5.0**0.5) / 2.0
#: Smallest share of a mixture that is not rounding.
MIN_SHARE = 1e-12
#: A corner of C pieces needs about 15 C of them; more are found only where rounding hides the corner.
FEWEST_CUTS, CUTS_PER_BUDGET = 60, 40


@dataclass(frozen=True)
class Target:
    """Use of the votes that the prices shall reach.

    Attributes:
        least: Use (C,) that a budget with a price above 0 must reach.
        aim: Use (C,) that is aimed at.
        most: Use (C,) that no budget may exceed.
    """

    least: FloatArray
    aim: FloatArray
    most: FloatArray

    def is_met(self, prices: FloatArray, use: FloatArray) -> bool:
        """Return whether the choices at some prices (C,) use no more than allowed, and that much where priced."""
        return bool((use <= self.most).all() and (use >= self.least)[prices > 0.0].all())


@dataclass(frozen=True)
class Box:
    """Prices between which the dual is minimised.

    Attributes:
        low: Lowest prices (C,).
        high: Highest prices (C,).
        outer: Prices (C,) that no minimum exceeds.
    """

    low: FloatArray
    high: FloatArray
    outer: FloatArray

    @classmethod
    def around(cls, prices: FloatArray, radius: FloatArray, outer: FloatArray) -> Box:
        """Return a box around prices (C,), between 0 and the outer prices."""
        return cls(np.maximum(prices - radius, 0.0), np.minimum(prices + radius, outer), outer)

    @property
    def is_whole(self) -> bool:
        """Whether the box holds every price that a minimum may have."""
        return not (self.low > 0.0).any() and bool((self.high >= self.outer).all())

    def cuts_off(self, prices: FloatArray) -> BoolArray:
        """Return which prices (C,) are at a side of the box beyond which the dual may be lower."""
        return ((prices <= self.low) & (self.low > 0.0)) | ((prices >= self.high) & (self.high < self.outer))


@dataclass(frozen=True)
class Minimum:
    """Where the dual is lowest.

    Attributes:
        prices: Where the dual is lowest (C,), or the price vector that meets the target.
        mixture: Prices (M, C) whose choices together keep the budgets.
        shares: The share of each (M,).
        choices: Gain and use of that mixture.
        bound: Value of the dual at the prices: no policy gains more within the budgets.
        cut_off: Which prices (C,) are at a side of the box. Where one is, the mixture need not keep the budgets.
    """

    prices: FloatArray
    mixture: FloatArray
    shares: FloatArray
    choices: Choices
    bound: float
    cut_off: BoolArray


def minimise(votes: Votes | ContestedVotes, target: Target, box: Box) -> Minimum:
    """Find prices in a box at which the votes' use is as aimed at, or the mixture of prices with the largest gain.

    One price vector is enough where votes are many: then the first that meets the target is returned. Where votes are
    few or equal, their use changes in steps, and a mixture of at most C + 1 price vectors reaches the aim between them.
    These are next to corners of the dual and not on them, where votes for several actions are equally good.

    Args:
        votes: The votes.
        target: What they shall use. Aims are above 0.
        box: Where to search.
    """
    prices, lower = (box.low + box.high) / 2.0, -1.0  # every piece is above that
    shares, at, found = np.zeros(0), list[FloatArray](), list[Choices]()
    while True:
        beside = np.clip(prices * _beside(len(prices), len(at)), box.low, box.high)
        choices = votes.evaluate(beside)
        if target.is_met(beside, choices.use):
            return _single(beside, choices, target)
        above = _dual(prices, choices, target.aim) - lower
        if above <= DUAL_GAP * lower or len(at) >= FEWEST_CUTS + CUTS_PER_BUDGET * len(prices):
            break
        at.append(beside)
        found.append(choices)
        prices, shares, lower = _lowest_corner(at, found, target, box)
    used = np.flatnonzero(shares > MIN_SHARE)
    shares = shares[used] / shares[used].sum()
    mixed = Choices(
        float(shares @ np.array([found[k].gain for k in used])), shares @ np.stack([found[k].use for k in used])
    )
    cut_off, bound = box.cuts_off(prices), _dual(prices, votes.evaluate(prices), target.most)
    if _dual(beside, choices, target.most) < bound:
        prices, bound = beside, _dual(beside, choices, target.most)
    return Minimum(prices, np.stack([at[k] for k in used]), shares, mixed, bound, cut_off)


def _single(prices: FloatArray, choices: Choices, target: Target) -> Minimum:
    inside = np.zeros(len(prices), dtype=bool)
    return Minimum(prices, prices[None], np.ones(1), choices, _dual(prices, choices, target.most), inside)


def _beside(budgets: int, count: int) -> FloatArray:
    """Return factors (C,) next to 1, others each time: at a corner itself rounding decides how equal votes choose."""
    spread = (np.arange(1.0, budgets + 1.0) * GOLDEN_RATIO + count * GOLDEN_RATIO**2 / 2.0) % 1.0
    return 1.0 + ASIDE * np.where(spread < 0.5, spread - 1.0, spread)


def _dual(prices: FloatArray, choices: Choices, budgets: FloatArray) -> float:
    return float(choices.gain + prices @ (budgets - choices.use))


def _lowest_corner(
    at: list[FloatArray], found: list[Choices], target: Target, box: Box
) -> tuple[FloatArray, FloatArray, float]:
    """Return where in the box the largest piece is lowest (C,), the pieces' weights there (K,), and its value.

    The linear program is in units in which the lowest dual so far and the aims are 1, and no entry is much larger.
    """
    scale = min(_dual(prices, choices, target.aim) for prices, choices in zip(at, found, strict=True))
    count, unit = len(target.aim), scale / target.aim
    slopes = np.stack([choices.use for choices in found]) / target.aim
    gains = np.array([choices.gain for choices in found]) / scale
    size = np.maximum(np.maximum(slopes.max(1), gains), 1.0)
    solution = linprog(
        np.ones(count + 1),
        A_ub=-np.column_stack([slopes, np.ones(len(at))]) / size[:, None],
        b_ub=-gains / size,
        bounds=[*zip(box.low / unit, box.high / unit, strict=True), (None, None)],
        method="highs-ds",
    )
    prices = np.clip(solution.x[:count] * unit, box.low, box.high)
    return prices, -solution.ineqlin.marginals / size, float(solution.fun * scale)
