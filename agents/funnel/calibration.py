"""Calibration of a funnel's predictions by the rewards of all messages, and their combination."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import scipy  # it imports scipy.optimize on first use, so that a program's help does not wait for it
import torch
from torch import Tensor

from crosschannel.agents.funnel.rows import FOLDS

#: Prior standard deviation of the weights' distance from the funnel alone.
PRIOR_SD = 0.5
#: Smallest noise as a share of the predictions' mean square, and where all of them are 0.
MIN_NOISE_SHARE, TINY = 1e-12, 1e-300
#: Predictions that vary by less than this share of their mean square, rounding, have no slope.
ROUNDING = 1e-12
#: Users below which the slope has no standard error.
MIN_USERS = 20
#: The columns whose products are summed over messages.
COLUMNS = ("one", "reward", "judged", "funnel", "missed", "used", "used_missed", "all_sends", "cost")
#: Those whose sums for each user are: 1, rewards y, the judged values f less costs, f y and f f.
USER_COLUMNS = 5


@dataclass(frozen=True)
class Predictions:
    """What is predicted of n messages by models that have not learned from their users.

    Attributes:
        judged: The funnel's values as `funnel`, with prior variances of which these users know nothing either (n,).
        funnel: The funnel's values without costs and without what surrogates miss (n,).
        missed: What the goals were predicted to be beyond their surrogates (n,).
        used: The funnel's values with what is personal about actions' effects by its weight (n,).
        used_missed: The same of what surrogates miss (n,).
        all_sends: The values by the regression of all sends (n,).
        cost: The expected price of their cost events (n,).
    """

    judged: Tensor
    funnel: Tensor
    missed: Tensor
    used: Tensor
    used_missed: Tensor
    all_sends: Tensor
    cost: Tensor


@dataclass(frozen=True)
class Blend:
    r"""How much the value of a message follows the funnel, and how much the regression of all sends.

    .. math:: r_i + c_i = b_1 f_i + b_2 q_i + e_i, \qquad (b_1, b_2) \sim N((1, 0), \tau^2 I), \quad b_1, b_2 \ge 0

    over messages, with f and q predicted for each half of the users by what the other half taught, and c the expected
    price of their cost events, which neither includes. Where the funnel's assumptions fail its slope moves away from 1
    and the regression of all sends' values, which does not ask who engaged, takes its place.

    Before that, two parts of the funnel's value get weights s from 0 to 1: what the goals were beyond their surrogates,
    by :math:`y_i = s z_i + e_i` with :math:`s \sim N(0, \tau^2)`, 0 where surrogates hold; and what is personal about
    the choice between actions, by the value of the policies that follow it (`personal_weight`).

    Attributes:
        funnel: Weight of the funnel's value.
        all_sends: Weight of the value by the regression of all sends.
        slope: Slope of the rewards on the funnel's value with costs, :math:`f - c`, before any weight and within each
            half of the users, with prior variances by the other half as well: 1 if all that the funnel assumes holds,
            surrogates included, and 0 on average where messages do nothing; NaN where predictions do not differ.
        slope_se: Its standard error, which counts a user's rows as one; NaN with fewer than `MIN_USERS` users.
        intercept: Mean of the rewards less the slope times that of the funnel's value with costs.
        missed: Weight of what surrogates miss, within the funnel's value.
        personal: Weight of how the actions' effects differ by context, within the funnel's value.
    """

    funnel: float = 1.0
    all_sends: float = 0.0
    slope: float = math.nan
    slope_se: float = math.nan
    intercept: float = math.nan
    missed: float = 0.0
    personal: float = 1.0

    def to_dict(self) -> dict[str, float | None]:
        """Return the weights as plain values; None where a figure is not identified."""
        return {f.name: None if math.isnan(value := getattr(self, f.name)) else value for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, float | None]) -> Blend:
        """Restore what `to_dict` returned."""
        return cls(**{name: math.nan if value is None else value for name, value in data.items()})


@dataclass(frozen=True)
class BlendSums:
    """Sums over messages from which all weights of a `Blend` follow; they add up over users.

    Attributes:
        products: Products of 1, the reward and the predictions, by half of the users (2, 9, 9).
        by_user: Products of each user's sums of 1, y, f, f y and f f, with rewards y and the judged values f less
            costs, by half (2, 5, 5).
        users: Number of users in each half (2,).
    """

    products: Tensor
    by_user: Tensor
    users: Tensor

    @classmethod
    def zeros(cls) -> BlendSums:
        """Return the sums of no message."""
        shapes = ((FOLDS, len(COLUMNS), len(COLUMNS)), (FOLDS, USER_COLUMNS, USER_COLUMNS), (FOLDS,))
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    @classmethod
    def from_messages(cls, reward: Tensor, predictions: Predictions, user: Tensor, fold: Tensor) -> BlendSums:
        """Sum n messages.

        Args:
            reward: Their rewards, costs included (n,).
            predictions: What was predicted of them.
            user: Codes of their users (n,), all of whose messages are among them.
            fold: Half of the users that each belongs to (n,).
        """
        parts = [getattr(predictions, part.name) for part in fields(predictions)]
        table = torch.stack([torch.ones_like(reward), reward, *parts], 1).double()
        y, net = table[:, 1], table[:, COLUMNS.index("judged")] - table[:, COLUMNS.index("cost")]
        of_user = torch.stack([table[:, 0], y, net, net * y, net * net], 1)
        out = cls.zeros()
        for half in range(FOLDS):
            mine = fold == half
            found, code = torch.unique(user[mine], return_inverse=True)
            sums = torch.zeros(len(found), USER_COLUMNS, dtype=torch.float64).index_add_(0, code, of_user[mine])
            out.products[half] = table[mine].t() @ table[mine]
            out.by_user[half] = sums.t() @ sums
            out.users[half] = len(found)
        return out

    def __add__(self, other: BlendSums) -> BlendSums:
        return BlendSums(self.products + other.products, self.by_user + other.by_user, self.users + other.users)

    def blend(self, personal: float) -> Blend:
        """Return the weights, given that of what is personal, with which the predictions were made."""
        _, y, _, f, m, used, used_missed, q, c = torch.eye(len(COLUMNS), dtype=torch.float64).unbind()
        missed = self._share(y + c - f, m)
        f = used + missed * used_missed
        both, residual = torch.stack([f, q]), y + c - f
        noise = max(self._mean_square(residual), MIN_NOISE_SHARE * sum(map(self._mean_square, both)) / 2.0, TINY)
        products = self.products.sum(0)
        gram = both @ products @ both.t() + noise / PRIOR_SD**2 * torch.eye(2, dtype=torch.float64)
        first, second = nonnegative(gram, both @ products @ residual + gram[:, 0])
        slope, error, intercept = self._line()
        return Blend(
            funnel=first,
            all_sends=second,
            slope=slope,
            slope_se=error,
            intercept=intercept,
            missed=missed,
            personal=personal,
        )

    def _line(self) -> tuple[float, float, float]:
        """Return the slope of the rewards on the funnel's values with costs, its standard error, and the intercept.

        Each half has a mean of its own. What is predicted of it rests on the mean of the other half, so that with one
        mean for both the noise of their difference would count against the predictions, and more than once.
        """
        one, y, f, *_, c = torch.eye(len(COLUMNS), dtype=torch.float64).unbind()
        columns = torch.stack([one, y, f - c])
        sums = columns @ self.products @ columns.t()
        rows = sums[:, 0, 0].clamp_min(1.0)
        means = sums[:, 0] / rows[:, None]
        within = (sums - rows[:, None, None] * means[:, :, None] * means[:, None, :]).sum(0)
        if not float(within[2, 2]) > ROUNDING * float(sums[:, 2, 2].sum()):
            return math.nan, math.nan, math.nan
        slope = float(within[1, 2] / within[2, 2])
        total = sums[:, 0].sum(0)
        intercept = float((total[1] - slope * total[2]) / total[0])
        users, square = float(self.users.sum()), 0.0
        for (_, mean_y, mean_f), products in zip(means.tolist(), self.by_user, strict=True):
            level = mean_y - slope * mean_f
            score = torch.tensor([mean_f * level, -mean_f, slope * mean_f - level, 1.0, -slope], dtype=torch.float64)
            square += float(score @ products @ score)
        error = math.sqrt(max(square, 0.0) * users / (users - 1.0)) / float(within[2, 2])
        return slope, error if users >= MIN_USERS else math.nan, intercept

    def _product(self, left: Tensor, right: Tensor) -> float:
        return float(left @ self.products.sum(0) @ right)

    def _mean_square(self, column: Tensor) -> float:
        return self._product(column, column) / max(float(self.products[:, 0, 0].sum()), 1.0)

    def _share(self, target: Tensor, part: Tensor) -> float:
        """Return how much of a part explains a target, from 0 to 1, shrunk towards 0."""
        ridge = max(self._mean_square(target), TINY) / PRIOR_SD**2
        return min(max(self._product(part, target) / (self._product(part, part) + ridge), 0.0), 1.0)


def nonnegative(gram: Tensor, moment: Tensor) -> tuple[float, float]:
    """Return the minimum of a quadratic form in weights of at least 0; a negative one would turn a value around."""
    size = gram.diagonal().max()  # in units of its own: the solver's tolerance is in none
    root = torch.linalg.cholesky(gram / size)
    target = torch.linalg.solve_triangular(root, (moment / size).unsqueeze(1), upper=False)[:, 0]
    first, second = scipy.optimize.nnls(root.t().numpy(), target.numpy())[0]
    return float(first), float(second)
