"""Contextual streams with known truth, on which learners are compared row by row.

A learner sees batches of 1,000 rows: it chooses for the whole batch, then learns from the rewards of its choices.
Everything is drawn from one generator with the seed `SEED + seed`, so that results are comparable between machines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import IntArray

FloatArray = npt.NDArray[np.floating]

SEED = 1234
WIDTH, ACTIONS, BATCH = 32, 8, 1000
KINDS = ("nonlinear", "even", "heavy_tails", "drift")
NOISE_SCALE, DEGREES_OF_FREEDOM = 0.6, 2.2
DRIFT_PERIOD = 40_000


@dataclass(frozen=True)
class Stream:
    """Contexts (n, 32) float32, the actions' mean rewards (n, 8), and each action's reward (n, 8)."""

    context: FloatArray
    mean: FloatArray
    reward: FloatArray

    def relative_regret(self, chosen: IntArray, first: int | None = None) -> float:
        """Return the regret of actions (n,) over the first rows, in percent of the uniform policy's regret."""
        mean, chosen = self.mean[:first], chosen[:first]
        best = mean.max(1)
        lost = best - mean[np.arange(len(mean)), chosen]
        return float(100.0 * lost.sum() / (best - mean.mean(1)).sum())


def stream(kind: str, n: int, seed: int) -> Stream:
    """Generate one stream.

    `nonlinear`: a network of 48 rectified units, and a linear part; rewards are 0 or 1. `even`: 24 absolute values of
    projections of the first 8 features, so that no action has any linear effect. `heavy_tails`: the mean rewards of
    `nonlinear`, and noise whose variance is finite and whose third moment is not (Student's t with 2.2 degrees of
    freedom). `drift`: the logits rotate from one such network to another and back, with a period of 40,000 rows. The
    networks' logits are centred over the rows.
    """
    rng = np.random.default_rng(SEED + seed)
    x = rng.standard_normal((n, WIDTH)).astype(np.float32)
    score = _even(x, rng) if kind == "even" else _nonlinear(x, rng)
    if kind == "drift":
        angle = 2.0 * np.pi * np.arange(n)[:, None] / DRIFT_PERIOD
        score = np.cos(angle) * score + np.sin(angle) * _nonlinear(x, rng)
    mean = 1.0 / (1.0 + np.exp(1.4 - 1.3 * score))
    if kind == "heavy_tails":
        reward = mean + NOISE_SCALE * rng.standard_t(DEGREES_OF_FREEDOM, (n, ACTIONS))
    else:
        reward = rng.random((n, ACTIONS)) < mean
    return Stream(x, mean.astype(np.float32), reward.astype(np.float32))


def _nonlinear(x: FloatArray, rng: np.random.Generator) -> FloatArray:
    score = _network(x, 48, lambda projected: np.maximum(projected, 0), rng)
    return np.asarray(score + 0.4 * x @ rng.standard_normal((WIDTH, ACTIONS)) / np.sqrt(WIDTH))


def _even(x: FloatArray, rng: np.random.Generator) -> FloatArray:
    return _network(x[:, :8], 24, np.abs, rng)


def _network(
    x: FloatArray, units: int, bend: Callable[[FloatArray], FloatArray], rng: np.random.Generator
) -> FloatArray:
    """Return the centred outputs (n, 8) of a random network with one hidden layer."""
    inner = rng.standard_normal((x.shape[1], units)) / np.sqrt(x.shape[1]) * 1.6
    outer = rng.standard_normal((units, ACTIONS)) / np.sqrt(units) * 2.2
    score = bend(x @ inner) @ outer
    return np.asarray(score - score.mean(0))
