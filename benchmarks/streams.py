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
KINDS = ("nonlinear", "even")


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
    """Generate one stream.

    `nonlinear`: a network of 48 rectified units, and a linear part. `even`: 24 absolute values of projections of the
    first 8 features, so that no action has any linear effect. The logits are centred over the rows.
    """
    rng = np.random.default_rng(SEED + seed)
    x = rng.standard_normal((n, WIDTH)).astype(np.float32)
    inputs, units = {"nonlinear": (WIDTH, 48), "even": (8, 24)}[kind]
    inner = rng.standard_normal((inputs, units)) / np.sqrt(inputs) * 1.6
    outer = rng.standard_normal((units, ACTIONS)) / np.sqrt(units) * 2.2
    projected = x[:, :inputs] @ inner
    score = (np.abs(projected) if kind == "even" else np.maximum(projected, 0)) @ outer
    score -= score.mean(0)
    if kind == "nonlinear":
        score += 0.4 * x @ rng.standard_normal((WIDTH, ACTIONS)) / np.sqrt(WIDTH)
    mean = 1.0 / (1.0 + np.exp(1.4 - 1.3 * score))
    return Stream(x, mean.astype(np.float32), (rng.random((n, ACTIONS)) < mean).astype(np.float32))
