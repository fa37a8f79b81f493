"""Logged messages of several parts, in a few contexts, whose expectations are sums over all actions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.evaluation import LoggedDecisions

MESSAGE = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("hour", ("am", "pm"), condition_on="channel"),
        Module("tone", ("warm", "cold", "dry")),
        Module("offer", ("ten", "free")),
    ]
)
#: The offer's variant has a parent, and the tone is conditioned on the hour: two factors of two modules, and one more.
NESTED = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("hour", ("am", "pm")),
        Module("offer", ("ten", "free")),
        Module("tone", ("warm", "cold"), condition_on="hour"),
        Module("variant", ("t1", "t2", "f1"), "offer", ("ten", "ten", "free")),
        Module("greeting", ("hi", "dear")),
    ]
)
FACTORS = {MESSAGE: ((1,), (2,), (3,)), NESTED: ((1, 3), (2, 4), (5,))}


def random_policy(modules: ActionSpace, rng: np.random.Generator, cells: int, scale: float = 0.7) -> list[FloatArray]:
    """Random conditional probabilities (cells, *shape(m)) of every module, each competing group summing to 1."""
    out = []
    for m in range(len(modules)):
        p = np.exp(scale * rng.normal(size=(cells, *modules.shape(m))))
        for group in modules.groups(m):
            p[..., group] /= p[..., group].sum(-1, keepdims=True)
        out.append(p)
    return out


@dataclass(frozen=True)
class EveryAction:
    """Each joint action once in each context: the rows, and the probability that the log has it.

    Attributes:
        log: The rows.
        cell: Context of each row (n,).
        chance: Probability of each row under the log (n,), over all contexts together.
        policy: The policy's probabilities, one array (n, *shape(m)) per module.
        policy_chance: Probability of each row under the policy (n,).
    """

    log: LoggedDecisions
    cell: IntArray
    chance: FloatArray
    policy: list[FloatArray]
    policy_chance: FloatArray

    @classmethod
    def of(cls, modules: ActionSpace, seed: int = 0, cells: int = 3) -> EveryAction:
        """List all actions of a log and a policy that draw all modules independently given context and channel."""
        rng = np.random.default_rng(seed)
        mu, pi = (random_policy(modules, rng, cells) for _ in range(2))
        actions = modules.joint_actions
        cell = np.repeat(np.arange(cells), len(actions))
        rows = np.tile(actions, (cells, 1))
        propensity, chosen = (modules.chosen_probabilities([p[cell] for p in each], rows) for each in (mu, pi))
        log = LoggedDecisions(modules, rows, propensity, propensity.prod(1), np.arange(len(rows)))
        return cls(log, cell, propensity.prod(1) / cells, [p[cell] for p in pi], chosen.prod(1) / cells)

    def earns(self, order: int, rng: np.random.Generator) -> FloatArray:
        """Random rewards (n,) in which at most `order` factors interact given context and channel."""
        modules = self.log.modules
        sent = modules.sends(self.log.actions)
        out = rng.normal(size=(3, modules.sizes[0]))[self.cell, self.log.actions[:, 0]]
        for size in range(1, order + 1):
            for factors in combinations(FACTORS[modules], size):
                used = [0, *(m for f in factors for m in f)]
                shape = (self.cell.max() + 1, *(modules.sizes[m] for m in used))
                out = out + sent * rng.normal(size=shape)[(self.cell, *(self.log.actions[:, m] for m in used))]
        return out
