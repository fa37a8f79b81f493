"""What a price of messages brings: the value with and without charging a message for later slots.

    python -m benchmarks.message_price --scenarios default fatigue --seeds 0 1 2 3 4 --output docs/market/message_price

From one simulated log each, `ensemble_thompson` learns with the default settings and without other constraints. Writes
OUTPUT.csv (a row per scenario, seed and discount) and OUTPUT.md (means over seeds).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.funnel_worlds import trained
from crosschannel.agents.constraints.settings import Constraints
from crosschannel.envs.market import FreshUsers
from crosschannel.envs.replay import ReplayLog, TransitionIndex
from crosschannel.pipeline import batch_at
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import load_config
from crosschannel.pipeline.judgement.judging import deployable_policy
from crosschannel.pipeline.pricing import price_messages

DISCOUNTS = (0.0, 0.8, 0.9)
COLUMNS = ("price", "value", "sends", "unsubscribed")


def rows_of(scenario: str, seed: int, users: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each discount."""
    config = load_config("market", {"seed": seed, "history.market.seed": seed, "history.market.scenario": scenario})
    data = prepare(config)
    assert data.truth is not None
    split = data.train
    log = ReplayLog.build(split.history, split.rewards, split.features, observations=split.observations, min_steps=1)
    agent = trained(config, data, batch_at(log, TransitionIndex.from_log(log), np.arange(len(log))))
    fresh = FreshUsers.draw(data.truth.market, users)
    for discount in DISCOUNTS:
        charged = replace(config, constraints=Constraints(discount=discount))
        priced = replace(data, pace=price_messages(agent, log, charged.constraints, data.pace))
        found = fresh.deploy(deployable_policy(charged, priced, agent))
        yield {
            "scenario": scenario,
            "seed": seed,
            "discount": discount,
            "price": priced.pace.message_price,
            "value": found.mean,
            "sends": float(found.sends.mean()),
            "unsubscribed": float(found.unsubscribed.mean()),
        }


def page(command: str, table: pd.DataFrame) -> str:
    """Return the table of means over seeds as Markdown."""
    lines = [
        "# What a price of messages brings",
        f"\n```\n{command}\n```\n",
        f"| scenario | discount | seeds | {' | '.join(COLUMNS)} |",
        "|---|---|---|" + "---|" * len(COLUMNS),
    ]
    for (scenario, discount), part in table.groupby(["scenario", "discount"], sort=False):
        mean = part.mean(numeric_only=True)
        numbers = " | ".join(f"{mean[name]:.3f}" for name in COLUMNS)
        lines.append(f"| {scenario} | {discount:g} | {len(part)} | {numbers} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the chosen scenarios and seeds; the files are replaced after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=["default", "fatigue"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--users", type=int, default=3000, help="new users to whom each policy is deployed")
    parser.add_argument("--output", type=Path, required=True, help="path of the two files, without suffix")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    table = pd.DataFrame()
    for scenario in chosen.scenarios:
        for seed in chosen.seeds:
            table = pd.concat([table, pd.DataFrame(rows_of(scenario, seed, chosen.users))], ignore_index=True)
            table.to_csv(chosen.output.with_suffix(".csv"), index=False, float_format="%.5g")
            command = "python -m benchmarks.message_price " + " ".join(sys.argv[1:])
            chosen.output.with_suffix(".md").write_text(page(command, table))
            print(table.tail(len(DISCOUNTS)).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
