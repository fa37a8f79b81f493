"""Measure how well learners decide on streams with known truth: relative regret, lower is better.

    python -m benchmarks.quality                                      all learners, seeds 0 to 4
    python -m benchmarks.quality --learners ensemble_thompson --seeds 100 101 --set exploration_scale=0.5

The other packages need the extra `baselines`. The table is printed and, with --csv, written to a file.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from benchmarks.stream_learners import LEARNERS, OurAgent, StreamLearner
from benchmarks.streams import BATCH, KINDS, stream
from crosschannel.core.files import parse_yaml

Cell = tuple[str, int]
CELLS: tuple[Cell, ...] = (
    ("nonlinear", 10_000),
    ("nonlinear", 100_000),
    ("even", 10_000),
    ("even", 100_000),
    ("heavy_tails", 10_000),
    ("drift", 10_000),
    ("drift", 100_000),
)


def run(learner: StreamLearner, kind: str, n: int, seed: int) -> tuple[float, float]:
    """Return the relative regret over n rows, and rows per second, decisions included."""
    rows = stream(kind, n, seed)
    chosen = np.zeros(n, dtype=np.int64)
    begin = perf_counter()
    for start in range(0, n, BATCH):
        part = slice(start, start + BATCH)
        chosen[part] = learner.choose(rows.context[part])
        learner.learn(rows.context[part], chosen[part], rows.reward[part][np.arange(BATCH), chosen[part]])
    return rows.relative_regret(chosen), n / (perf_counter() - begin)


def table(
    learners: dict[str, Callable[[int], StreamLearner]], cells: Sequence[Cell], seeds: Sequence[int]
) -> list[dict[str, object]]:
    """Return one row for each learner and cell, with the mean and standard error over seeds, and print it."""
    found = []
    for name, make in learners.items():
        for kind, n in cells:
            results = np.array([run(make(seed), kind, n, seed) for seed in seeds])
            regret, rate = results[:, 0], results[:, 1]
            error = regret.std(ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else float("nan")
            found.append(
                {
                    "learner": name,
                    "stream": kind,
                    "rows": n,
                    "regret": round(float(regret.mean()), 2),
                    "se": round(float(error), 2),
                    "rows_per_second": round(float(np.median(rate))),
                    "seeds": " ".join(map(str, seeds)),
                }
            )
            print(*found[-1].values(), sep="  ", flush=True)
    return found


def main() -> None:
    """Parse the arguments, run, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", nargs="*", default=list(LEARNERS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--rows", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--streams", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--set", nargs="*", default=[], help="settings of ensemble_thompson, as name=value")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = {key: parse_yaml(value, key) for key, value in (pair.split("=", 1) for pair in given.set)}
    learners: dict[str, Callable[[int], StreamLearner]] = {name: LEARNERS[name] for name in given.learners}
    if settings:
        learners = {f"ensemble_thompson {' '.join(given.set)}": lambda seed: OurAgent(seed, **settings)}
    cells = [cell for cell in CELLS if cell[0] in given.streams and cell[1] in given.rows]
    found = table(learners, cells, given.seeds)
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)


if __name__ == "__main__":
    main()
