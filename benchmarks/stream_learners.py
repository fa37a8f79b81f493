"""The learners that are compared on streams, behind one interface of two methods."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.streams import ACTIONS, WIDTH
from crosschannel.agents import Batch, Observations, make_agent
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import IntArray
from crosschannel.core.hashing import mix

FloatArray = npt.NDArray[np.floating]

MODULES = ActionSpace([Module("action", tuple(f"a{code}" for code in range(ACTIONS)))])


class StreamLearner(Protocol):
    """A learner that chooses for contexts (n, 32), then learns from the rewards (n,) of the chosen actions (n,)."""

    def choose(self, x: FloatArray) -> IntArray: ...

    def learn(self, x: FloatArray, actions: IntArray, rewards: FloatArray) -> None: ...


class OurAgent:
    """An agent of this package, with `steps` updates per batch."""

    def __init__(self, seed: int, name: str = "ensemble_thompson", steps: int = 6, **settings: Any) -> None:
        self.agent = make_agent(name, MODULES, WIDTH, settings, seed)
        self._steps, self._seen = steps, 0

    def choose(self, x: FloatArray) -> IntArray:
        return self.agent.act(Observations(x, np.ones((len(x), ACTIONS), dtype=bool))).actions[:, 0]

    def learn(self, x: FloatArray, actions: IntArray, rewards: FloatArray) -> None:
        keys = mix(np.arange(self._seen, self._seen + len(x), dtype=np.uint64))
        self._seen += len(x)
        seen = Observations(x, np.ones((len(x), ACTIONS), dtype=bool))
        batch = Batch(
            observations=seen, actions=actions[:, None], rewards=rewards.astype(float), se=np.ones(len(x)), keys=keys
        )
        self.agent.observe(batch)
        self.agent.update(self._steps)


class LinearThompson:
    """One Bayesian ridge regression per action and one posterior draw per row (Agrawal & Goyal 2013)."""

    def __init__(self, seed: int, v: float = 0.1) -> None:
        self._rng, self._v = np.random.default_rng(seed), v
        self._gram = np.stack([np.eye(WIDTH + 1)] * ACTIONS)
        self._moment = np.zeros((ACTIONS, WIDTH + 1))

    def choose(self, x: FloatArray) -> IntArray:
        phi = np.hstack([np.ones((len(x), 1)), x])
        inverse = np.linalg.inv(self._gram)
        mean = phi @ np.einsum("aij,aj->ai", inverse, self._moment).T
        variance = np.stack([((phi @ part) * phi).sum(1) for part in inverse], 1)
        return np.asarray((mean + self._v * np.sqrt(variance) * self._rng.standard_normal(mean.shape)).argmax(1))

    def learn(self, x: FloatArray, actions: IntArray, rewards: FloatArray) -> None:
        phi = np.hstack([np.ones((len(x), 1)), x])
        for action in range(ACTIONS):
            own = phi[actions == action]
            self._gram[action] += own.T @ own
            self._moment[action] += own.T @ rewards[actions == action]


class MabwiserLinTS:
    """Linear Thompson sampling of mabwiser, with alpha equal to v of `LinearThompson`."""

    def __init__(self, seed: int, alpha: float = 0.1) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self._mab = MAB(list(range(ACTIONS)), LearningPolicy.LinTS(alpha=alpha), seed=seed)
        self._rng, self._fitted = np.random.default_rng(seed), False

    def choose(self, x: FloatArray) -> IntArray:
        if not self._fitted:
            return self._rng.integers(0, ACTIONS, len(x))
        return np.asarray(self._mab.predict(x))

    def learn(self, x: FloatArray, actions: IntArray, rewards: FloatArray) -> None:
        (self._mab.partial_fit if self._fitted else self._mab.fit)(actions, rewards, x)
        self._fitted = True


class VowpalWabbit:
    """Vowpal Wabbit with bootstrap exploration: `--cb_explore_adf --bag 10`, context crossed with actions."""

    OPTIONS = "--cb_explore_adf --bag 10 -q ua --quiet"

    def __init__(self, seed: int) -> None:
        from vowpalwabbit import Workspace

        self._vw = Workspace(f"{self.OPTIONS} --random_seed {seed + 1}")
        self._rng = np.random.default_rng(seed)

    def choose(self, x: FloatArray) -> IntArray:
        self._probabilities = [np.asarray(self._vw.predict(example(row))) for row in x]
        cumulative = np.cumsum(self._probabilities, 1)
        below = cumulative <= self._rng.random((len(x), 1)) * cumulative[:, -1:]
        return np.asarray(below.sum(1).clip(0, ACTIONS - 1))

    def learn(self, x: FloatArray, actions: IntArray, rewards: FloatArray) -> None:
        for row, action, reward, p in zip(x, actions, rewards, self._probabilities, strict=True):
            self._vw.learn(example(row, f"0:{-reward}:{p[action]}", int(action)))


def vowpal_wabbit_file(x: FloatArray, actions: IntArray, rewards: FloatArray, path: Path) -> float:
    """Return the rows per second at which Vowpal Wabbit predicts for and learns from a file that it reads itself.

    The logged actions (n,) count as drawn uniformly. The file is written before the clock starts.
    """
    from vowpalwabbit import Workspace

    rows = zip(x, actions, rewards, strict=True)
    texts = (example(row, f"0:{-reward}:{1 / ACTIONS}", int(action)) for row, action, reward in rows)
    path.write_text("".join("\n".join(lines) + "\n\n" for lines in texts))
    begin = perf_counter()
    Workspace(f"{VowpalWabbit.OPTIONS} -d {path}").finish()
    return len(x) / (perf_counter() - begin)


def example(row: FloatArray, label: str = "", action: int = -1) -> list[str]:
    """Return a context with its actions in Vowpal Wabbit's text format, the label before the chosen action."""
    shared = "shared |u " + " ".join(f"{i}:{value:.5g}" for i, value in enumerate(row))
    return [shared, *(f"{label if code == action else ''} |a a{code}" for code in range(ACTIONS))]


LEARNERS = {
    "ensemble_thompson": OurAgent,
    "linear Thompson (v = 0.1)": LinearThompson,
    "mabwiser LinTS (alpha = 0.1)": MabwiserLinTS,
    "Vowpal Wabbit --bag 10": VowpalWabbit,
}
