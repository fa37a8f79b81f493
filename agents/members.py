"""The members of one module's ensemble: K small networks evaluated and trained in one batched computation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Members(nn.Module):
    r"""K networks with a linear path beside them and a frozen random prior.

    .. math:: q_k(x) = b_k + x L_k + g_k(x) + \beta \, p_k(x)

    g is a network of two hidden layers whose output starts at 0, L a linear map, and p a random network that is never
    trained: where there are no data, members go on disagreeing as their priors do. The linear path learns at once
    what a network needs many rows for. Osband, Aslanides & Cassirer (2018), "Randomized prior functions for deep
    reinforcement learning", NeurIPS.

    Args:
        k: Members.
        width: Context features D.
        actions: Actions A.
        hidden: Units of both hidden layers.
        prior_scale: :math:`\beta`, in standard deviations of the reward.
        generator: Where the initial weights come from.
    """

    def __init__(
        self, k: int, width: int, actions: int, hidden: int, prior_scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()

        def normal(*shape: int, scale: float) -> Tensor:
            return torch.randn(*shape, generator=generator) * scale

        self.k = k
        self.bias = nn.Parameter(torch.zeros(k, 1, actions))
        self.linear = nn.Parameter(torch.zeros(k, width, actions))
        self.first = nn.Parameter(normal(k, width, hidden, scale=math.sqrt(2.0 / max(width, 1))))
        self.first_bias = nn.Parameter(torch.zeros(k, 1, hidden))
        self.second = nn.Parameter(normal(k, hidden, hidden, scale=math.sqrt(2.0 / hidden)))
        self.second_bias = nn.Parameter(torch.zeros(k, 1, hidden))
        self.out = nn.Parameter(torch.zeros(k, hidden, actions))
        self.register_buffer("prior_first", normal(k, width, hidden, scale=math.sqrt(2.0 / max(width, 1))))
        self.register_buffer("prior_out", normal(k, hidden, actions, scale=prior_scale / math.sqrt(hidden)))
        self.register_buffer("prior_bias", normal(k, 1, actions, scale=prior_scale))
        self.prior_first: Tensor
        self.prior_out: Tensor
        self.prior_bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Estimates (K, N, A) in standard deviations of the reward, for contexts (N, D)."""
        x = x.expand(self.k, *x.shape)
        hidden = torch.relu(torch.baddbmm(self.first_bias, x, self.first))
        hidden = torch.relu(torch.baddbmm(self.second_bias, hidden, self.second))
        learned = torch.baddbmm(torch.baddbmm(self.bias, x, self.linear), hidden, self.out)
        prior = torch.baddbmm(self.prior_bias, torch.relu(torch.bmm(x, self.prior_first)), self.prior_out)
        return learned + prior

    def loss(self, x: Tensor, action: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Sum over members of their weighted mean squared error.

        Args:
            x: Contexts (N, D).
            action: Codes of the taken actions (N,).
            target: Rewards in their standard deviations (N,).
            weight: Weights of rows for each member (K, N).
        """
        taken = action.expand(self.k, -1).unsqueeze(-1)
        error = self.forward(x).gather(2, taken).squeeze(-1) - target
        total: Tensor = (weight * error.square()).mean(1).sum()
        return total
