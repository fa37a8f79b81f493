r"""Calibration: whether predicted rewards are as large as the rewards that followed, overall, by group and by size.

.. math:: r_i = a + b \, \hat r_i + \varepsilon_i

over all sent decisions with a reward, weighted or not, with :math:`\hat r` a prediction that was learned without the
decision's user. If predictions are right on average at every level, a = 0 and b = 1: a slope below 1 says that
differences between predictions are too large, 0 that they say nothing. The rewards are those of all messages, engaged
with or not, so that the funnel's parts need not be right for this judge to be. Errors are clustered by user; that
rewards of a cell share the mean of its controls is not part of them.
Mincer & Zarnowitz (1969), "The evaluation of economic forecasts"; Chernozhukov, Demirer, Duflo & Fernandez-Val (2018),
"Generic machine learning inference on heterogeneous treatment effects in randomized experiments", NBER working paper
24678 (best linear predictor and sorted group averages).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.reward.effects.inference import student_quantile

#: Groups by the size of the prediction.
DECILES = 10
MIN_USERS = 3


@dataclass(frozen=True)
class CalibrationLine:
    """The regression of rewards on predictions over some decisions; NaN where it cannot be fitted.

    Attributes:
        label: The decisions.
        n: Their number.
        users: Their users.
        mean_predicted: Mean prediction.
        mean_reward: Mean reward.
        mean_error: Standard error of the difference of the two.
        slope: b.
        slope_error: Its standard error.
        intercept: a.
        intercept_error: Its standard error.
    """

    label: str
    n: int
    users: int
    mean_predicted: float
    mean_reward: float
    mean_error: float
    slope: float
    slope_error: float
    intercept: float
    intercept_error: float

    @property
    def quantile(self) -> float:
        """Student's quantile of the 95 % intervals, with one degree of freedom less than users."""
        return student_quantile(max(self.users - 1, 1))

    @property
    def slope_interval(self) -> tuple[float, float]:
        """95 % interval of the slope."""
        return self.slope - self.quantile * self.slope_error, self.slope + self.quantile * self.slope_error

    @property
    def intercept_interval(self) -> tuple[float, float]:
        """95 % interval of the intercept."""
        margin = self.quantile * self.intercept_error
        return self.intercept - margin, self.intercept + margin

    @property
    def bias_interval(self) -> tuple[float, float]:
        """95 % interval of the mean reward less the mean prediction."""
        bias, margin = self.mean_reward - self.mean_predicted, self.quantile * self.mean_error
        return bias - margin, bias + margin


@dataclass(frozen=True)
class Calibration:
    """The calibration of predicted rewards.

    Attributes:
        overall: Over all decisions.
        groups: By group, such as the channel.
        deciles: By the size of the prediction, from low to high: `mean_predicted` and `mean_reward` of each.
        left_out: Decisions without a reward or a prediction.
    """

    overall: CalibrationLine
    groups: tuple[CalibrationLine, ...]
    deciles: tuple[CalibrationLine, ...]
    left_out: int

    @property
    def sentence(self) -> str:
        """The slope in words."""
        line = self.overall
        if math.isnan(line.slope):
            return f"calibration: not identified; {line.n:,} decisions of {line.users:,} users have both numbers"
        low, high = line.slope_interval
        says = "nothing contradicts the predictions" if low <= 1 <= high else ""
        if not says:
            says = "differences between predictions are too " + ("large" if high < 1 else "small")
        return f"calibration: slope {line.slope:.2f} ({low:.2f} to {high:.2f}), intercept {line.intercept:.3g}; {says}"

    def table(self) -> pd.DataFrame:
        """Return one row for all decisions, each group and each decile."""
        rows = [
            (
                one.label,
                one.n,
                one.users,
                one.mean_predicted,
                one.mean_reward,
                *one.bias_interval,
                one.slope,
                *one.slope_interval,
                one.intercept,
                *one.intercept_interval,
            )
            for one in (self.overall, *self.groups, *self.deciles)
        ]
        columns = ["decisions", "n", "users", "predicted", "reward", "bias low", "bias high", "slope", "slope low"]
        columns += ["slope high", "intercept", "intercept low", "intercept high"]
        return pd.DataFrame(rows, columns=columns)

    def text(self) -> str:
        """Return the sentence and the table for the terminal."""
        table = self.table()
        for column in table.columns[3:]:
            table[column] = [f"{value:.3g}" if math.isfinite(value) else "-" for value in table[column]]
        left_out = f"\n{self.left_out:,} decisions without a reward or a prediction are left out" * bool(self.left_out)
        return f"{self.sentence}{left_out}\n{table.to_string(index=False)}"


def calibration(
    reward: FloatArray,
    predicted: FloatArray,
    user: IntArray,
    groups: IntArray | None = None,
    *,
    names: Sequence[str] = (),
    weights: FloatArray | None = None,
    deciles: int = DECILES,
) -> Calibration:
    """Regress rewards on their predictions, with intervals clustered by user.

    Args:
        reward: Rewards of sent decisions (n,); those with NaN are left out and counted.
        predicted: Predictions, each learned without the decision's user (n,); NaN the same.
        user: User codes (n,).
        groups: Group codes (n,), such as channels; None for no groups.
        names: Names of the groups, by code; by default their codes.
        weights: Weights of the decisions (n,), such as `Outcomes.ipc_weight`; None for equal ones.
        deciles: How many groups by the size of the prediction.

    Raises:
        ConfigError: If the arrays differ in length, or a weight is negative or not finite.
    """
    n = len(reward)
    weight = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    parts = {"predicted": predicted, "user": user, "weights": weight} | ({} if groups is None else {"groups": groups})
    for name, array in parts.items():
        if len(array) != n:
            raise ConfigError(f"calibration: {name} has {len(array):,} entries for {n:,} rewards")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ConfigError("calibration: weights must be finite numbers, and not negative")
    known = np.isfinite(reward) & np.isfinite(predicted) & (weight > 0)
    y, x, w = reward[known], predicted[known], weight[known]
    _, u = np.unique(user[known], return_inverse=True)
    overall = _line("all", y, x, u, w)
    by_group: list[CalibrationLine] = []
    if groups is not None:
        code = np.asarray(groups)[known]
        for g in np.unique(code):
            label = str(names[g]) if len(names) else str(g)
            by_group.append(_line(label, *(part[code == g] for part in (y, x, u, w))))
    edges = np.unique(np.quantile(x, np.arange(1, deciles) / deciles, method="inverted_cdf")) if len(x) else x
    place = np.searchsorted(edges, x)
    by_size = tuple(
        _line(f"predicted {k + 1} of {len(edges) + 1}", *(part[place == k] for part in (y, x, u, w)))
        for k in np.unique(place)
    )
    return Calibration(overall, tuple(by_group), by_size, int(n - known.sum()))


def _line(label: str, y: FloatArray, x: FloatArray, user: IntArray, w: FloatArray) -> CalibrationLine:
    """Fit the line to rewards y, predictions x, user codes and weights w, all (k,)."""
    codes, cluster = np.unique(user, return_inverse=True)
    n, users = len(y), len(codes)
    if users < MIN_USERS:
        means = (float(np.average(one, weights=w)) if n else math.nan for one in (x, y))
        return CalibrationLine(label, n, users, *means, *[math.nan] * 5)
    share, small = w / w.sum(), users / (users - 1)
    mean_x, mean_y = float(share @ x), float(share @ y)

    def error(influence: FloatArray) -> float:
        return float(np.sqrt((np.bincount(cluster, influence) ** 2).sum() * small))

    gap = y - x
    mean_error = error(share * (gap - (mean_y - mean_x)))
    centred = x - mean_x
    spread = float(share @ centred**2)
    if not spread > 1e-24 * max(float(np.abs(x).max()), 1e-300) ** 2:
        return CalibrationLine(label, n, users, mean_x, mean_y, mean_error, *[math.nan] * 4)
    slope = float(share @ (centred * y)) / spread
    residual = y - mean_y - slope * centred
    of_slope = share * centred * residual / spread
    of_intercept = share * residual - mean_x * of_slope
    return CalibrationLine(
        label=label,
        n=n,
        users=users,
        mean_predicted=mean_x,
        mean_reward=mean_y,
        mean_error=mean_error,
        slope=slope,
        slope_error=error(of_slope),
        intercept=mean_y - slope * mean_x,
        intercept_error=error(of_intercept),
    )
