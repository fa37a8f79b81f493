"""Small logged bandits whose truth is known by enumeration, for the tests of the evaluation package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.evaluation import Estimate, LoggedDecisions

OFFERS = ActionSpace(
    [
        Module("type", ("none", "bogo", "discount")),
        Module("variant", ("b1", "b2", "d1", "d2"), "type", ("bogo", "bogo", "discount", "discount")),
        Module("hour", ("am", "pm")),
    ]
)
TABLES = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("hour", ("am", "pm"), condition_on="channel"),
        Module("tone", ("warm", "cold", "dry"), condition_on="hour"),
    ]
)
CHANNEL = ActionSpace([Module("channel", ("none", "email", "push"))])


def conditionals(modules: ActionSpace, rng: np.random.Generator, cells: int, spread: float) -> list[FloatArray]:
    """Random conditional probabilities (cells, *shape(m)) a module, each competing group summing to 1."""
    out = []
    for m in range(len(modules)):
        p = np.exp(spread * rng.normal(size=(cells, *modules.shape(m))))
        for group in modules.groups(m):
            p[..., group] /= p[..., group].sum(-1, keepdims=True)
        out.append(p)
    return out


@dataclass(frozen=True)
class World:
    """A bandit with a few contexts (cells): what the log does, what the policy does, and what each action earns."""

    modules: ActionSpace
    mu: list[FloatArray]
    pi: list[FloatArray]
    earns: FloatArray
    noise: float = 1.0
    user_sd: float = 0.0

    @classmethod
    def make(cls, modules: ActionSpace, seed: int, cells: int = 4, noise: float = 1.0, user_sd: float = 0.0) -> World:
        """The policy likes what earns; the log is as likely to like anything else."""
        rng = np.random.default_rng(seed)
        mu, pi = conditionals(modules, rng, cells, 0.7), conditionals(modules, rng, cells, 0.7)
        earns = rng.normal(size=(cells, len(modules.joint_actions)))
        pi[0] = pi[0] * np.exp(
            np.stack([earns[:, modules.joint_actions[:, 0] == a].mean(1) for a in range(pi[0].shape[1])], 1)
        )
        pi[0] /= pi[0].sum(1, keepdims=True)
        return cls(modules, mu, pi, earns, noise, user_sd)

    def truth(self, m: int | None) -> float:
        """The policy's true value; with m, only module m is the policy's and the others are the log's."""
        mixed = self.pi if m is None else [*self.mu[:m], self.pi[m], *self.mu[m + 1 :]]
        return float((self.modules.all_joint_probabilities(mixed) * self.earns).sum(1).mean())

    def logged_truth(self) -> float:
        """The logged policy's true value."""
        return float((self.modules.all_joint_probabilities(self.mu) * self.earns).sum(1).mean())

    def draw(self, rng: np.random.Generator, users: int, rows: int = 1) -> tuple[LoggedDecisions, IntArray, FloatArray]:
        """A log of so many users with so many decisions each, the cell of each decision, and the rewards."""
        n = users * rows
        user = np.repeat(np.arange(users), rows)
        cell = rng.integers(len(self.earns), size=n)
        joint = self.modules.all_joint_probabilities([p[cell] for p in self.mu])
        j = (rng.random(n)[:, None] > np.cumsum(joint, 1)).sum(1).clip(max=joint.shape[1] - 1)
        actions = self.modules.joint_actions[j]
        propensity = self.modules.chosen_probabilities([p[cell] for p in self.mu], actions)
        rewards = self.earns[cell, j] + self.noise * rng.normal(size=n) + self.user_sd * rng.normal(size=users)[user]
        return LoggedDecisions(self.modules, actions, propensity, joint[np.arange(n), j], user), cell, rewards

    def policy(self, cell: IntArray) -> list[FloatArray]:
        """The policy's probabilities at decisions in these cells."""
        return [p[cell] for p in self.pi]

    def one_hot(self, cell: IntArray) -> FloatArray:
        """The cells as context features (n, cells - 1)."""
        return np.eye(len(self.earns))[cell][:, 1:]


def offers(users: int = 1500, rows: int = 2, seed: int = 0) -> tuple[World, LoggedDecisions, IntArray, FloatArray]:
    """A world of offers with a log, the cell of each decision, and the rewards."""
    world = World.make(OFFERS, seed=1)
    log, cell, rewards = world.draw(np.random.default_rng(seed), users, rows)
    return world, log, cell, rewards


def check_not_identified(e: Estimate, reason: str) -> None:
    """An estimate that is not identified has a reason and no number."""
    assert not e.identified
    assert reason in e.reason
    assert np.isnan([e.value.point, e.value.low, e.value.high, e.value.se]).all()
    assert np.isnan([e.difference.point, e.difference.low, e.difference.high]).all()
    assert "not identified (" in str(e)
