"""The members of one module's ensemble: K small networks evaluated and trained in one batched computation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Members(nn.Module):
    r"""K networks, each with a linear path and a frozen random layer beside it.

    Member k describes a context by four blocks of features, on which its head is linear:

    .. math:: \phi_k(x) = [1, \; x, \; p_k(x), \; h_k(x)], \qquad q_k(x, a) = \phi_k(x)^\top \theta_{ka}

    p is a random layer that is never trained, h the last hidden layer of a trained network. A head that is pulled
    towards a random draw (`agents.heads`) makes the first three blocks a random prior function in the sense of
    Osband, Aslanides & Cassirer (2018), "Randomized prior functions for deep reinforcement learning", NeurIPS. As p is
    among the features, data can take the prior back entirely; added to the output it would stay as noise.

    Gradient descent only shapes h: its own output layers serve to train it. What `features` shows is the moving
    average of the network's weights (Polyak & Juditsky 1992), since single rewards are nearly all noise, as it was
    when last settled: features must not move under the heads that were fitted to them.

    Args:
        k: Members.
        width: Context features D.
        actions: Actions A.
        hidden: Units of each hidden layer of the trained network.
        prior_units: Units R of the frozen random layer.
        generator: Where the initial weights come from.
    """

    def __init__(
        self, k: int, width: int, actions: int, hidden: Sequence[int], prior_units: int, generator: torch.Generator
    ) -> None:
        super().__init__()

        def random(rows: int, columns: int) -> Tensor:
            return torch.randn(k, rows, columns, generator=generator) * math.sqrt(2.0 / max(rows, 1))

        self.k = k
        self.blocks = torch.repeat_interleave(torch.tensor([1, width, prior_units, hidden[-1]]))
        sizes = [width, *hidden]
        self.weights = nn.ParameterList([random(a, b) for a, b in itertools.pairwise(sizes)])
        self.biases = nn.ParameterList([torch.zeros(k, 1, b) for b in hidden])
        self.out = nn.Parameter(torch.zeros(k, hidden[-1], actions))
        self.linear = nn.Parameter(torch.zeros(k, width, actions))
        self.bias = nn.Parameter(torch.zeros(k, 1, actions))
        self.prior_weight = nn.Buffer(random(width, prior_units))
        self.prior_bias = nn.Buffer(torch.randn(k, 1, prior_units, generator=generator))
        for i, layer in enumerate([*self.weights, *self.biases]):
            self.register_buffer(f"average_{i}", layer.detach().clone())
            self.register_buffer(f"settled_{i}", layer.detach().clone())

    def _layers(self, kind: str) -> list[Tensor]:
        return [self.get_buffer(f"{kind}_{i}") for i in range(2 * len(self.weights))]

    @torch.no_grad()
    def average(self, share: float) -> None:
        """Moves the average of the hidden layers' weights by a share of the way towards the present ones."""
        torch._foreach_lerp_(self._layers("average"), [*self.weights, *self.biases], share)

    @torch.no_grad()
    def settle(self) -> None:
        """Makes the present average the one that `features` shows."""
        torch._foreach_copy_(self._layers("settled"), self._layers("average"))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """What each member's head sees of contexts (N, D): (K, N, F), the blocks in the order of `blocks`."""
        layers = self._layers("settled")
        depth = len(self.weights)
        x = x.expand(self.k, *x.shape)
        prior = torch.baddbmm(self.prior_bias, x, self.prior_weight).relu_()
        hidden = x
        for weight, bias in zip(layers[:depth], layers[depth:], strict=True):
            hidden = torch.baddbmm(bias, hidden, weight).relu_()
        return torch.cat([torch.ones_like(x[..., :1]), x, prior, hidden], 2)

    def loss(self, x: Tensor, action: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Sum over members of their weighted mean squared error.

        Args:
            x: Contexts (N, D).
            action: Codes of the taken actions (N,).
            target: Standardised rewards (N,).
            weight: Weights of the rows for each member (K, N).
        """
        x = x.expand(self.k, *x.shape)
        hidden = x
        for layer, bias in zip(self.weights, self.biases, strict=True):
            hidden = torch.relu(torch.baddbmm(bias, hidden, layer))
        estimates = torch.baddbmm(torch.baddbmm(self.bias, x, self.linear), hidden, self.out)
        error = estimates.gather(2, action.expand(self.k, -1).unsqueeze(-1)).squeeze(-1) - target
        total: Tensor = (weight * error.square()).mean(1).sum()
        return total
