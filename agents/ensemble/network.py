"""The network that a module's members share: it describes a context, and their heads are linear in that description."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

AVERAGE = 0.01
DECAYS = 0.9, 0.999
TINY = 1e-8


def with_one(x: Tensor) -> Tensor:
    """Contexts (N, D) behind a column of ones, (N, 1 + D): what a network takes, so that biases are weights too."""
    return torch.nn.functional.pad(x, (1, 0), value=1.0)


def absolute(x: Tensor) -> Tensor:
    """The block |x|; by itself so that an ablation can take it away."""
    return x.abs()


class Trunk:
    r"""One network whose last hidden layer is a block of features, beside blocks that need no learning.

    .. math:: \phi(x) = [1, \; x, \; |x|, \; h(x)]

    The linear path serves where data are few, the absolute values find effects that are strong at both ends of a
    feature, and h finds the rest. Gradient descent only shapes h: its own output layers, one for h and one for x,
    serve to train it. What `features` shows is the moving average of the weights (Polyak & Juditsky 1992), since
    single rewards are mostly noise, as it was when last settled: features must not move under the heads that were
    fitted to them.

    All weights are views on one vector, and gradient and update are written out by hand: for networks as small as these
    the bookkeeping of automatic differentiation and of an optimiser takes longer than the products. What there is of
    each action has the rows along its second dimension: thin products are quicker where the long side is contiguous.

    Args:
        width: Context features D.
        actions: Actions A.
        hidden: Units of each hidden layer; the last one has H.
        learning_rate: Of Adam (Kingma & Ba 2015).
        weight_decay: Pull of the weights towards 0, per update and learning rate (Loshchilov & Hutter 2019).
        generator: Where the initial weights come from.
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
        sizes = [width, *hidden]
        self._widths = [1, width, width, hidden[-1]]
        self.blocks = torch.repeat_interleave(torch.tensor(self._widths))
        self._device = device
        self._depth = len(hidden)
        # The first row of a layer is its bias, and so is the first column of the output layer of x.
        layers = [(1 + a, b) for a, b in itertools.pairwise(sizes)]
        self._shapes = [*layers, (actions, hidden[-1]), (actions, 1 + width)]
        size = sum(a * b for a, b in self._shapes)
        self._flat, self._gradient = torch.zeros(size, device=device), torch.zeros(size, device=device)
        self._weights = self._views(self._flat)
        for layer, (a, b) in zip(self._weights[: self._depth], itertools.pairwise(sizes), strict=True):
            layer[1:] = torch.randn(a, b, generator=generator) * math.sqrt(2.0 / max(a, 1))
        self._average, self._settled = self._flat.clone(), self._flat.clone()
        self._gradients, self._shown = self._views(self._gradient), self._views(self._settled)
        self._rate, self._decay = learning_rate, weight_decay
        self._first, self._second = torch.zeros_like(self._flat), torch.zeros_like(self._flat)
        self.steps = 0

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = torch.split(flat, [a * b for a, b in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _layers(self, x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """Every hidden layer's units."""
        out = [torch.mm(x, weights[0]).relu_()]
        for layer in weights[1 : self._depth]:
            out.append(torch.addmm(layer[:1], out[-1], layer[1:]).relu_())
        return out

    def features(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """What the heads see of contexts (N, 1 + D): (N, F) in the order of `blocks`, in `out` if it is given."""
        if out is None:
            out = x.new_empty(len(x), len(self.blocks))
        level, slope = x.shape[1], 2 * x.shape[1] - 1
        out[:, :level] = x
        out[:, level:slope] = absolute(x[:, 1:])
        out[:, slope:] = self._layers(x, self._shown)[-1]
        return out

    def estimates(self, x: Tensor, heads: Tensor, out: Tensor | None = None, room: Tensor | None = None) -> Tensor:
        """What heads (C, F) make of contexts (N, D): their products with the features, (C, N), in `out` if given.

        The last hidden layer (N, H) is written to `room` if given: memory that is used again is still in cache.

        To put the blocks of features side by side for one product would take longer than to add up the products, and
        contexts behind a one longer than to add the biases: their rows would begin off the bounds of cache lines.
        """
        level, linear, bent, inner = torch.split(heads, self._widths, 1)
        *below, last = self._shown[: self._depth]
        units = x
        for layer in below:
            units = torch.addmm(layer[:1], units, layer[1:]).relu_()
        units = torch.addmm(last[:1], units, last[1:], out=room).relu_()
        return torch.addmm(level, inner, units.t(), out=out).addmm_(linear, x.t()).addmm_(bent, absolute(x).t())

    def settle(self) -> None:
        """Makes the present average the one that `features` shows."""
        self._settled.copy_(self._average)

    def step(self, x: Tensor, action: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """One gradient step on the weighted mean squared error of the taken actions; gives that error.

        Args:
            x: Contexts (N, 1 + D), the first column 1.
            action: Codes of the taken actions (N,).
            target: Standardised rewards (N,).
            weight: Weights of the rows (N,).
        """
        out, linear = self._weights[-2:]
        layers = self._layers(x, self._weights)
        values, place = torch.mm(out, layers[-1].t()).addmm_(linear, x.t()), action.unsqueeze(0)
        error = values.gather(0, place).squeeze(0).sub_(target)
        pull = (error * weight).mul_(2.0 / len(x))
        loss = torch.dot(pull, error) / 2.0
        back = values.zero_().scatter_(0, place, pull.unsqueeze(0))
        torch.mm(back, layers[-1], out=self._gradients[-2])
        torch.mm(back, x, out=self._gradients[-1])
        back = out.index_select(0, action).mul_(pull.unsqueeze(1))
        for i in reversed(range(self._depth)):
            back.mul_(layers[i].sign())  # the slope of the rectifier
            if i:
                torch.sum(back, 0, keepdim=True, out=self._gradients[i][:1])
                torch.mm(layers[i - 1].t(), back, out=self._gradients[i][1:])
                back = back @ self._weights[i][1:].t()
            else:
                torch.mm(x.t(), back, out=self._gradients[0])
        self._descend()
        return loss

    def _descend(self) -> None:
        r"""Moves the weights by Adam with decoupled weight decay, and their average after them.

        .. math:: w \leftarrow (1 - \eta \lambda) w - \eta \, \hat m / (\sqrt{\hat v} + \epsilon)
        """
        self.steps += 1
        fast, slow = DECAYS
        self._first.lerp_(self._gradient, 1.0 - fast)
        self._second.mul_(slow).addcmul_(self._gradient, self._gradient, value=1.0 - slow)
        root = math.sqrt(1.0 - slow**self.steps)
        rate = self._rate * root / (1.0 - fast**self.steps)
        self._flat.mul_(1.0 - self._rate * self._decay)
        self._flat.addcdiv_(self._first, self._second.sqrt().add_(TINY * root), value=-rate)
        self._average.lerp_(self._flat, max(1.0 / self.steps, AVERAGE))

    def state_dict(self) -> dict[str, Any]:
        """Present, averaged and settled weights, the moments of the gradient, and how many steps there were."""
        return {**{name: mine.clone() for name, mine in self._vectors().items()}, "steps": self.steps}

    def _vectors(self) -> dict[str, Tensor]:
        return {
            "flat": self._flat,
            "average": self._average,
            "settled": self._settled,
            "first": self._first,
            "second": self._second,
        }

    def moved(self, state: Mapping[str, Any], place: Tensor) -> dict[str, Any]:
        """A state of a network for other actions, as one for these: output layers and their moments in new places.

        Args:
            state: As `state_dict` gives it.
            place: Which action each was before (A,); -1 for a new one, whose output layers begin at 0.

        Raises:
            RuntimeError: If the hidden layers are of another shape.
        """
        body = sum(a * b for a, b in self._shapes[:-2])
        widths = [self._shapes[-2][1], self._shapes[-1][1]]
        actions, left = divmod(len(state["flat"]) - body, sum(widths))
        if left or actions <= int(place.max()):
            raise RuntimeError(f"its network has {len(state['flat'])} weights, which do not fit {self._shapes}")

        def move(flat: Tensor) -> Tensor:
            inner, *outputs = torch.split(flat, [body, *(width * actions for width in widths)])
            each = [torch.nn.functional.pad(out.view(actions, -1), (0, 0, 0, 1))[place] for out in outputs]
            return torch.cat([inner, *(out.flatten() for out in each)])

        return {**state, **{name: move(state[name]) for name in self._vectors()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            RuntimeError: If the weights are of a network of another shape.
        """
        if state["flat"].shape != self._flat.shape:
            raise RuntimeError(f"its network has {len(state['flat'])} weights, not {len(self._flat)}")
        for name, mine in self._vectors().items():
            mine.copy_(state[name])
        self.steps = int(state["steps"])
