"""What a funnel and constraints bring in every world of the market: one row for each scenario and seed.

    python -m benchmarks.funnel_worlds --scenarios default direct --seeds 0 1 2 3 4 --output docs/market/funnel

From one simulated log each, `ensemble_thompson` learns with the default settings (a funnel, no more unsubscribes than
the log), with `constraints` emptied and nothing else changed, and without a funnel. `train` learns from the training
users, 60 % of all, so that the others can judge; the first `update` of the daily job learns from all users of the log.
Both are deployed. All policies meet the same new users with the same random numbers. Writes OUTPUT.csv (a row per
scenario and seed, added to those that it has) and OUTPUT.md (means over seeds).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.market_references import best_constant
from crosschannel.agents import Agent, Batch, make_agent
from crosschannel.agents.constraints.settings import Constraints
from crosschannel.envs.market import ContextPolicy, FreshUsers
from crosschannel.envs.replay import ReplayLog, TransitionIndex
from crosschannel.pipeline import batch_at
from crosschannel.pipeline.building import TrainingData, agent_spec, prepare
from crosschannel.pipeline.configuration import Config, load_config
from crosschannel.pipeline.judgement.judging import deployable_policy, market_policy
from crosschannel.pipeline.loop.learning import fit
from crosschannel.pipeline.loop.parts.log import LogParts

#: Gradient steps of the agent without a funnel, about as many as `train.py` makes.
UPDATES, STEPS = 170, 4
COLUMNS = {
    "default": "value per user of what `train` learned with default settings: no more unsubscribes than the log",
    "unsubscribed": "share of the users who unsubscribed then",
    "free": "its value without constraints",
    "updated": "value per user of what the first `update` learned from all users, with default settings",
    "updated_unsubscribed": "share of the users who unsubscribed then",
    "updated_free": "its value without constraints",
    "no_funnel": "value without a funnel and without constraints",
    "gain": "free minus no_funnel",
    "gain_se": "standard error of the mean of gain over seeds",
    "usual": "value of business as usual",
    "usual_unsubscribed": "share of the users who unsubscribed under business as usual",
    "best_constant": "value of the best constant message, by true effect",
    "oracle": "value of the myopic oracle",
    "slope": "slope of the rewards on the funnel's values, for each half of the users by what the other half taught",
}


def batch_of(data: TrainingData) -> Batch:
    """Return the training users' decisions with a reward."""
    split = data.train
    log = ReplayLog.build(split.history, split.rewards, split.features, observations=split.observations, min_steps=1)
    return batch_at(log, TransitionIndex.from_log(log), np.arange(len(log)))


def trained(config: Config, data: TrainingData, batch: Batch) -> Agent:
    """Return an agent that has learned from a whole log."""
    agent = make_agent(modules=data.history.modules, **agent_spec(config, data.features))
    agent.observe(batch)
    for _ in range(UPDATES if batch.components is None else 2):
        agent.update(STEPS)
    return agent


def result(scenario: str, seed: int, users: int) -> dict[str, Any]:
    """Return the row of one scenario and seed."""
    settings = {"seed": seed, "history.market.seed": seed, "history.market.scenario": scenario}
    config = load_config("market", settings)
    free = replace(config, constraints=Constraints())
    data = prepare(config)
    assert data.truth is not None
    batch = batch_of(data)
    fresh = FreshUsers.draw(data.truth.market, users)
    funnel, plain = trained(config, data, batch), trained(config, data, replace(batch, components=None))
    updated = fit(config, LogParts.from_history(data.history), data.history.span[1])

    def after_update(constraints: Constraints) -> ContextPolicy:
        return market_policy("updated", updated.features, updated.agent, constraints, updated.pace, config.seed)

    deployed = {
        "updated": fresh.deploy(after_update(config.constraints)),
        "updated_free": fresh.deploy(after_update(Constraints())),
        "default": fresh.deploy(deployable_policy(config, data, funnel)),
        "free": fresh.deploy(deployable_policy(free, data, funnel)),
        "no_funnel": fresh.deploy(deployable_policy(free, data, plain)),
        "usual": fresh.deploy("business_as_usual"),
        "best_constant": fresh.deploy(best_constant(fresh)),
        "oracle": fresh.deploy("oracle"),
    }
    blend = funnel.funnel.heads.blend  # type: ignore[attr-defined]
    return {
        "scenario": scenario,
        "seed": seed,
        **{name: value.mean for name, value in deployed.items()},
        "gain": deployed["free"].mean - deployed["no_funnel"].mean,
        "unsubscribed": float(deployed["default"].unsubscribed.mean()),
        "updated_unsubscribed": float(deployed["updated"].unsubscribed.mean()),
        "usual_unsubscribed": float(deployed["usual"].unsubscribed.mean()),
        "free_unsubscribed": float(deployed["free"].unsubscribed.mean()),
        "slope": blend.slope,
        "slope_se": blend.slope_se,
        "users": users,
    }


def page(command: str, rows: pd.DataFrame) -> str:
    """Return the table of means over seeds as Markdown."""
    lines = [
        "# What a funnel and constraints bring in every world of the market",
        f"\n```\n{command}\n```\n",
        f"| scenario | seeds | {' | '.join(COLUMNS)} |",
        "|---|" + "---|" * (len(COLUMNS) + 1),
    ]
    for scenario, part in rows.groupby("scenario", sort=False):
        mean = part.mean(numeric_only=True)
        mean["gain_se"] = part["gain"].std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else float("nan")
        lines.append(f"| {scenario} | {len(part)} | {' | '.join(_cell(mean[name]) for name in COLUMNS)} |")
    return "\n".join([*lines, "", *(f"- `{name}`: {text}" for name, text in COLUMNS.items())]) + "\n"


def _cell(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def main() -> None:
    """Run the chosen scenarios and seeds; the files are replaced after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=["default"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--users", type=int, default=4000, help="new users to whom each policy is deployed")
    parser.add_argument("--output", type=Path, required=True, help="path of the two files, without suffix")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    table = chosen.output.with_suffix(".csv")
    rows = pd.read_csv(table, keep_default_na=False, na_values=[""]) if table.is_file() else pd.DataFrame()
    for scenario in chosen.scenarios:
        for seed in chosen.seeds:
            row = pd.DataFrame([result(scenario, seed, chosen.users)])
            rows = pd.concat([rows, row], ignore_index=True)
            rows = rows.drop_duplicates(["scenario", "seed"], keep="last")
            rows.to_csv(table, index=False, float_format="%.5g")
            chosen.output.with_suffix(".md").write_text(
                page("python -m benchmarks.funnel_worlds " + " ".join(sys.argv[1:]), rows)
            )
            print(row.to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
