"""Action spaces, random heads and rows with components whose truth is known, for the tests of the funnel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crosschannel.agents import Batch, Components, Observations
from crosschannel.agents.funnel.calibration import Blend
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.rows import FunnelRows, fold_of
from crosschannel.agents.funnel.values import Heads
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.hashing import mix

Floats = npt.NDArray[np.floating[Any]]

CHANNEL = Module("channel", ("none", "email", "push"))
TONE = Module("tone", ("warm", "cold", "dry"))
PLAIN = ActionSpace([CHANNEL, TONE, Module("offer", ("small", "large", "huge"))])
PARENTS = ActionSpace(
    [
        CHANNEL,
        Module("kind", ("bogo", "info"), "channel", ("email", "push")),
        Module("offer", ("b1", "b2", "i1"), "kind", ("bogo", "bogo", "info")),
        TONE,
    ]
)
SIBLINGS = ActionSpace(
    [
        CHANNEL,
        Module("kind", ("bogo", "info")),
        Module("offer", ("b1", "b2", "i1"), "kind", ("bogo", "bogo", "info")),
        Module("picture", ("red", "blue"), condition_on="kind"),
    ]
)
TABLES = ActionSpace(
    [
        CHANNEL,
        Module("hour", ("morning", "noon", "evening"), condition_on="channel"),
        Module("minute", ("sharp", "late"), condition_on="hour"),
        Module("tone", ("warm", "cold", "dry"), labels={"warm": {"emoji": True}, "cold": {"emoji": False}}),
    ]
)
SPACES = {"plain": PLAIN, "parents": PARENTS, "siblings": SIBLINGS, "tables": TABLES}


def contexts(n: int, width: int, seed: int = 0) -> Tensor:
    """Standard normal contexts (n, width)."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32))


def messages(n: int, modules: ActionSpace, seed: int = 0) -> IntArray:
    """Uniform messages (n, M)."""
    joint = modules.joint_actions[1:]
    return np.asarray(joint[np.random.default_rng([seed, 1]).integers(0, len(joint), n)])


def dense(design: Design, x: Tensor, cells: Tensor) -> Tensor:
    """The design matrix (n, columns), written out."""
    out = torch.zeros(len(x), design.columns, dtype=torch.float64)
    out[:, : design.base] = design.common(x).double()
    own = design.of_cells(x).double()
    for m, start in enumerate(design.starts):
        for row, cell in enumerate(cells[:, m].tolist()):
            at = start + cell * design.each
            out[row, at : at + design.each] = own[row]
    return out


def random_heads(design: Design, costs: int = 1, members: int = 4, seed: int = 0, tested: bool = True) -> Heads:
    """Heads whose probabilities of engagement stay between 0 and 1, and whose hazards stay above the organic ones."""
    generator = torch.Generator().manual_seed(seed)
    value = 0.03 * torch.randn(4, 1 + members, design.columns, generator=generator)
    value[1:] *= 30.0
    value[0, :, 0] = 0.5
    hazard = 0.2 * torch.randn(costs, 1 + members, design.columns, generator=generator)
    hazard[..., 0] = -4.0
    known = torch.tensor([False, True, tested])
    blend = Blend(funnel=0.7, all_sends=0.4)
    return Heads(value, hazard, torch.full((costs,), 1e-6), known, blend, torch.ones(4 + costs, design.blocks))


@dataclass(frozen=True)
class World:
    """Messages whose engagement, gain, direct effect and hazard are known.

    Users engage more by email and by their first feature; the gain depends on the offer and on the second feature. The
    reward is what the messages earn, plus noise, less the price of a complaint. Surrogates may miss a part of what the
    third offer earns.
    """

    direct_of_push: float = 0.0
    confounding: float = 0.0
    missed: float = 0.0
    noise: float = 1.0
    price: float = 2.0
    modules: ActionSpace = PLAIN

    def engagement(self, x: Floats, actions: IntArray) -> FloatArray:
        return np.asarray(np.clip(np.array([0.0, 0.6, 0.3])[actions[:, 0]] + 0.08 * x[:, 0], 0.02, 0.98))

    def gain(self, x: Floats, actions: IntArray) -> FloatArray:
        return np.asarray(np.array([0.5, 1.0, 2.0])[actions[:, 2]] + 0.5 * x[:, 1])

    def direct(self, actions: IntArray) -> FloatArray:
        return np.where(actions[:, 0] == 2, self.direct_of_push, 0.0)

    def hazard(self, actions: IntArray) -> FloatArray:
        return np.asarray(np.array([0.0, 0.02, 0.1])[actions[:, 0]] * np.array([1.0, 2.0, 1.0])[actions[:, 1]])

    def value(self, x: Floats, actions: IntArray) -> FloatArray:
        """The whole effect of messages, costs included."""
        p, direct = self.engagement(x, actions), self.direct(actions)
        return p * self.gain(x, actions) + (1.0 - p) * direct - self.price * self.hazard(actions)

    def log(self, n: int, seed: int = 0, users: int | None = None) -> Batch:
        """Rows of a policy that sends nothing half of the time, and otherwise anything.

        With confounding, users engage on days on which they buy more in any case, by that much.
        """
        rng = np.random.default_rng([seed, 3])
        x = rng.standard_normal((n, 3)).astype(np.float32)
        sends = rng.random(n) < 0.5
        actions = np.where(sends[:, None], messages(n, self.modules, seed), 0)
        p = self.engagement(x, actions)
        engaged = (rng.random(n) < p) & sends
        organic = rng.standard_normal(n) * self.noise
        lift = np.where(engaged, self.gain(x, actions), self.direct(actions)) * sends
        # Whoever engages would have bought more anyway, and the others less: sending itself does nothing to that.
        lift = lift + self.confounding * np.where(sends, engaged - p, 0.0)
        cost = ((rng.random(n) < self.hazard(actions)) & sends).astype(np.float64)
        value = lift + organic
        key = mix(np.arange(n, dtype=np.uint64) + np.uint64(seed * 10**8))
        user = key if users is None else mix(np.arange(n, dtype=np.uint64) % np.uint64(users))
        return Batch(
            observations=Observations(x, np.ones((n, self.modules.total), dtype=bool), user),
            actions=actions,
            rewards=value - self.price * cost,
            se=np.full(n, self.noise),
            keys=key,
            components=Components(
                engaged=np.where(sends, engaged.astype(np.float64), np.nan),
                value=value - self.missed * (engaged & (actions[:, 2] == 2)),
                cost=cost[:, None],
                odds=np.ones(n),
                cost_names=("complain",),
                cost_weights=np.array([self.price]),
            ),
        )


def rows_of(batch: Batch) -> FunnelRows:
    """The rows that the model learns from."""
    parts, users = batch.components, batch.observations.users
    assert parts is not None
    assert users is not None

    def column(values: FloatArray) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32))

    return FunnelRows(
        x=torch.from_numpy(batch.observations.context),
        actions=batch.actions,
        reward=column(batch.rewards),
        engaged=column(parts.engaged),
        value=column(parts.value),
        cost=column(parts.cost),
        odds=column(parts.odds),
        fold=fold_of(users),
        user=torch.from_numpy(np.unique(users, return_inverse=True)[1].astype(np.int64)),
        key=torch.from_numpy(batch.keys.view(np.int64)),
    )


def with_components(batch: Batch, **changes: Any) -> Batch:
    """The batch with other components."""
    assert batch.components is not None
    return replace(batch, components=replace(batch.components, **changes))
