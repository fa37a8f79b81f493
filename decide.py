"""Decides for every user what to send now, and writes the decisions with their exact propensities.

    python decide.py runs/market --path FOLDER --output decisions.parquet
    python decide.py runs/NAME --path FOLDER --at 2026-11-24T06:00 --output decisions.csv

The run's policy sees what the folder's log says of each user strictly before `--at` (by default the end of the log).
The output has the columns of the native folder's decisions, so that the next log can begin with it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from agents import Observations, load_agent
from agents.choice import draw
from experiment.build import build_history
from experiment.cli import program, say
from experiment.run import Run, saved_features
from histories.errors import ConfigError
from histories.gone import NEVER, gone_at
from histories.hashing import keys
from histories.history import DecisionLog, History
from histories.modules import BoolArray
from histories.times import SECOND, timestamps


def eligible_now(history: History) -> BoolArray:
    """The actions that each user may get (U, sum of actions).

    Where the log says what was eligible, that of the user's last slot; a user without one gets nothing sent. Nor
    does a user who is gone (`GONE_EVENTS`), whatever was eligible before.
    """
    d = history.decisions
    mask = np.ones((history.n_users, history.modules.total), dtype=bool)
    if d.eligible is not None:
        mask[:, 1:] = False
        seen = np.flatnonzero(np.diff(history.decision_offsets))
        mask[seen] = d.eligible[history.decision_offsets[seen + 1] - 1]
    mask[gone_at(history) < NEVER, 1:] = False
    return mask


def decide(run: Run, history: History, at: int, *, explore: bool, device: str, seed: int) -> pd.DataFrame:
    """One decision for each user of a history at a time, as a table in the native columns."""
    agent = load_agent(run.checkpoint, device)
    if agent.modules != history.modules:
        raise ConfigError(f"{run.path} has learned {agent.modules}, but the history has {history.modules}")
    features = saved_features(run)
    users = np.arange(history.n_users)
    time = np.full(history.n_users, at, dtype=np.int64)
    observations = Observations(features.at(history, users, time), eligible_now(history))
    if explore:
        rng = np.random.default_rng([seed, at // SECOND])
        chosen = draw(agent.modules, agent.action_probabilities(observations), rng)
    else:
        chosen = agent.act(observations, explore=False)
    moment = pd.Timestamp(at, unit="us", tz="UTC").strftime("%Y%m%dT%H%M%S")
    ids = np.array([f"{moment}-{user}" for user in history.user_ids], dtype=object)
    log = DecisionLog(
        id=ids,
        key=keys(ids),
        user=users,
        time=time,
        actions=chosen.actions,
        propensity=chosen.probabilities,
        joint=chosen.joint,
        policy=np.full(history.n_users, run.path.name, dtype=object),
    )
    return replace(history, decisions=log).decisions_frame()


def main(arguments: Sequence[str] | None = None) -> int:
    """Opens a run, reads the newest log, decides, writes; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a folder that train.py wrote, such as runs/market")
    parser.add_argument("--path", type=Path, default=None, help="folder of the newest log; by default the run's own")
    parser.add_argument("--at", default=None, help="time of the decisions, UTC; by default the end of the log")
    parser.add_argument("--output", type=Path, required=True, help="file to write: .parquet or .csv")
    parser.add_argument("--greedy", action="store_true", help="always the best action on the mean: no exploring")
    parser.add_argument("--device", default="cpu", help="where the agent computes: cpu, cuda, mps or auto")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws, together with the time")
    chosen = parser.parse_args(arguments)
    if chosen.output.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"{chosen.output}: decisions are written as .parquet or .csv")

    run = Run.open(chosen.run)
    source = run.config.history if chosen.path is None else replace(run.config.history, path=chosen.path)
    history, _ = build_history(replace(run.config, history=source))
    say(history.summary())
    if history.decisions.eligible is not None:
        say("eligible is what was eligible at each user's last logged slot")
    at = history.span[1] if chosen.at is None else _microseconds(chosen.at)
    table = decide(run, history, at, explore=not chosen.greedy, device=chosen.device, seed=chosen.seed)
    temporary = chosen.output.with_name(chosen.output.name + ".tmp")
    if chosen.output.suffix == ".csv":
        table.to_csv(temporary, index=False)
    else:
        table.to_parquet(temporary, index=False)
    os.replace(temporary, chosen.output)
    first = table[history.modules.names[0]]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in first.value_counts(normalize=True).items())
    print(f"{chosen.output}: {len(table):,} decisions for {timestamps(np.array([at]))[0]:%Y-%m-%d %H:%M} UTC: {shares}")
    return 0


def _microseconds(text: str) -> int:
    try:
        moment = pd.Timestamp(text)
    except ValueError:
        raise ConfigError(f"--at {text!r} is not a time: write it as 2026-11-24T06:00") from None
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    return int(moment.as_unit("us").value)


if __name__ == "__main__":
    program(main)
