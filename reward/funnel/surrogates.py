r"""The surrogate index: what frequent earlier events are worth, as far as they foretell a goal.

For goal Y and the counts S of its surrogates, in windows in which nothing was sent,

.. math:: Y = \alpha + S^\top \pi + \varepsilon, \qquad \pi \ge 0,

by least squares. The index :math:`S^\top \pi` then takes the goal's place on both sides of a decision. The effect of a
message on the index equals its effect on the goal if, given the surrogates, the goal does not depend on the message
(surrogacy), and if surrogates foretell the goal after a message as they do without one (comparability). Each user's
prices come from the other folds of users, so that no user's own goal events enter the prices of his or her visits.
Athey, Chetty, Imbens & Kang (2019), "The surrogate index: combining short-term proxies to estimate long-term treatment
effects more rapidly and precisely", NBER working paper 26463.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import NotIdentified
from crosschannel.reward.exact_sums import ExactSums

#: Windows without a message per price: with fewer, prices would be noise alone.
MIN_WINDOWS_PER_PRICE = 5


@dataclass(frozen=True)
class SurrogateIndex:
    """The prices of a goal's S surrogates, in units of the goal.

    Attributes:
        price: Prices for the users of each fold, learned from the other folds (F, S).
        precision: Inverse of the surrogates' centred sums of squares and products over all folds (S, S), 0 for those
            whose price is held at 0: the derivative of prices by the sums of products with the residuals.
        mean: Mean surrogates of the windows (S,).
        goal_mean: Mean of the goal.
        windows: Number of windows without a message.
    """

    price: FloatArray
    precision: FloatArray
    mean: FloatArray
    goal_mean: float
    windows: int

    @classmethod
    def fit(
        cls, goal: FloatArray, surrogates: FloatArray, fold: IntArray, folds: int, units: FloatArray
    ) -> SurrogateIndex:
        """Fit prices to w windows without a message.

        All sums are exact, so that the order of the windows changes nothing.

        Args:
            goal: Amounts of the goal (w,).
            surrogates: Amounts of the surrogates (S, w).
            fold: Folds of the users (w,), below `folds`.
            folds: Number of folds; with 1 each user's own windows take part.
            units: Powers of two above the largest amounts of the surrogates, and then of the goal (S + 1,).

        Raises:
            NotIdentified: If there are too few windows.
        """
        products = surrogate_products(goal, surrogates, fold, folds, units)
        return cls.from_products(products, folds, units)

    @classmethod
    def from_products(cls, products: ExactSums, folds: int, units: FloatArray) -> SurrogateIndex:
        """Fit prices to the sums of `surrogate_products`, which add up over users.

        Raises:
            NotIdentified: If there are too few windows.
        """
        size = len(units) + 1
        upper = products.value().reshape(folds, -1)
        sums = np.zeros((folds, size, size))
        rows, columns = np.triu_indices(size)
        sums[:, rows, columns] = sums[:, columns, rows] = upper
        total = sums.sum(0)
        least = MIN_WINDOWS_PER_PRICE * (size - 1)
        fitted = [_prices(total - sums[k] if folds > 1 else total, least) for k in range(folds)]
        _, inverse = _prices(total, least)
        scale = units[:-1]
        return cls(
            price=np.stack([price for price, _ in fitted]) * units[-1] / scale,
            precision=inverse / np.outer(scale, scale),
            mean=total[0, 1:-1] / total[0, 0] * scale,
            goal_mean=float(total[0, -1] / total[0, 0] * units[-1]),
            windows=int(total[0, 0]),
        )

    def influence(self, goal: FloatArray, surrogates: FloatArray, user: IntArray, users: int) -> FloatArray:
        """Return the influence of every user on the mean prices (users, S), in units of the goal.

        Args:
            goal: Amounts of the goal in the windows that prices were learned from (w,).
            surrogates: Amounts of the surrogates (S, w).
            user: User codes (w,).
            users: Number of users.
        """
        centred = surrogates - self.mean[:, None]
        residual = goal - self.goal_mean - self.price.mean(0) @ centred
        sums = np.stack([np.bincount(user, column * residual, users) for column in centred], axis=1)
        return np.asarray(sums @ self.precision)


def surrogate_products(
    goal: FloatArray, surrogates: FloatArray, fold: IntArray, folds: int, units: FloatArray
) -> ExactSums:
    """Return exact sums of the products of 1, the surrogates and the goal over windows, by fold and pair of columns.

    Pairs are those of the upper half of a matrix (S + 2, S + 2), row by row. For the arguments see
    `SurrogateIndex.fit`.
    """
    columns = [
        np.ones(len(goal)),
        *(values / unit for values, unit in zip((*surrogates, goal), units, strict=True)),
    ]
    pairs = zip(*np.triu_indices(len(columns)), strict=True)
    found = [ExactSums.from_values(columns[i] * columns[j], fold, folds) for i, j in pairs]
    high, low = (np.stack([getattr(each, part) for each in found], axis=1).ravel() for part in ("high", "low"))
    return ExactSums(high, low)


def _prices(sums: FloatArray, least: int) -> tuple[FloatArray, FloatArray]:
    """Return non-negative least-squares slopes (S,), and the inverse of the free ones' sums of squares (S, S).

    Args:
        sums: Sums of squares and products of 1, the surrogates and the goal.
        least: Least number of windows.
    """
    n = sums[0, 0]
    if n < least:
        if not n:
            raise NotIdentified(
                "no window without a message tells what surrogates are worth: the log needs decisions at which nothing "
                "was sent (where it lists messages only, `slots` adds them)"
            )
        raise NotIdentified(
            f"only {n:,.0f} windows without a message tell what surrogates are worth, and {least:,} are needed: leave "
            "out `reward.funnel.surrogates`, name fewer, or use shorter windows"
        )
    centred = sums[1:, 1:] - np.outer(sums[0, 1:], sums[0, 1:]) / n
    square, product = centred[:-1, :-1], centred[:-1, -1]
    # What never varies, up to rounding, has no price.
    varies = np.diag(square) > 1e-12 * np.diag(sums[1:-1, 1:-1])
    price, inverse = np.zeros(len(product)), np.zeros_like(square)
    rows = np.flatnonzero(varies)
    if not len(rows):
        return price, inverse
    scale = np.sqrt(np.diag(square)[rows])
    values, vectors = np.linalg.eigh(square[np.ix_(rows, rows)] / np.outer(scale, scale))
    root = np.sqrt(np.maximum(values, 1e-10))
    found, _ = scipy.optimize.nnls(root[:, None] * vectors.T, (vectors.T @ (product[rows] / scale)) / root)
    price[rows] = found / scale
    free = rows[found > 0]
    inverse[np.ix_(free, free)] = np.linalg.pinv(square[np.ix_(free, free)], hermitian=True)
    return price, inverse
