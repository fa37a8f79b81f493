"""Shadow prices: what each budget's use must cost, so that greedy votes keep the budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crosschannel.agents.constraints.contested import FloatingArray
from crosschannel.agents.constraints.cutting_planes import Box, Minimum, Target, minimise
from crosschannel.agents.constraints.votes import Votes, count_votes
from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import ConfigError

#: Votes aim at this share of each budget below it, and may use as much again or less.
MARGIN = 0.0025
#: Rows that are compared at once where the arrays are checked.
ROWS_PER_CHECK = 2**14
#: Use beyond a budget that is rounding, as a share of it.
ROUNDING = 1e-9
#: A budget is spent if no more than this share remains of what the votes would use without prices.
NEGLIGIBLE = 1e-8
#: Votes in the first sample, and how many times as many each further one has.
FIRST_SAMPLE, GROWTH = 2**12, 8
#: Half a box's width around prices from a sample, in units of one over the square root of its votes.
SAMPLING_ERRORS = 20.0
#: What is added to a price for that width, as a share of the price that no minimum exceeds.
LEAST_PRICE = 0.05
#: How many times as wide a box becomes whose minimum is at its side.
WIDENING = 2.0


class InfeasibleBudget(ConfigError):
    """Budgets that are exceeded even if every vote sends nothing: by the floor's uniform draws, or without messages.

    Attributes:
        names: The budgets.
        budgets: The amounts of all budgets (C,).
        feasible: The nearest amounts (C,) that can be kept together; `shadow_prices` accepts them.
        floor: The largest floor with which the budgets can be kept; None if they are exceeded without messages.
    """

    def __init__(
        self,
        names: Sequence[str],
        budgets: FloatArray,
        organic: FloatArray,
        least: FloatArray,
        floor: float,
        remedy: str = "",
    ) -> None:
        self._arguments = (names, budgets, organic, least, floor, remedy)
        over = least > budgets
        self.names = tuple(name for name, exceeds in zip(names, over, strict=True) if exceeds)
        self.budgets, self.feasible = budgets, np.maximum(budgets, least)
        shares = (budgets - organic)[over] / np.maximum(least - organic, np.finfo(float).tiny)[over]
        self.floor = None if (organic > budgets).any() else floor * float(shares.min())
        lines = [
            f"{name}: the budget is {budgets[c]:.6g}, but {least[c]:.6g} are expected even if no vote sends anything: "
            f"{organic[c]:.6g} without messages, {least[c] - organic[c]:.6g} by the floor's uniform draws"
            for c, name in enumerate(names)
            if over[c]
        ]
        lower = "" if self.floor is None else f", or lower the floor from {floor:g} to {self.floor:.3g}"
        super().__init__("\n".join([*lines, remedy or f"Raise these budgets to at least what is expected{lower}"]))

    def with_remedy(self, remedy: str) -> InfeasibleBudget:
        """Return the error with another last line, for budgets that follow from settings."""
        return type(self)(*self._arguments[:-1], remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments


@dataclass(frozen=True)
class Prices:
    """Shadow prices of C budgets.

    Attributes:
        prices: The price (C,) of each budget, per unit of use; 0 where the budget does not bind.
        mixture: Price vectors (M, C) at which votes are counted. M is 1 where votes are many; where they are few or
            equal, no single one reaches the budgets, and at most C + 1 vectors next to `prices` do so together.
        shares: The share of each price vector (M,) in the policy.
        use: Expected use (C,) of the policy, with votes, floor and eligibility.
        binding: Which budgets (C,) bind: those whose price is above 0.
        gain: Expected value of the votes beyond sending nothing, without floor.
        gap: How much more any policy with this floor could gain within the budgets, as a share of that; at most.
    """

    prices: FloatArray
    mixture: FloatArray
    shares: FloatArray
    use: FloatArray
    binding: BoolArray
    gain: float
    gap: float


def shadow_prices(
    values: FloatingArray,
    mask: BoolArray,
    use: FloatingArray,
    budgets: FloatArray,
    floor: float = 0.0,
    names: Sequence[str] | None = None,
) -> Prices:
    r"""Return the prices at which the policy's expected use keeps the budgets, with the largest gain.

    The policy of user n takes action a with probability

    .. math:: \pi_n(a) = (1 - \epsilon) \frac{1}{L} \sum_l 1[a = \arg\max_{a'} v_{lna'} - \lambda \cdot u_{na'}]
        + \epsilon / n_{eligible}

    and the prices :math:`\lambda \ge 0` are such that :math:`\sum_n \sum_a \pi_n(a) u_{cna} \le b_c`, with equality
    within 1 % wherever :math:`\lambda_c > 0`. They do not depend on what is drawn later, so that the propensities
    are exact. A budget of which less than 1e-8 of the use without prices remains beside the floor counts as spent:
    no vote takes what uses it.

    Args:
        values: Values (L, N, A) of the first module's actions for L votes; L = 1 is the greedy policy.
        mask: Eligible actions (N, A). Action 0, which sends nothing, always is.
        use: Expected use (C, N, A), for no action less than for action 0, which is what happens without a message.
        budgets: Budgets (C,) for all N users together.
        floor: Probability of a uniform draw from the eligible actions.
        names: The budgets' names, for error messages.

    Raises:
        InfeasibleBudget: If a budget is exceeded even if every vote sends nothing.
        ConfigError: If an array has another shape, or an entry that it must not have.
    """
    budgets = np.asarray(budgets, dtype=np.float64)
    _check(values, mask, use, budgets, floor)
    use, organic = _beyond_nothing(use)
    least = organic + floor * _uniform_use(mask, use, floor)
    if (least > budgets * (1.0 + ROUNDING)).any():
        raise InfeasibleBudget(names or [f"budget {c}" for c in range(len(budgets))], budgets, organic, least, floor)
    votes = Votes(values, mask, use, (1.0 - floor) / len(values))
    found = _solve(votes, np.maximum(budgets - least, 0.0), ROUNDING * budgets)
    return Prices(
        prices=found.prices,
        mixture=found.mixture,
        shares=found.shares,
        use=least + found.choices.use,
        binding=found.prices > 0.0,
        gain=found.choices.gain,
        gap=1.0 - found.choices.gain / found.bound if found.bound > 0.0 else 0.0,
    )


def priced_shares(
    values: FloatingArray, mask: BoolArray, use: FloatingArray, prices: Prices, floor: float = 0.0
) -> FloatArray:
    """Return the policy's exact probabilities (N, A) of the first module's actions at frozen prices.

    Args:
        values: Values (L, N, A) of the actions for L votes.
        mask: Eligible actions (N, A).
        use: Expected use (C, N, A).
        prices: What `shadow_prices` returned.
        floor: Probability of a uniform draw from the eligible actions.
    """
    use, _ = _beyond_nothing(use)
    shares = floor * _uniform_shares(mask)
    for at, share in zip(prices.mixture, prices.shares, strict=True):
        shares += (1.0 - floor) * share * count_votes(values, mask, use, at)
    return shares


def _solve(votes: Votes, remaining: FloatArray, rounding: FloatArray) -> Minimum:
    """Find the prices of budgets of which something remains, and prohibitive ones of those that are spent.

    Args:
        votes: The votes.
        remaining: What the votes may use of each budget (C,).
        rounding: What may remain (C,) of a budget that is spent.
    """
    none = np.zeros(len(remaining))
    unpriced = votes.evaluate(none)
    spent = remaining <= np.maximum(rounding, NEGLIGIBLE * unpriced.use)
    more = none
    if spent.any():
        more = np.where(spent, votes.prohibitive_prices(), 0.0)
        votes = votes.without_use(spent)
        unpriced = votes.evaluate(none)
    if (unpriced.use <= remaining).all():
        return Minimum(more, more[None], np.ones(1), unpriced, unpriced.gain, none > 0.0)
    target = Target(
        least=remaining * (1.0 - 2.0 * MARGIN),
        aim=np.where(spent, 1.0, remaining * (1.0 - MARGIN)),
        most=remaining,
    )
    found = _coarse_to_fine(votes, target, np.where(spent, 0.0, unpriced.gain / target.aim))
    return replace(found, prices=found.prices + more, mixture=found.mixture + more)


def _coarse_to_fine(votes: Votes, target: Target, outer: FloatArray) -> Minimum:
    """Minimise on samples that grow, each in a box around the prices before, and at last on all votes.

    A sample only says where to look: where the last minimum is at a side of its box, the box is moved and widened.
    """
    box, size = Box(np.zeros(len(outer)), outer, outer), FIRST_SAMPLE
    while size * GROWTH <= votes.count:
        prices = _minimise_beyond(votes.sample(size), target, box).prices
        radius = SAMPLING_ERRORS / np.sqrt(size) * (prices + LEAST_PRICE * outer)
        box, size = Box.around(prices, radius, outer), size * GROWTH
    return _minimise_beyond(votes, target, box)


def _minimise_beyond(votes: Votes, target: Target, box: Box) -> Minimum:
    """Minimise in a box that follows the minimum until it holds it; Marsten, Hogan & Blankenship (1975), "Boxstep"."""
    while True:
        active = votes if box.is_whole else votes.between(box.low, box.high)
        found = minimise(active, target, box)
        if not found.cut_off.any():
            return found
        box = Box.around(found.prices, WIDENING * (box.high - box.low), box.outer)


def _beyond_nothing(use: FloatingArray) -> tuple[FloatingArray, FloatArray]:
    """Return what each action uses beyond action 0 (C, N, A), and what action 0 uses for all users together (C,)."""
    nothing = use[:, :, :1]
    if not nothing.any():
        return use, np.zeros(len(use))
    return use - nothing, nothing.sum((1, 2), dtype=np.float64)


def _uniform_use(mask: BoolArray, use: FloatingArray, floor: float) -> FloatArray:
    """Return what uniform draws from the eligible actions use (C,); not computed without a floor."""
    if floor == 0.0:
        return np.zeros(len(use))
    return np.asarray((np.einsum("na,cna->cn", mask, use, dtype=np.float64) / mask.sum(1)).sum(1))


def _uniform_shares(mask: BoolArray) -> FloatArray:
    return np.asarray(mask / mask.sum(1, keepdims=True))


def _check(values: FloatingArray, mask: BoolArray, use: FloatingArray, budgets: FloatArray, floor: float) -> None:
    """Refuse arrays whose shapes do not fit together, and entries without a meaning."""
    shapes = f"values {values.shape}, mask {mask.shape}, use {use.shape}, budgets {budgets.shape}"
    fits = values.ndim == 3 and values.shape[1:] == mask.shape and use.shape == (*budgets.shape, *mask.shape)
    if not fits or not values.shape[0] or not mask.shape[1]:
        raise ConfigError(f"shapes {shapes}: they must be (L, N, A), (N, A), (C, N, A) and (C,), with L and A above 0")
    if not 0.0 <= floor <= 1.0:
        raise ConfigError(f"floor is {floor}: a share lies between 0 and 1")
    if not ((budgets >= 0.0) & (budgets < np.inf)).all():
        raise ConfigError(f"budgets are {budgets.tolist()}: each must be a finite number of at least 0")
    if not mask[:, 0].all():
        raise ConfigError(f"action 0 is not eligible for {(~mask[:, 0]).sum():,} users: sending nothing always is")
    if use.size and not (use.min() >= 0.0 and use.max() < np.inf):
        raise ConfigError("use has entries that are negative or not finite: a hazard is at least 0")
    rows = [slice(start, start + ROWS_PER_CHECK) for start in range(0, len(mask), ROWS_PER_CHECK)]
    if use[:, :, 0].any() and any((use[:, part] < use[:, part, :1]).any() for part in rows):
        raise ConfigError("an action uses less than action 0, which sends nothing: count it as using the same")
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        wrong = sum(int((~np.isfinite(values[:, part]) & mask[part]).any((0, 2)).sum()) for part in rows)
        if wrong:
            raise ConfigError(f"values of eligible actions are not finite for {wrong:,} of {len(mask):,} users")
