"""The network that a module's members share: it maps contexts to features, and the heads are linear in them."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

AVERAGE = 0.01
OUTPUTS = ("of_hidden.weight", "of_context.weight", "of_context.bias")


def absolute(x: Tensor) -> Tensor:
    """Return the block |x|; a function of its own, so that an ablation can replace it."""
    return x.abs()


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a layer without initial weights, which PyTorch would draw from its global generator."""
    return nn.Linear(inputs, outputs, bias, device="meta").to_empty(device="cpu")


def hidden_layers(sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Return fully connected layers with rectifiers, their weights drawn from a generator (He et al. 2015)."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layer = _linear(a, b)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(a, b, generator=generator).t() * math.sqrt(2.0 / max(a, 1)))
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class RewardNetwork(nn.Module):
    r"""Estimates of each action's reward, :math:`U h(x) + V x + c` with h the hidden layers.

    Args:
        sizes: Number of context features D, then units of each hidden layer; the last one has H.
        actions: Number of actions A. Their output layers start at 0.
        generator: Source of the hidden layers' weights.
    """

    def __init__(self, sizes: Sequence[int], actions: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = hidden_layers(sizes, generator)
        self.of_hidden = _linear(sizes[-1], actions, bias=False)
        self.of_context = _linear(sizes[0], actions)
        for name in OUTPUTS:
            nn.init.zeros_(self.get_parameter(name))

    def forward(self, x: Tensor) -> Tensor:
        """Return estimates (N, A) for contexts (N, D)."""
        return torch.add(self.of_hidden(self.hidden(x)), self.of_context(x))


class SharedNetwork:
    r"""A network whose last hidden layer is one block of features, next to blocks that need no learning.

    .. math:: \phi(x) = [1, \; x, \; |x|, \; h(x)]

    The linear block suffices while rows are few, the absolute values fit effects that are strong at both ends of a
    feature, and h fits the rest. Gradient steps train h only, through separate output layers of h and x. `features`
    uses the moving average of the weights (Polyak & Juditsky 1992), because single rewards are mostly noise. The
    average is frozen between two calls of `freeze`, so that features do not change after the heads were fitted to them.

    Args:
        width: Number of context features D.
        actions: Number of actions A.
        hidden: Units of each hidden layer; the last one has H.
        learning_rate: Learning rate of AdamW (Loshchilov & Hutter 2019).
        weight_decay: Weight decay of AdamW.
        generator: Source of the initial weights.
        device: Where it computes.
    """

    def __init__(
        self,
        width: int,
        actions: int,
        hidden: Sequence[int],
        learning_rate: float,
        weight_decay: float,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self._widths = [1, width, width, hidden[-1]]
        self.blocks = torch.repeat_interleave(torch.tensor(self._widths))
        self._network = RewardNetwork([width, *hidden], actions, generator).to(device)
        self._average = copy.deepcopy(self._network.hidden).requires_grad_(False)
        self._frozen = copy.deepcopy(self._average)
        # Listing them takes a fifth of a step of a small network.
        self._weights: list[Tensor] = list(self._network.parameters())
        self._averages = list(zip(self._average.parameters(), self._network.hidden.parameters(), strict=True))
        self._rate, self._decay = learning_rate, weight_decay
        self._first = {name: torch.zeros_like(weight) for name, weight in self._network.state_dict().items()}
        self._second = {name: torch.zeros_like(weight) for name, weight in self._first.items()}
        self.steps = 0

    @torch.no_grad()
    def features(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the features (N, F) of contexts (N, D) in the order of `blocks`, in `out` if it is given."""
        if out is None:
            out = x.new_empty(len(x), len(self.blocks))
        level, linear, bent, inner = torch.split(out, self._widths, 1)
        level.fill_(1.0)
        linear.copy_(x)
        bent.copy_(absolute(x))
        inner.copy_(self._frozen(x))
        return out

    @torch.no_grad()
    def estimates(self, x: Tensor, heads: Tensor, out: Tensor | None = None, hidden: Tensor | None = None) -> Tensor:
        """Return the products (C, N) of heads (C, F) and the features of contexts (N, D), in `out` if it is given.

        The last hidden layer (N, H) is written to `hidden` if it is given: memory that is reused is still in the cache.
        One product for each block, added up, is faster than joining the blocks for a single product.
        """
        level, linear, bent, inner = torch.split(heads, self._widths, 1)
        below, last = self._frozen[:-2], cast(nn.Linear, self._frozen[-2])
        units = torch.addmm(last.bias, below(x), last.weight.t(), out=hidden).relu_()
        return torch.addmm(level, inner, units.t(), out=out).addmm_(linear, x.t()).addmm_(bent, absolute(x).t())

    def freeze(self) -> None:
        """Freeze the present average of the weights as the network of `features`."""
        self._frozen.load_state_dict(self._average.state_dict())

    def step(self, x: Tensor, action: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Make a gradient step on the weighted mean squared error of the taken actions, and return that error.

        Args:
            x: Contexts (N, D).
            action: Codes of the taken actions (N,).
            target: Standardised rewards (N,).
            weight: Weights of the rows (N,).
        """
        error = self._network(x).gather(1, action.unsqueeze(1)).squeeze(1) - target
        loss: Tensor = (weight * error.square()).mean()
        self._descend(torch.autograd.grad(loss, self._weights))
        return loss.detach()

    @torch.no_grad()
    def _descend(self, gradient: Sequence[Tensor]) -> None:
        """Update the weights by AdamW, then their average.

        This is the function that `torch.optim.AdamW` calls. Making an object of that class loads PyTorch's compiler,
        which takes a second and 75 MB in every process that has an agent.
        """
        adamw(
            self._weights,
            list(gradient),
            list(self._first.values()),
            list(self._second.values()),
            [],
            [weight.new_tensor(float(self.steps)) for weight in self._weights],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._rate,
            weight_decay=self._decay,
            eps=1e-8,
            maximize=False,
        )
        self.steps += 1
        for average, present in self._averages:
            average.lerp_(present, max(1.0 / self.steps, AVERAGE))

    def state_dict(self) -> dict[str, Any]:
        """Return the present, averaged and frozen weights, the moments of the gradient, and the number of steps."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return copy.deepcopy({**parts, "first": self._first, "second": self._second, "steps": self.steps})

    def _parts(self) -> dict[str, nn.Module]:
        return {"network": self._network, "average": self._average, "frozen": self._frozen}

    def moved_state_dict(self, state: Mapping[str, Any], place: Tensor) -> dict[str, Any]:
        """Convert the state of a network for other actions: move output layers and their moments to the new places.

        Args:
            state: The result of the other network's `state_dict`.
            place: Where each action was before (A,); -1 for a new one, whose output layers start at 0.
        """

        def move(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            """Move the output layers' rows, one for each action; the row after the last, place -1, is 0."""
            rows = {name: torch.cat([values[name], torch.zeros_like(values[name][:1])])[place] for name in OUTPUTS}
            return {**values, **rows}

        return {**state, **{name: move(state[name]) for name in ("network", "first", "second")}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            RuntimeError: If the weights are of a network of another shape.
        """
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for mine, saved in ((self._first, state["first"]), (self._second, state["second"])):
            for name, moment in mine.items():
                moment.copy_(saved[name])
        self.steps = int(state["steps"])
