"""The blend of a funnel with the regression of all sends, from sums over messages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from crosschannel.agents.funnel.calibration import MIN_NOISE_SHARE, PRIOR_SD, TINY, Blend, Predictions, nonnegative

#: The columns whose products are summed over messages.
COLUMNS = ("one", "reward", "funnel", "missed", "used", "used_missed", "all_sends", "cost")


@dataclass(frozen=True)
class BlendSums:
    """Sums over messages from which all weights of a `Blend` follow; they add up over users.

    Attributes:
        products: Products (8, 8) of 1, the reward and the predictions.
        users: Products (5, 5) of each user's sums of 1, y, f, f y and f f, with rewards y and the funnel's values f
            less costs.
    """

    products: Tensor
    users: Tensor

    @classmethod
    def from_messages(cls, reward: Tensor, predictions: Predictions, user: Tensor) -> BlendSums:
        """Sum n messages of users (n,), all of whose messages are among them."""
        of = predictions
        parts = (of.funnel, of.missed, of.used, of.used_missed, of.all_sends, of.cost)
        y, *columns = (part.double() for part in (reward, *parts))
        table = torch.stack([torch.ones_like(y), y, *columns], 1)
        net = of.funnel.double() - of.cost.double()
        users, code = torch.unique(user, return_inverse=True)
        by_user = torch.zeros(len(users), 5, dtype=torch.float64)
        by_user.index_add_(0, code, torch.stack([torch.ones_like(y), y, net, net * y, net * net], 1))
        return cls(table.t() @ table, by_user.t() @ by_user)

    @classmethod
    def zeros(cls) -> BlendSums:
        """Return the sums of no message."""
        return cls(torch.zeros(len(COLUMNS), len(COLUMNS)).double(), torch.zeros(5, 5).double())

    def __add__(self, other: BlendSums) -> BlendSums:
        return BlendSums(self.products + other.products, self.users + other.users)

    def blend(self, personal: float) -> Blend:
        """Return the weights that `Blend.fit` finds from the messages."""
        one, y, f, m, used, used_missed, q, c = torch.eye(len(COLUMNS), dtype=torch.float64).unbind()
        net = f - c
        missed = self._share(y + c - f, m)
        f = used + missed * used_missed
        both, residual = torch.stack([f, q]), y + c - f
        noise = max(self._mean_square(residual), MIN_NOISE_SHARE * sum(map(self._mean_square, both)) / 2.0, TINY)
        gram = both @ self.products @ both.t() + noise / PRIOR_SD**2 * torch.eye(2, dtype=torch.float64)
        first, second = nonnegative(gram, both @ self.products @ residual + gram[:, 0])
        line = torch.stack([one, net])
        inverse = torch.linalg.pinv(line @ self.products @ line.t())
        intercept, slope = (inverse @ (line @ self.products @ y)).tolist()
        score = torch.tensor(
            [[-intercept, 1.0, -slope, 0.0, 0.0], [0.0, 0.0, -intercept, 1.0, -slope]], dtype=torch.float64
        )
        covariance = inverse @ score @ self.users @ score.t() @ inverse
        return Blend(
            funnel=first,
            all_sends=second,
            slope=slope,
            slope_se=float(covariance[1, 1].clamp_min(0.0).sqrt()),
            intercept=intercept,
            missed=missed,
            personal=personal,
        )

    def _product(self, left: Tensor, right: Tensor) -> float:
        return float(left @ self.products @ right)

    def _mean_square(self, column: Tensor) -> float:
        return self._product(column, column) / max(float(self.products[0, 0]), 1.0)

    def _share(self, target: Tensor, part: Tensor) -> float:
        """Return how much of a part explains a target, from 0 to 1, shrunk towards 0."""
        ridge = max(self._mean_square(target), TINY) / PRIOR_SD**2
        return min(max(self._product(part, target) / (self._product(part, part) + ridge), 0.0), 1.0)
