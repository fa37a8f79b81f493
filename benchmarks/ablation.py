"""Ablation of the ensemble: relative regret on the streams with one part changed; lower is better.

    python -m benchmarks.ablation --csv docs/ablation.csv

Settings were chosen on these seeds, which are disjoint from the seeds of the reported results.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.quality import table
from benchmarks.stream_learners import OurAgent, StreamLearner
from crosschannel.agents.ensemble.heads import Prior, SufficientStatistics
from crosschannel.agents.ensemble.prior import NETWORK_BLOCK, select_prior_scale

SEEDS, ROWS = (100, 101), 20_000

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "exploration scale 0: greedy": {"exploration_scale": 0.0},
    "exploration scale 0.1": {"exploration_scale": 0.1},
    "exploration scale 0.5": {"exploration_scale": 0.5},
    "exploration scale 1: standard Thompson sampling": {"exploration_scale": 1.0},
    "two hidden layers, 128 and 64": {"hidden": [128, 64]},
    "weight decay 0.1": {"weight_decay": 0.1},
    "learning rate 0.003": {"learning_rate": 3e-3},
    "no extra gradient steps early": {"warm_rows": 0},
    "no floor": {"floor": 0.0},
}


def keep_scales(_statistics: SufficientStatistics, prior: Prior, _blocks: Tensor, _steps: int) -> Prior:
    """Replace `learn_scales`: keep the initial scales."""
    return prior


def equal_noise(context: Tensor, _square: Tensor) -> Tensor:
    """Replace `learn_noise`: the variance of rewards is the same in every context."""
    return torch.zeros(context.shape[1])


def without_network(
    train: SufficientStatistics,
    held_out: SufficientStatistics,
    prior: Prior,
    blocks: Tensor,
    which: Tensor,
    select: Callable[..., Prior] = select_prior_scale,
) -> Prior:
    """Replace `select_prior_scale`: the network's block keeps its initial variance, which is next to 0."""
    return prior if which is NETWORK_BLOCK else select(train, held_out, prior, blocks, which)


PARTS: dict[str, tuple[str, Any]] = {
    "prior scales not learned": ("crosschannel.agents.ensemble.learner.learn_scales", keep_scales),
    "noise variance equal in all contexts": ("crosschannel.agents.ensemble.learner.learn_noise", equal_noise),
    "no network": ("crosschannel.agents.ensemble.learner.select_prior_scale", without_network),
    "no minimum log-likelihood gain": ("crosschannel.agents.ensemble.prior.MIN_LOG_LIKELIHOOD_GAIN", 0.0),
    "no absolute values": ("crosschannel.agents.ensemble.network.absolute", torch.zeros_like),
}


@contextmanager
def changed(part: str) -> Iterator[None]:
    """Replace one part within the context."""
    with patch(*PARTS[part]):
        yield


def main() -> None:
    """Run every variant and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cells = [(kind, ROWS) for kind in ("nonlinear", "even")]
    learners: dict[str, Callable[[int], StreamLearner]] = {
        name: partial(OurAgent, **settings) for name, settings in SETTINGS.items()
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
