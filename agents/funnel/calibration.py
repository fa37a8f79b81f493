"""Calibration of a funnel's predictions by the rewards of all messages, and their combination."""

from __future__ import annotations

from dataclasses import dataclass, fields

import scipy  # it imports scipy.optimize on first use, so that a program's help does not wait for it
import torch
from torch import Tensor

#: Prior standard deviation of the weights' distance from the funnel alone.
PRIOR_SD = 0.5
#: Smallest noise as a share of the predictions' mean square, and where all of them are 0.
MIN_NOISE_SHARE, TINY = 1e-12, 1e-300


@dataclass(frozen=True)
class Predictions:
    """What is predicted of n messages by models that have not learned from their users.

    Attributes:
        funnel: The funnel's values without costs and without what surrogates miss (n,).
        missed: What the goals were predicted to be beyond their surrogates (n,).
        used: The funnel's values with what is personal about actions' effects by its weight (n,).
        used_missed: The same of what surrogates miss (n,).
        all_sends: The values by the regression of all sends (n,).
        cost: The expected price of their cost events (n,).
    """

    funnel: Tensor
    missed: Tensor
    used: Tensor
    used_missed: Tensor
    all_sends: Tensor
    cost: Tensor


@dataclass(frozen=True)
class Blend:
    r"""How much the value of a message follows the funnel, and how much the regression of all sends' rewards.

    .. math:: r_i + c_i = b_1 f_i + b_2 q_i + e_i, \qquad (b_1, b_2) \sim N((1, 0), \tau^2 I), \quad b_1, b_2 \ge 0

    over messages, with f and q predicted for each half of the users by what the other half taught, and c the expected
    price of their cost events, which neither includes. Where the funnel's assumptions fail its slope moves away from 1
    and the regression of all sends, which needs none, takes its place.

    Before that, two parts of the funnel's value get weights s from 0 to 1: what the goals were beyond their surrogates,
    by :math:`y_i = s z_i + e_i` with :math:`s \sim N(0, \tau^2)`, 0 where surrogates hold; and what is personal about
    the choice between actions, by the value of the policies that follow it (`personal_weight`).

    Attributes:
        funnel: Weight of the funnel's value.
        all_sends: Weight of the value by the regression of all sends.
        slope: Slope of the rewards on the funnel's value with costs, :math:`f - c`, before any weight: 1 if all that
            the funnel assumes holds, surrogates included.
        slope_se: Its standard error, which counts a user's rows as one.
        intercept: Intercept of that regression.
        missed: Weight of what surrogates miss, within the funnel's value.
        personal: Weight of how the actions' effects differ by context, within the funnel's value.
    """

    funnel: float = 1.0
    all_sends: float = 0.0
    slope: float = float("nan")
    slope_se: float = float("nan")
    intercept: float = float("nan")
    missed: float = 0.0
    personal: float = 1.0

    @classmethod
    def fit(cls, reward: Tensor, predictions: Predictions, cluster: Tensor, personal: float) -> Blend:
        """Fit the other weights to n messages.

        Args:
            reward: Their rewards, costs included (n,).
            predictions: What was predicted of them.
            cluster: Codes of their users (n,).
            personal: Weight of what is personal, with which the predictions were made.
        """
        f, m, used, used_missed, q, c = (getattr(predictions, part.name).double() for part in fields(predictions))
        y = reward.double()
        net = f - c
        missed = _share(y + c - f, m)
        f = used + missed * used_missed
        both = torch.stack([f, q], 1)
        residual = y + c - f
        noise = max(float(residual.square().mean()), MIN_NOISE_SHARE * float(both.square().mean()), TINY)
        gram = both.t() @ both + noise / PRIOR_SD**2 * torch.eye(2, dtype=torch.float64)
        first, second = nonnegative(gram, both.t() @ residual + gram[:, 0])
        line = torch.stack([torch.ones_like(net), net], 1)
        inverse = torch.linalg.pinv(line.t() @ line)
        intercept, slope = (inverse @ (line.t() @ y)).tolist()
        score = line * (y - intercept - slope * net).unsqueeze(1)
        by_user = torch.zeros(int(cluster.max()) + 1, 2, dtype=torch.float64).index_add_(0, cluster, score)
        covariance = inverse @ (by_user.t() @ by_user) @ inverse
        return cls(
            funnel=first,
            all_sends=second,
            slope=slope,
            slope_se=float(covariance[1, 1].sqrt()),
            intercept=intercept,
            missed=missed,
            personal=personal,
        )


def _share(target: Tensor, part: Tensor) -> float:
    """Return how much of a part explains a target (n,), from 0 to 1, shrunk towards 0."""
    ridge = max(float(target.square().mean()), TINY) / PRIOR_SD**2
    return min(max(float(part @ target) / (float(part @ part) + ridge), 0.0), 1.0)


def nonnegative(gram: Tensor, moment: Tensor) -> tuple[float, float]:
    """Return the minimum of a quadratic form in weights of at least 0; a negative one would turn a value around."""
    size = gram.diagonal().max()  # in units of its own: the solver's tolerance is in none
    root = torch.linalg.cholesky(gram / size)
    target = torch.linalg.solve_triangular(root, (moment / size).unsqueeze(1), upper=False)[:, 0]
    first, second = scipy.optimize.nnls(root.t().numpy(), target.numpy())[0]
    return float(first), float(second)
