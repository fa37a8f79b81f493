"""Letters of three parts that are fully crossed, as those of Karlan & List (2007): the real file, or made alike."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.evaluation import LoggedDecisions

LETTERS = ActionSpace(
    [
        Module("channel", ("none", "letter")),
        Module("ratio", ("1:1", "2:1", "3:1")),
        Module("size", ("25k", "50k", "100k", "unstated")),
        Module("example", ("1.00", "1.25", "1.50")),
    ]
)
FACTORS = ((1,), (2,), (3,))
CELLS = np.array(list(product(range(3), range(4), range(3))), dtype=np.int64)
SHARE = 2 / 3
#: Share that gave, by part, as in the published experiment.
MEAN, BY_RATIO = 0.02204, np.array([-0.0013, 0.0006, 0.0007])
BY_SIZE, BY_EXAMPLE = np.array([-0.0005, 0.0004, 0.0, 0.0001]), np.array([-0.001, 0.0, 0.001])


@dataclass(frozen=True)
class Experiment:
    """A fully crossed experiment: one row a person; parts are 0 where no letter was sent."""

    sent: IntArray
    parts: IntArray
    gave: FloatArray

    @classmethod
    def simulated(cls, rng: np.random.Generator, people: int = 50_083) -> Experiment:
        """Made as the real one, with effects of the parts that add up."""
        sent = (rng.random(people) < SHARE).astype(np.int64)
        parts = CELLS[rng.integers(36, size=people)] * sent[:, None]
        chance = np.where(sent, MEAN + BY_RATIO[parts[:, 0]] + BY_SIZE[parts[:, 1]] + BY_EXAMPLE[parts[:, 2]], 0.018)
        return cls(sent, parts, (rng.random(people) < chance).astype(np.float64))

    @classmethod
    def read(cls, path: Path) -> Experiment:
        """The real file."""
        t = pd.read_csv(path)
        ratio = t["treat_ratio2"] + 2 * t["treat_ratio3"]
        size = t["treat_size50"] + 2 * t["treat_size100"] + 3 * t["treat_sizeno"]
        example = t["treat_askd2"] + 2 * t["treat_askd3"]
        sent = t["treatment"].to_numpy(dtype=np.int64)
        parts = np.column_stack([ratio, size, example]).astype(np.int64) * sent[:, None]
        return cls(sent, parts, t["out_gavedum"].to_numpy(dtype=np.float64))

    def log(self, propensity: FloatArray | None = None) -> LoggedDecisions:
        """The log, with the propensities of the design or others (n, 3) of the parts."""
        sent = self.sent == 1
        parts = np.broadcast_to([1 / 3, 1 / 4, 1 / 3], self.parts.shape) if propensity is None else propensity
        p = np.column_stack([np.where(sent, SHARE, 1 - SHARE), np.where(sent[:, None], parts, 1.0)])
        actions = np.column_stack([self.sent, self.parts])
        return LoggedDecisions(LETTERS, actions, p, p.prod(1), np.arange(len(p)), propensity_source="by design")

    def thinned(self, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
        """Rows kept so that the parts have skewed chances, and the propensities of the parts at these rows (k, 3).

        A letter is kept in proportion to the product of its parts' new chances; those without a letter are left out.
        """
        chances = [rng.dirichlet(np.full(k, 8.0)) for k in (3, 4, 3)]
        taken = np.column_stack([p[self.parts[:, m]] for m, p in enumerate(chances)])
        keep = (taken / [p.max() for p in chances]).prod(1)
        rows = np.flatnonzero((self.sent == 1) & (rng.random(len(keep)) < keep))
        return rows, taken[rows]


def letter_policy(letter: IntArray, n: int) -> list[FloatArray]:
    """The policy that sends one letter to all."""
    out = [np.tile([0.0, 1.0], (n, 1))]
    return [
        *out,
        *(np.tile(np.arange(size) == part, (n, 1)) * 1.0 for size, part in zip((3, 4, 3), letter, strict=True)),
    ]


def additive_fit(parts: IntArray, rewards: FloatArray) -> FloatArray:
    """The mean of each of the 36 letters by least squares on indicators of the parts."""

    def design(rows: IntArray) -> FloatArray:
        return np.column_stack(
            [np.ones(len(rows))] + [(rows[:, m] == a) * 1.0 for m, k in enumerate((3, 4, 3)) for a in range(1, k)]
        )

    return np.asarray(design(CELLS) @ np.linalg.lstsq(design(parts), rewards, rcond=None)[0])
