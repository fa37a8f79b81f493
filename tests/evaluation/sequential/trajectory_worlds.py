"""Small finite-horizon worlds with fatigue whose values are enumerated, for the tests of trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.evaluation import LoggedDecisions, Trajectories

PUSH = ActionSpace([Module("channel", ("none", "push"))])


@dataclass(frozen=True)
class FatigueWorld:
    """Two kinds of users; a message tires its user for the next slot, and one to a tired user may lose them.

    All tables have the axes slot, kind, tired, and, but for the chances to send, action (none, push).

    Attributes:
        log: The log's chance to send (H, 2, 2).
        policy: The evaluated policy's (H, 2, 2).
        earns: Chance of a reward of 1 (H, 2, 2, 2).
        leaves: Chance that the user churns after the slot (H, 2, 2, 2).
    """

    log: FloatArray
    policy: FloatArray
    earns: FloatArray
    leaves: FloatArray

    @property
    def horizon(self) -> int:
        return len(self.log)

    def q(self, discount: float = 1.0) -> tuple[FloatArray, FloatArray]:
        """Expected sums from each slot on, of an action (H, 2, 2, 2) and of the policy (H, 2, 2), by enumeration."""
        q, v = np.zeros(self.earns.shape), np.zeros((self.horizon + 1, 2, 2))
        for t in reversed(range(self.horizon)):
            # After action a the user is in state tired = a, whatever it was before.
            q[t] = self.earns[t] + discount * (1 - self.leaves[t]) * v[t + 1][:, None, :]
            v[t] = self.mixed(q)[t]
        return q, v[:-1]

    def mixed(self, q: FloatArray) -> FloatArray:
        """The policy's mean (H, 2, 2) of any table of actions (H, 2, 2, 2)."""
        return (1 - self.policy) * q[..., 0] + self.policy * q[..., 1]

    def truth(self, discount: float = 1.0) -> float:
        """The policy's value: kinds are equally many, and nobody is tired at first."""
        return float(self.q(discount)[1][0, :, 0].mean())

    def logged_truth(self, discount: float = 1.0) -> float:
        """The log's own value."""
        return FatigueWorld(self.log, self.log, self.earns, self.leaves).truth(discount)

    def draw(self, rng: np.random.Generator, users: int) -> Walk:
        """A log of so many users under the log's policy."""
        kind, tired = rng.integers(2, size=users), np.zeros(users, dtype=np.int64)
        length = np.full(users, self.horizon)
        columns = []
        for t in range(self.horizon):
            sent = (rng.random(users) < self.log[t, kind, tired]).astype(np.int64)
            reward = (rng.random(users) < self.earns[t, kind, tired, sent]).astype(np.float64)
            left = rng.random(users) < self.leaves[t, kind, tired, sent]
            length = np.where(left, np.minimum(length, t + 1), length)
            columns.append((tired, sent, reward))
            tired = sent
        return Walk(self, kind, *(np.stack(c, axis=1) for c in zip(*columns, strict=True)), length)


@dataclass(frozen=True)
class Walk:
    """A drawn log, (users, H), with what happens after a user churned still in it, as it must not matter."""

    world: FatigueWorld
    kind: IntArray
    tired: IntArray
    sent: IntArray
    rewards: FloatArray
    length: IntArray

    def chances(self, table: FloatArray) -> FloatArray:
        """The probability (users, H) of what was done, from a table of chances to send."""
        send = table[np.arange(self.world.horizon), self.kind[:, None], self.tired]
        return np.where(self.sent == 1, send, 1 - send)

    def trajectories(
        self, q: tuple[FloatArray, FloatArray] | None = None, discount: float = 1.0, log: FloatArray | None = None
    ) -> Trajectories:
        """What an estimator sees; `q` are tables as of `FatigueWorld.q`, `log` chances to send that are believed."""
        t = np.arange(self.world.horizon)
        ratios = self.chances(self.world.policy) / self.chances(self.world.log if log is None else log)
        users = len(self.kind)
        modelled = {}
        if q is not None:
            modelled["q_logged"] = q[0][t, self.kind[:, None], self.tired, self.sent]
            modelled["q_policy"] = q[1][t, self.kind[:, None], self.tired]
        return Trajectories(self.rewards, ratios, self.length, np.arange(users), np.ones(users), discount, **modelled)

    def flat(self) -> tuple[LoggedDecisions, dict[str, FloatArray], list[FloatArray]]:
        """As a flat log, its columns (time, churned, rewards, context), and the policy's probabilities there."""
        user, slot = np.nonzero(np.arange(self.world.horizon) < self.length[:, None])
        kind, tired, sent = self.kind[user], self.tired[user, slot], self.sent[user, slot]
        propensity = self.chances(self.world.log)[user, slot]
        log = LoggedDecisions(PUSH, sent[:, None], propensity[:, None], propensity, user)
        send = self.world.policy[slot, kind, tired]
        columns = {
            "time": slot,
            "churned": (slot + 1 == self.length[user]) & (self.length[user] < self.world.horizon),
            "rewards": self.rewards[user, slot],
            "context": np.stack([kind, tired, kind * tired], axis=1) - 0.5,
        }
        return log, columns, [np.stack([1 - send, send], axis=1)]


def design_example() -> FatigueWorld:
    """Two slots: the log sends first at .61, then at .5; the policy waits, then sends. Its value is .07 + .30 = .370.

    A slot at a time under the log's fatigue it would be .07 + .39 x .30 + .61 x .10 = .248.
    """
    whole = np.ones((2, 2, 2))
    earns = np.zeros((2, 2, 2, 2))
    earns[0, ..., 0], earns[0, ..., 1] = 0.07, 0.2
    earns[1, ..., 0], earns[1, :, 0, 1], earns[1, :, 1, 1] = 0.05, 0.30, 0.10
    log = whole * np.array([0.61, 0.5])[:, None, None]
    policy = whole * np.array([0.0, 1.0])[:, None, None]
    return FatigueWorld(log, policy, earns, np.zeros((2, 2, 2, 2)))


def fatigue_world(horizon: int) -> FatigueWorld:
    """The log sends to whom it likes, more often to the tired; the policy sends less to them, and kinds differ."""
    one = np.ones((horizon, 1, 1))
    log = one * np.array([[0.5, 0.7], [0.35, 0.6]])
    policy = one * np.array([[0.65, 0.4], [0.55, 0.3]])
    # (kind, tired, action): a message helps the rested, and hurts the tired.
    earns = np.array([[[0.2, 0.6], [0.25, 0.1]], [[0.3, 0.5], [0.3, 0.2]]])
    leaves = np.array([[[0.0, 0.02], [0.0, 0.3]], [[0.0, 0.0], [0.05, 0.2]]])
    return FatigueWorld(log, policy, one[..., None] * earns, one[..., None] * leaves)


def by_hand(**changes: object) -> Trajectories:
    """Two trajectories of two slots; the second user churned after the first."""
    arrays: dict[str, object] = {
        "rewards": np.array([[1.0, 2.0], [4.0, 9.0]]),
        "ratios": np.array([[0.5, 3.0], [2.0, 7.0]]),
        "length": np.array([2, 1]),
        "user": np.array([0, 1]),
        "counts": np.array([1.0, 3.0]),
        "discount": 0.5,
        "q_logged": np.array([[1.0, 1.0], [3.0, 5.0]]),
        "q_policy": np.array([[0.0, 2.0], [1.0, 5.0]]),
    }
    return Trajectories(**{**arrays, **changes})  # type: ignore[arg-type]
