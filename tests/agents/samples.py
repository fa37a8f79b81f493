"""Action spaces, observations and contextual problems with known truth, for the agents' tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.agents import Agent, Batch, Observations
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import BoolArray, Float32Array, FloatArray, IntArray
from crosschannel.core.hashing import mix

PLAIN = ActionSpace([Module("channel", ("none", "email", "push")), Module("offer", ("small", "large"))])
NESTED = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("kind", ("bogo", "discount", "info")),
        Module("offer", ("b1", "b2", "d1", "d2", "d3", "i1"), "kind", ("bogo", "bogo", *["discount"] * 3, "info")),
        Module("hour", ("e9", "e18", "p12"), "channel", ("email", "email", "push")),
    ]
)
TABLES = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("hour", ("morning", "evening"), condition_on="channel"),
        Module("tone", ("warm", "cold", "dry"), labels={"warm": {"emoji": True}, "cold": {"emoji": False}}),
        Module("greeting", ("hi", "dear"), condition_on="tone"),
    ]
)
SMALL = {"members": 5, "hidden": [16, 8]}
SETTINGS = {
    "ensemble_thompson": SMALL,
    "neural_linear": {"hidden": [16, 8], "draws": 5},
    "bootstrapped_q": {"members": 4, "units": 8, "sweeps": 3},
}


def observations_of(mask: BoolArray, width: int = 4, seed: int = 0) -> Observations:
    """Standard normal contexts for the rows of a mask, of a dozen users."""
    rng = np.random.default_rng(seed)
    context = rng.standard_normal((len(mask), width)).astype(np.float32)
    return Observations(context, mask, mix(rng.integers(0, 12, len(mask)).astype(np.uint64)))


def everything(n: int, modules: ActionSpace) -> BoolArray:
    """A mask that forbids nothing."""
    return np.ones((n, modules.total), dtype=bool)


def random_batch(n: int, modules: ActionSpace = PLAIN, seed: int = 0, width: int = 4) -> Batch:
    """Uniform actions with rewards that are noise, each followed by another one, the user's end or the log's."""
    rng = np.random.default_rng(seed)
    composites = modules.joint_actions
    actions = composites[rng.integers(0, len(composites), n)]
    observations = observations_of(everything(n, modules), width, seed)
    keys = mix(np.arange(n, dtype=np.uint64) + np.uint64(seed * 1_000_000))
    later = observations_of(rng.random((n, modules.total)) < 0.7, width, seed + 1)
    steps = rng.choice([0.0, 1.0, 2.0, np.nan], n)
    terminal = steps == 0
    steps[terminal] = np.nan
    return Batch(
        observations=observations,
        actions=actions,
        rewards=rng.standard_normal(n),
        se=rng.uniform(0.5, 1.0, n),
        keys=keys,
        next_observations=later,
        steps_to_next=steps,
        terminal=terminal,
    )


@dataclass(frozen=True)
class Problem:
    """A contextual problem: the effect of an action is a sum over its modules, linear and even in 8 features."""

    linear: list[FloatArray]
    even: list[FloatArray]
    scale: float
    noise: float
    modules: ActionSpace = PLAIN

    @classmethod
    def make(cls, seed: int, scale: float, noise: float) -> Problem:
        rng = np.random.default_rng(seed)
        linear = [rng.standard_normal((9, size)) / 3 for size in PLAIN.sizes]
        even = [0.5 * rng.standard_normal((8, size)) for size in PLAIN.sizes]
        return cls(linear, even, scale, noise)

    def effects(self, context: Float32Array) -> FloatArray:
        """True rewards (N, J) of all composites; sending nothing has none."""
        x = np.concatenate([np.ones((len(context), 1)), context], axis=1)
        parts = [x @ a + (np.abs(context) - 0.8) @ b for a, b in zip(self.linear, self.even, strict=True)]
        total = sum(p[:, self.modules.joint_actions[:, m]] for m, p in enumerate(parts))
        return self.scale * np.where(self.modules.joint_actions[:, 0] == 0, 0.0, total)

    def log(self, n: int, seed: int) -> Batch:
        """Rows logged by a policy that sends nothing half of the time, and otherwise favours the first feature."""
        rng = np.random.default_rng([seed, 7])
        context = rng.standard_normal((n, 8)).astype(np.float32)
        composites = self.modules.joint_actions
        score = np.outer(context[:, 0], np.linspace(-0.5, 0.5, len(composites) - 1))
        score += rng.gumbel(size=score.shape)
        chosen: IntArray = np.where(rng.random(n) < 0.5, 0, 1 + score.argmax(1))
        reward = self.effects(context)[np.arange(n), chosen] + self.noise * rng.standard_normal(n)
        keys = mix(np.arange(n, dtype=np.uint64) + np.uint64(seed * 10**9))
        observations = Observations(context, everything(n, self.modules))
        se = np.full(n, self.noise)
        return Batch(observations=observations, actions=composites[chosen], rewards=reward, se=se, keys=keys)

    def test_contexts(self, n: int = 5000) -> Observations:
        """Fresh contexts."""
        context = np.random.default_rng(99).standard_normal((n, 8)).astype(np.float32)
        return Observations(context, everything(n, self.modules))

    def regret(self, agent: Agent, *, explore: bool = False) -> float:
        """True value that the agent forgoes, where the uniform policy has 1 and the best one 0."""
        seen = self.test_contexts()
        truth = self.effects(seen.context)
        best = truth.max(1).mean()
        if explore:
            joint = self.modules.all_joint_probabilities(agent.action_probabilities(seen))
            value = (joint * truth).sum(1).mean()
        else:
            chosen = self.modules.joint_index(agent.act(seen, explore=False).actions)
            value = truth[np.arange(len(truth)), chosen].mean()
        return float((best - value) / (best - truth.mean(1).mean()))

    def regret_of_fixed(self) -> float:
        """The same for the one action that is best for all, known from the truth."""
        truth = self.effects(self.test_contexts().context)
        best = truth.max(1).mean()
        return float((best - truth.mean(0).max()) / (best - truth.mean(1).mean()))
