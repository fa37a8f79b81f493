"""Decides for every user what to send now, and writes the decisions with their exact propensities.

    python decide.py runs/market --path FOLDER --output decisions.parquet
    python decide.py runs/NAME --path FOLDER --at 2026-11-24T06:00 --eligible eligible.csv --output decisions.csv

The run's policy sees what the folder's log says of each user strictly before `--at` (by default the end of the log).
What is eligible comes from a file with the columns user_id and eligible_<module> (action names joined by |); without
one it is what was eligible at each user's last slot. The run's guardrails (caps, gaps, quiet hours, ...) hold on top of
that, and users who churned get nothing sent. The output has the columns of the native folder's decisions, so that
the next log can begin with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.agents import Observations, load_policy, sample_actions
from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.files import replacing
from crosschannel.core.hashing import keys
from crosschannel.core.times import SECOND, duration, timestamps
from crosschannel.histories.eligibility import last_eligible, read_eligible, without_churned
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.guardrails import eligible as allowed
from crosschannel.histories.history import DecisionLog, History
from crosschannel.histories.readers.datasets import DATASETS, read_dataset
from crosschannel.histories.readers.folder import read_history
from crosschannel.pipeline.building import build_history
from crosschannel.pipeline.command_line import program, say
from crosschannel.pipeline.run_folder import Run


def decide(
    run: Run, history: History, at: int, eligible: BoolArray, *, explore: bool, device: str, seed: int
) -> pd.DataFrame:
    """One decision for each user of a history at a time, as a table in the native columns."""
    agent, features = load_policy(run.policy, device, history.modules)
    context = ContextFeatures.from_state_dict(features)
    users = np.arange(history.n_users)
    time = np.full(history.n_users, at, dtype=np.int64)
    mask = without_churned(eligible, history, at)
    # A microsecond later, so that a message of this very moment counts towards caps and gaps as well.
    mask &= allowed(run.config.guardrails, history, users, time + 1)
    observations = Observations(context.at(history, users, time), mask, history.user_keys)
    if explore:
        rng = np.random.default_rng([seed, at // SECOND])
        chosen = sample_actions(agent.modules, agent.action_probabilities(observations), rng)
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
        eligible=mask,
    )
    return replace(history, decisions=log).decisions_frame()


def main(arguments: Sequence[str] | None = None) -> int:
    """Opens a run, reads the newest log, decides, writes; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a folder that train.py wrote, such as runs/market")
    parser.add_argument(
        "--path",
        type=Path,
        default=None,
        help="the newest log: a native folder, or the run's data set",
    )
    parser.add_argument("--at", default=None, help="time of the decisions, UTC; by default the end of the log")
    parser.add_argument("--eligible", type=Path, default=None, help="what may be sent to whom: .csv or .parquet")
    parser.add_argument("--stale", default="2d", help="how long before --at the log may end (default: 2d)")
    parser.add_argument("--output", type=Path, required=True, help="file to write: .parquet or .csv")
    parser.add_argument("--greedy", action="store_true", help="always the best action on the mean: no exploring")
    parser.add_argument("--device", default="cpu", help="where the agent computes: cpu, cuda, mps or auto")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws, together with the time")
    chosen = parser.parse_args(arguments)
    if chosen.output.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"{chosen.output}: decisions are written as .parquet or .csv")

    run = Run.open_ended(chosen.run)
    history = build_history(run.config)[0] if chosen.path is None else _newest(run, chosen.path)
    say(history.summary())
    at = _moment(chosen.at, history, duration(chosen.stale))
    if chosen.eligible is not None:
        eligible = read_eligible(chosen.eligible, history)
    else:
        eligible = last_eligible(history, at)
        said = history.decisions.eligible is not None
        what = "what was eligible at each user's last slot before" if said else "everything: the log does not say"
        say(f"eligible is {what}; a file of what is eligible now is better: --eligible FILE")
    table = decide(run, history, at, eligible, explore=not chosen.greedy, device=chosen.device, seed=chosen.seed)
    with replacing(chosen.output) as draft:
        if chosen.output.suffix == ".csv":
            table.to_csv(draft, index=False)
        else:
            table.to_parquet(draft, index=False)
    first = table[history.modules.names[0]]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in first.value_counts(normalize=True).items())
    print(f"{chosen.output}: {len(table):,} decisions for {timestamps(np.array([at]))[0]:%Y-%m-%d %H:%M} UTC: {shares}")
    return 0


def _newest(run: Run, folder: Path) -> History:
    """The log in a folder: as the run's own data set is read, or else a native one."""
    source = run.config.history.source
    history = read_dataset(source, folder) if source in DATASETS else read_history(folder)
    return history.with_churn_events(run.config.history.churn_events)


def _moment(text: str | None, history: History, stale: int) -> int:
    """The time of the decisions, which the log must reach."""
    start, end = history.span
    if text is None:
        return end
    try:
        moment = pd.Timestamp(text)
    except ValueError:
        raise ConfigError(f"--at {text!r} is not a time: write it as 2026-11-24T06:00") from None
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    at = int(moment.as_unit("us").to_datetime64().astype(np.int64))
    if not start < at <= end + stale:
        first, last = timestamps(np.array([start, end]))
        raise ConfigError(
            f"--at {text} is not covered by the log, which runs from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} "
            "UTC: read a newer log (--path), or say how old it may be (--stale)"
        )
    return at


if __name__ == "__main__":
    program(main)
