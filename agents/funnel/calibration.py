"""Calibration of a funnel's predictions by the rewards of all messages, and their combination."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Prior standard deviation of the weights' distance from the funnel alone: (1, 0).
PRIOR_SD = 0.5


@dataclass(frozen=True)
class Blend:
    r"""How much the value of a message follows the funnel, and how much the regression of all sends' rewards.

    .. math:: r_i = b_1 f_i + b_2 q_i + e_i, \qquad (b_1, b_2) \sim N((1, 0), \tau^2 I)

    over messages, with f and q predicted for each half of the users by what the other half taught. Where the funnel's
    assumptions fail its slope moves away from 1 and the regression of all sends, which needs none, takes its place.

    Attributes:
        funnel: Weight of the funnel's value.
        all_sends: Weight of the value by the regression of all sends.
        slope: Slope of the rewards on the funnel's value alone, without shrinkage.
        slope_se: Its standard error, which counts a user's rows as one.
        intercept: Intercept of that regression.
    """

    funnel: float = 1.0
    all_sends: float = 0.0
    slope: float = float("nan")
    slope_se: float = float("nan")
    intercept: float = float("nan")

    @classmethod
    def fit(cls, reward: Tensor, funnel: Tensor, all_sends: Tensor, cluster: Tensor) -> Blend:
        """Fit the weights to rewards (n,) and both predictions (n,); `cluster` (n,) holds codes of users."""
        y, f, q = (part.double() for part in (reward, funnel, all_sends))
        both = torch.stack([f, q], 1)
        residual = y - f
        noise = float(residual.square().mean())
        gram = both.t() @ both + noise / PRIOR_SD**2 * torch.eye(2, dtype=torch.float64)
        shift = torch.linalg.solve(gram, both.t() @ residual)
        line = torch.stack([torch.ones_like(f), f], 1)
        inverse = torch.linalg.pinv(line.t() @ line)
        intercept, slope = (inverse @ (line.t() @ y)).tolist()
        score = line * (y - intercept - slope * f).unsqueeze(1)
        by_user = torch.zeros(int(cluster.max()) + 1, 2, dtype=torch.float64).index_add_(0, cluster, score)
        covariance = inverse @ (by_user.t() @ by_user) @ inverse
        return cls(1.0 + float(shift[0]), float(shift[1]), slope, float(covariance[1, 1].sqrt()), intercept)
