"""What each part of the ensemble is worth: relative regret on the streams with one part changed, lower is better.

    python -m benchmarks.ablation --csv docs/ablation.csv

The seeds are none of those that results are reported on: settings were chosen here.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.quality import table
from benchmarks.stream_learners import OurAgent, StreamLearner
from crosschannel.agents.ensemble.heads import Prior, Sums
from crosschannel.agents.ensemble.prior import NETWORK, trust

SEEDS, ROWS = (100, 101), 20_000

SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "spread 0": {"spread": 0.0},
    "spread 0.5": {"spread": 0.5},
    "spread 1: Thompson sampling proper": {"spread": 1.0},
    "two hidden layers, 128 and 64": {"hidden": [128, 64]},
    "weight decay 0.1": {"weight_decay": 0.1},
    "learning rate 0.003": {"learning_rate": 3e-3},
    "no more gradient steps early": {"warm_rows": 0},
    "no floor": {"floor": 0.0},
}


def as_guessed(_sums: Sums, prior: Prior, _blocks: Tensor, _steps: int) -> Prior:
    """In place of `learn_scales`: the scales stay where they began."""
    return prior


def as_everywhere(context: Tensor, _square: Tensor) -> Tensor:
    """In place of `learn_noise`: no context is noisier than another."""
    return torch.zeros(context.shape[1])


def without_network(
    train: Sums, held_out: Sums, prior: Prior, blocks: Tensor, which: Tensor, chosen: Callable[..., Prior] = trust
) -> Prior:
    """In place of `trust`: the network keeps the trust that it begins with, next to none."""
    return prior if which is NETWORK else chosen(train, held_out, prior, blocks, which)


PARTS: dict[str, tuple[str, Any]] = {
    "scales not learned": ("crosschannel.agents.ensemble.learner.learn_scales", as_guessed),
    "noise taken as the same in every context": ("crosschannel.agents.ensemble.learner.learn_noise", as_everywhere),
    "no network": ("crosschannel.agents.ensemble.learner.trust", without_network),
    "trusted however little it convinces": ("crosschannel.agents.ensemble.prior.CONVINCING", 0.0),
    "no absolute values": ("crosschannel.agents.ensemble.network.absolute", torch.zeros_like),
}


@contextmanager
def changed(part: str) -> Iterator[None]:
    """One part replaced, as long as the context lasts."""
    with patch(*PARTS[part]):
        yield


def main() -> None:
    """Runs every variant and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cells = [(kind, ROWS) for kind in ("nonlinear", "even")]
    learners: dict[str, Callable[[int], StreamLearner]] = {
        name: lambda seed, settings=settings: OurAgent(seed, **settings) for name, settings in SETTINGS.items()
    }
    found = table(learners, cells, SEEDS)
    for part in PARTS:
        with changed(part):
            found += table({part: OurAgent}, cells, SEEDS)
    with given.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
