"""Compare numbers of mixtures that vote: regret, the next log's effective sample size, and the cost of probabilities.

    python -m benchmarks.mixtures --set exploration_scale=0.25 weight_decay=0.5 warm_rows=40000 --csv docs/mixtures.csv
    python -m benchmarks.mixtures --numbers 64                        the default settings

A policy that has learned from 10,000 rows of a stream logs 5,000 more, learns from them, and is then evaluated on them.
The effective sample size of such a log is, as a share of its rows, the inverse of the mean squared importance weight,
which exact propensities give without sampling: the mean over rows of the sum over actions of p(new)^2 / p(logged). The
seeds are those on which settings are chosen.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

from benchmarks.quality import run
from benchmarks.stream_learners import OurAgent
from benchmarks.streams import ACTIONS, BATCH, stream
from crosschannel.agents import Observations
from crosschannel.agents.settings import DEFAULT_FLOOR
from crosschannel.core.files import parse_yaml

SEEDS = tuple(range(100, 110))
NUMBERS = (0, 20, 32, 64, 128, 256)
ROWS, LOGGED = 10_000, 5_000


def next_log(kind: str, seed: int, **settings: Any) -> tuple[float, float, float]:
    """Return the ESS as a share of the rows, the share of choices from the floor alone, and the cost in seconds.

    The second is how often the new policy takes actions that the logged one took only in uniform draws; the cost is the
    processor time of the probabilities of 100,000 rows.
    """
    rows, n = stream(kind, ROWS + LOGGED, seed), (ROWS + LOGGED) // BATCH
    agent, logged = OurAgent(seed, **settings), {}
    contexts = rows.context.reshape(n, BATCH, -1)
    seen = [Observations(each, np.ones((BATCH, ACTIONS), dtype=bool)) for each in contexts]
    chosen = [np.zeros(BATCH, dtype=np.int64)] * n
    earned = rows.reward.reshape(n, BATCH, ACTIONS)
    for batch in range(n):
        decided = agent.agent.act(seen[batch])
        chosen[batch] = decided.actions[:, 0]
        if batch < ROWS // BATCH:
            agent.learn(contexts[batch], chosen[batch], earned[batch][np.arange(BATCH), chosen[batch]])
        else:
            logged[batch] = agent.agent.action_probabilities(seen[batch])[0]
    for batch in logged:
        agent.learn(contexts[batch], chosen[batch], earned[batch][np.arange(BATCH), chosen[batch]])
    begin = process_time()
    shares = [agent.agent.action_probabilities(each)[0] for each in seen]
    seconds = (process_time() - begin) / len(rows.context) * 100_000
    before, after = np.concatenate(list(logged.values())), np.concatenate([shares[batch] for batch in logged])
    unvoted = before < (1 + 1e-9) * DEFAULT_FLOOR / ACTIONS
    return 1.0 / float((after**2 / before).sum(1).mean()), float((after * unvoted).sum(1).mean()), seconds


def main() -> None:
    """Measure every number of mixtures and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", nargs="*", type=int, default=list(NUMBERS))
    parser.add_argument("--set", nargs="*", default=[], help="other settings of ensemble_thompson, as name=value")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    others = {key: parse_yaml(value, key) for key, value in (pair.split("=", 1) for pair in given.set)}
    found = []
    for mixtures in given.numbers:
        settings = {**others, "mixtures": mixtures}
        row: dict[str, object] = {"mixtures": mixtures}
        for kind in ("nonlinear", "even"):
            regret = np.array([run(OurAgent(seed, **settings), kind, ROWS, seed)[0] for seed in SEEDS])
            logs = np.array([next_log(kind, seed, **settings) for seed in SEEDS])
            row |= {
                f"regret {kind}": round(float(regret.mean()), 2),
                f"se {kind}": round(float(regret.std(ddof=1) / np.sqrt(len(SEEDS))), 2),
                f"ESS share {kind}": round(float(logs[:, 0].mean()), 3),
                f"from the floor alone {kind}": round(float(logs[:, 1].mean()), 3),
            }
        row["seconds"] = round(float(np.median(logs[:, 2])), 3)
        found.append(row)
        print(*row.values(), sep="  ", flush=True)
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)


if __name__ == "__main__":
    main()
