"""Values of messages by enumeration of all joint actions, from the definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.values import Heads
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray
from tests.agents.funnel.samples import dense


@dataclass(frozen=True)
class Enumeration:
    """What each of J messages does at N contexts, for each voter V, the best estimate first.

    Attributes:
        modules: The action space.
        parts: Engagement, gain, direct effect and all sends (4, V, N, J).
        hazards: Each cost event's hazard (C, V, N, J).
        tested: Whether the message's channel tells who engages (J,).
        heads: The heads.
    """

    modules: ActionSpace
    parts: FloatArray
    hazards: FloatArray
    tested: FloatArray
    heads: Heads

    @classmethod
    def build(cls, design: Design, heads: Heads, x: torch.Tensor) -> Enumeration:
        modules = design.modules
        joint = modules.joint_actions[1:]
        cells = design.cells_of(joint)
        phi = torch.stack([dense(design, row.repeat(len(joint), 1), cells) for row in x])
        parts = torch.einsum("njd,pvd->pvnj", phi, torch.cat([heads.value, heads.hazard]).double()).numpy()
        tested = heads.tested.numpy()[joint[:, 0]].astype(float)
        return cls(modules, parts[:4], np.exp(parts[4:]), tested, heads)

    def shares(self, shares: Sequence[FloatArray]) -> FloatArray:
        """Probability of each message (N, J) by shares (cells, N) of every module, given that something is sent."""
        joint = self.modules.joint_actions[1:]
        p = np.prod([share.T[:, self.modules.table_cell(m, joint)] for m, share in enumerate(shares)], axis=0)
        return np.asarray(p / p.sum(1, keepdims=True))

    def values(self, cost_prices: FloatArray) -> FloatArray:
        """Value of each message (V, N, J)."""
        p, gain, direct, everybody = self.parts
        p = p * self.tested
        blend = self.heads.blend
        found = blend.funnel * (p * gain + (1.0 - p) * direct) + blend.all_sends * everybody
        beyond = self.hazards - self.heads.organic.numpy()[:, None, None, None]
        return np.asarray(found - np.einsum("c,cvnj->vnj", cost_prices, beyond))

    def given(self, m: int, each: FloatArray, shares: Sequence[FloatArray]) -> FloatArray:
        """Mean (..., cells, N) of numbers of each message (..., N, J) over the policy, given each of module m's cells.

        NaN where no message has the cell.
        """
        cell = self.modules.table_cell(m, self.modules.joint_actions[1:])
        weight = self.shares(shares)
        out = []
        for c in range(self.modules.n_table_cells(m)):
            mine = weight * (cell == c)
            with np.errstate(invalid="ignore"):
                out.append((each * mine).sum(-1) / mine.sum(-1))
        return np.stack(out, -2)
