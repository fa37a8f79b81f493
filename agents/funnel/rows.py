"""The rows that a funnel model learns from; its messages less what is usual without one, and their sums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.ensemble.noise import learn_noise, noise_factor, row_weights
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.sums import DesignStatistics, RunningSums, sum_common
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import IntArray, UIntArray
from crosschannel.core.hashing import derive, in_sample

#: Ridge of the regression of what happens without a message, in rows.
CONTROL_RIDGE = 1.0
#: Largest weight of a message.
MAX_WEIGHT = 4.0
FOLD_SALT, SAMPLE_SALT, NOISE_SALT = 0x66756E6E656C, 0x68617A617264, 0x6E6F697365
#: Decisions without a message, about, from which it is learned how noisy contexts are.
NOISE_ROWS = 65_536
FOLDS = 2
#: Targets of the messages' sums.
TARGETS = 3


@dataclass(frozen=True)
class FunnelRows:
    """Rows with their components, all of length n.

    Attributes:
        x: Contexts (n, D) float32.
        actions: Codes (n, M) of all known actions.
        reward: DiD rewards (n,), all goals and costs included.
        engaged: 1 if the message was engaged with, 0 if not, NaN where that is not known (n,).
        value: Incremental value without cost events, NaN where it is not identified (n,).
        cost: 1 if a cost event occurred, 0 if not, NaN where that is not known (n, C).
        odds: Odds of a message where nothing was sent (n,).
        fold: Half of the users that each row belongs to (n,).
        user: Code of each row's user (n,).
        key: Hashes of the decision ids (n,), int64.
    """

    x: Tensor
    actions: IntArray
    reward: Tensor
    engaged: Tensor
    value: Tensor
    cost: Tensor
    odds: Tensor
    fold: Tensor
    user: Tensor
    key: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def gross(self, weights: Tensor) -> Tensor:
        """Return the rewards (n,) without the cost events that were observed, at prices (C,)."""
        return self.reward + self.cost.nan_to_num(0.0) @ weights

    def messages(self, modules: ActionSpace) -> FunnelRows:
        """Return the rows with a value in which something was sent."""
        return self.take((torch.from_numpy(modules.sends(self.actions)) & self.value.isfinite()).nonzero()[:, 0])

    def controls(self, modules: ActionSpace) -> FunnelRows:
        """Return the rows with a value in which nothing was sent."""
        return self.take((~torch.from_numpy(modules.sends(self.actions)) & self.value.isfinite()).nonzero()[:, 0])

    def take(self, rows: Tensor) -> FunnelRows:
        """Return the rows at some positions (k,)."""
        return FunnelRows(
            x=self.x[rows],
            actions=self.actions[rows.numpy()],
            reward=self.reward[rows],
            engaged=self.engaged[rows],
            value=self.value[rows],
            cost=self.cost[rows],
            odds=self.odds[rows],
            fold=self.fold[rows],
            user=self.user[rows],
            key=self.key[rows],
        )

    def order(self) -> IntArray:
        """Return the rows (n,) by a hash of their decisions: no order and no division of the rows changes it.

        What `in_sample` takes of all rows by `SAMPLE_SALT` is the beginning of this order.
        """
        return np.argsort(derive(self.key.numpy().view(np.uint64), SAMPLE_SALT), kind="stable")


def fold_of(users: UIntArray) -> Tensor:
    """Return the fold (n,) of users (n,), by a hash of who they are."""
    return torch.from_numpy((derive(users, FOLD_SALT) % FOLDS).astype("int64"))


def control_targets(controls: FunnelRows, weights: Tensor) -> Tensor:
    """Return the value, the reward and the reward without cost events (n, 3) of rows without a message."""
    return torch.stack([controls.value, controls.reward, controls.gross(weights)], 1)


def control_coefficients(halves: Sequence[DesignStatistics]) -> Tensor:
    """Return the coefficients (2, base, 3) of what happens without a message, float64.

    Args:
        halves: Sums of rows without a message of each half of the users; one without any gets what the other says.
    """
    some = [half if half.rows else other for half, other in zip(halves, reversed(halves), strict=True)]
    gram, moment = torch.stack([half.gram for half in some]), torch.stack([half.moment for half in some])
    ridge = CONTROL_RIDGE * torch.eye(gram.shape[-1], dtype=torch.float64)
    found: Tensor = torch.linalg.solve(gram + ridge, moment)
    return found


def usual_of(design: Design, x: Tensor, fold: Tensor, coefficients: Tensor) -> Tensor:
    """Return what is usual (n, 3) at contexts (n, D), by the coefficients (2, base, 3) of each row's half (n,)."""
    return (design.common(x) @ coefficients)[fold, torch.arange(len(x))]


@dataclass(frozen=True)
class Usual:
    r"""What a regression on the context predicts of decisions without a message, and how noisy contexts are.

    .. math:: \min_\beta \sum_i w_i \left( r_i - \psi(x_i)^\top \beta \right)^2, \qquad w = \frac{1 - p_0}{p_0}

    over decisions without a message, :math:`p_0` the probability of none: weighted by their odds of a message they are
    distributed as those with one, so that the prediction is right on average over these where the regression is not
    linear, or where what decided who got a message is not in the context (the doubly robust estimator of Sant'Anna &
    Zhao 2020, "Doubly robust difference-in-differences estimators"). Without weights, effects that were none seemed to
    differ by context. The assumption is that the propensities or the regression are right.

    Each half of the users has coefficients of its own: with those of all users, both halves' messages would share the
    errors of this regression, and what one half predicts of the other would look right where it is noise.

    Attributes:
        coefficients: Coefficients of the value, the reward and the reward without cost events, by half (2, base, 3).
        noise: Coefficients of the logarithm of their variance (D,).
        tested: Which actions of the first module have engagement in the log (A,).
    """

    coefficients: Tensor
    noise: Tensor
    tested: Tensor

    @classmethod
    def fit(cls, design: Design, controls: FunnelRows, sent: FunnelRows, weights: Tensor) -> Usual:
        """Fit it to rows without a message, and look in the messages for engagement."""
        tested = torch.zeros(design.modules.sizes[0], dtype=torch.bool)
        tested[torch.from_numpy(sent.actions[:, 0])[sent.engaged.isfinite()]] = True
        targets = control_targets(controls, weights)
        halves = [controls.fold == half for half in range(FOLDS)]
        sums = [sum_common(design, controls.x[at], targets[at], controls.odds[at]) for at in halves]
        coefficients = control_coefficients(sums).float()
        noise = torch.zeros(design.width)
        if len(controls):
            keys = controls.key.numpy().view(np.uint64)
            some = torch.from_numpy(in_sample(keys, NOISE_ROWS / len(controls), NOISE_SALT))
            usual = usual_of(design, controls.x[some], controls.fold[some], coefficients)
            square = (targets[some, 0] - usual[:, 0]).square()
            noise = learn_noise(controls.x[some], square)
        return cls(coefficients, noise, tested)

    def less(self, design: Design, sent: FunnelRows, weights: Tensor) -> Messages:
        """Return messages less what is usual."""
        usual = usual_of(design, sent.x, sent.fold, self.coefficients)
        channel = torch.from_numpy(sent.actions[:, 0])
        factor = noise_factor(sent.x, self.noise)
        return Messages(
            rows=sent,
            cells=design.cells_of(sent.actions),
            engaged=torch.where(self.tested[channel], sent.engaged, torch.zeros_like(sent.engaged)),
            tested=self.tested,
            value=sent.value - usual[:, 0],
            reward=sent.reward - usual[:, 1],
            gross=sent.gross(weights) - usual[:, 2],
            weight=row_weights(torch.ones_like(factor), factor, MAX_WEIGHT),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return it as tensors."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Usual:
        """Restore what `state_dict` returned."""
        return cls(**{f.name: state[f.name].clone() for f in fields(cls)})


@dataclass(frozen=True)
class MessageSums:
    """Sums over messages, float64; they add up over rows and days.

    The targets are engagement, value, and what the goals were beyond the value.

    Attributes:
        engaged: Of the messages that were engaged with.
        others: Of those that were not.
        untested: Of those of actions whose engagement no log tells.
        unknown: Of those whose engagement is not known.
    """

    engaged: DesignStatistics
    others: DesignStatistics
    untested: DesignStatistics
    unknown: DesignStatistics

    @classmethod
    def from_totals(cls, totals: Mapping[str, RunningSums], design: Design) -> MessageSums:
        """Return the sums of each group of messages; those of a group without rows are 0."""
        found = {name: total.statistics() for name, total in totals.items()}
        empty = DesignStatistics.empty(design.columns, TARGETS)
        return cls(**{f.name: found.get(f.name, empty) for f in fields(cls)})

    def __add__(self, other: MessageSums) -> MessageSums:
        return MessageSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def add_in_place(self, other: MessageSums) -> MessageSums:
        """Return these sums with other rows, added in place: nothing else may use these sums."""
        return MessageSums(*(getattr(self, f.name).add_in_place(getattr(other, f.name)) for f in fields(self)))

    def by_component(self) -> Iterator[DesignStatistics]:
        """Yield the sums of each component, then of what the surrogates miss of gain and direct effect.

        One after the other: each is as large as all sums of a group.
        """
        yield (self.engaged + self.others).target(0)
        yield self.engaged.target(1)
        yield (self.others + self.untested).target(1)
        yield (self.engaged + self.others + self.untested + self.unknown).target(1)
        yield self.engaged.target(2)
        yield (self.others + self.untested).target(2)

    def state_dict(self) -> dict[str, Any]:
        """Return them as tensors and plain values."""
        return {f.name: getattr(self, f.name).state_dict() for f in fields(self)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> MessageSums:
        """Restore what `state_dict` returned."""
        return cls(*(DesignStatistics.from_state_dict(state[f.name]) for f in fields(cls)))


@dataclass(frozen=True)
class Messages:
    """The rows in which something was sent, less what the context predicts without a message.

    Attributes:
        rows: The rows.
        cells: Each module's cell (n, M).
        engaged: 1 if engaged, 0 if not or if the channel is not tested, NaN where that is not known (n,).
        tested: Which actions of the first module are tested (A,).
        value: Value less the usual (n,).
        reward: Reward less the usual (n,).
        gross: Reward without the observed cost events, less the usual (n,).
        weight: Weights (n,): the noisier values are in a context, the less its messages count.
    """

    rows: FunnelRows
    cells: Tensor
    engaged: Tensor
    tested: Tensor
    value: Tensor
    reward: Tensor
    gross: Tensor
    weight: Tensor

    def sums(self, design: Design, fold: int) -> MessageSums:
        """Return the sums of one fold's messages; the engaged and the others are summed once for all components."""
        totals: dict[str, RunningSums] = {}
        self.add_to(totals, design, fold)
        return MessageSums.from_totals(totals, design)

    def add_to(self, totals: dict[str, RunningSums], design: Design, fold: int) -> None:
        """Add one fold's messages to the sums of `MessageSums` by name; each is made with its first row."""
        mine = self.rows.fold == fold
        known = self.tested[torch.from_numpy(self.rows.actions[:, 0])]
        groups = {
            "engaged": self.engaged == 1.0,
            "others": (self.engaged == 0.0) & known,
            "untested": ~known,
            "unknown": self.engaged.isnan(),
        }
        for name, which in groups.items():
            at = (mine & which).nonzero()[:, 0]
            if not len(at):
                continue
            engaged = self.engaged[at].nan_to_num(0.0)
            targets = torch.stack([engaged, self.value[at], self.gross[at] - self.value[at]], 1)
            if name not in totals:
                totals[name] = RunningSums.zeros(design, TARGETS)
            totals[name].add(design, self.rows.x[at], self.cells[at], targets, self.weight[at])
