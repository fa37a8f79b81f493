"""Contextual streams with known truth, on which learners are compared row by row.

A learner sees batches of 1,000 rows: it chooses for the whole batch, then learns from the rewards of its choices.
Everything is drawn from one generator with the seed `SEED + seed`, so that results are comparable between machines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import IntArray

FloatArray = npt.NDArray[np.floating]

SEED = 1234
WIDTH, ACTIONS, BATCH = 32, 8, 1000
KINDS = ("nonlinear", "even", "heavy_tails", "drift")
HEAVY_SCALE, DEGREES = 0.6, 2.2
PERIOD = 40_000


@dataclass(frozen=True)
class Stream:
    """Contexts (n, 32) float32, the actions' mean rewards (n, 8), and each action's reward (n, 8), 0 or 1."""

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
    rng = np.random.default_rng(SEED + seed)
    x = rng.standard_normal((n, WIDTH)).astype(np.float32)
    if kind == "even":
        score = _units(x[:, :8], 24, rng, np.abs)
        score -= score.mean(0)
    else:
        score = _units(x, 48, rng, lambda z: np.maximum(z, 0))
        score -= score.mean(0)
        score += 0.4 * x @ rng.standard_normal((WIDTH, ACTIONS)) / np.sqrt(WIDTH)
    if kind == "drift":
        later = _units(x, 48, rng, lambda z: np.maximum(z, 0))
        later -= later.mean(0)
        later += 0.4 * x @ rng.standard_normal((WIDTH, ACTIONS)) / np.sqrt(WIDTH)
        angle = 2 * np.pi * np.arange(n)[:, None] / PERIOD
        score = np.cos(angle) * score + np.sin(angle) * later
    mean = 1.0 / (1.0 + np.exp(1.4 - 1.3 * score))
    if kind == "heavy_tails":
        return Stream(x, mean.astype(np.float32), (mean+HEAVY_SCALE*rng.standard_t(DEGREES,(n,ACTIONS))).astype(np.float32))
    return Stream(x, mean.astype(np.float32), (rng.random((n, ACTIONS)) < mean).astype(np.float32))


def _units(x, units, rng, bend):
    """Return scores (n, 8)."""
    inner = rng.standard_normal((x.shape[1], units)) / np.sqrt(x.shape[1]) * 1.6
    outer = rng.standard_normal((units, ACTIONS)) / np.sqrt(units) * 2.2
    return bend(x @ inner) @ outer
