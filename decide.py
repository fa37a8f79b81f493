"""Choose for every user what to send now, and write the decisions with their exact propensities.

  crosschannel decide runs/NAME --history.path LOG --out decisions.parquet
  crosschannel decide runs/NAME --history.path LOG --eligible FILE --out decisions.csv

The policy sees what the log holds of each user strictly before the time of the decisions. What may
be sent comes from --eligible, a file with the columns user_id and eligible_<module> (action names
joined by |); without one it is what was eligible at each user's last slot. The run's guardrails
hold in any case, and users who churned get nothing. The output has the columns of a native log's
decisions, so that the next log can begin with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel import agents
from crosschannel.core import SECOND, BoolArray, ConfigError, duration, keys, replacing, timestamps
from crosschannel.histories import (
    ContextFeatures,
    DecisionLog,
    History,
    allowed_actions,
    last_eligible,
    read_eligible,
    without_churned,
)
from crosschannel.pipeline.building import build_history
from crosschannel.pipeline.command_line import Parser, UsageError, logger, one_thread, program, refuse_existing
from crosschannel.pipeline.run_folder import Run


@one_thread()
def decide(
    run: Run, history: History, at: int, eligible: BoolArray, *, explore: bool, device: str, seed: int
) -> pd.DataFrame:
    """Choose for each user of a history at a time; return the decisions as a table in the native columns."""
    agent, features = agents.load_policy(run.policy, device, history.modules)
    context = ContextFeatures.from_state_dict(features)
    users = np.arange(history.n_users)
    time = np.full(history.n_users, at, dtype=np.int64)
    mask = without_churned(eligible, history, at)
    # A microsecond later, so that a message of this very moment counts towards caps and gaps as well.
    mask &= allowed_actions(run.config.guardrails, history, users, time + 1)
    observations = agents.Observations(context.at(history, users, time), mask, history.user_keys)
    if explore:
        rng = np.random.default_rng([seed, at // SECOND])
        chosen = agents.sample_actions(agent.modules, agent.action_probabilities(observations), rng)
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


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for.

    Raises:
        UsageError: If a flag or its value is wrong, or the file exists.
    """
    parser = Parser("decide", __doc__)
    parser.add_shared(
        *("run", "--history.path", "--at", "--out"),
        history_path="the newest log, in the layout of the run's own (default: the log that the run learned from)",
        out="file to write: .parquet or .csv (required)",
    )
    parser.add_argument("--eligible", metavar="FILE", type=Path, help="what may be sent to whom: .csv or .parquet")
    parser.add_argument(
        "--max-log-age", metavar="TIME", default="2d", help="largest time from the log's end to --at (default: 2d)"
    )
    parser.add_argument("--greedy", action="store_true", help="take the best action on the mean, without exploration")
    parser.add_shared(
        *("--seed", "--device", "--force"),
        seed="seed of the draws, together with the time (default: 0)",
        force="overwrite the file",
    )
    chosen = parser.parse(arguments)
    if chosen.out is None:
        raise UsageError("--out is missing: decisions are written as .parquet or .csv")
    if chosen.out.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--out {chosen.out}: decisions are written as .parquet or .csv")
    refuse_existing(chosen.out, chosen.force)
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Open a run, read the newest log, decide, write; return the exit code."""
    chosen = parse(arguments)
    run = Run.open_ended(chosen.run, history=chosen.history_path)
    history = build_history(run.config)[0]
    logger.info(history.summary())
    at = _moment(chosen.at, history, duration(chosen.max_log_age))
    if chosen.eligible is not None:
        eligible = read_eligible(chosen.eligible, history)
    else:
        eligible = last_eligible(history, at)
        said = history.decisions.eligible is not None
        what = "what was eligible at each user's last slot before" if said else "everything: the log does not say"
        logger.info(f"eligible is {what}; a file of what is eligible now is better: --eligible FILE")
    table = decide(run, history, at, eligible, explore=not chosen.greedy, device=chosen.device, seed=chosen.seed)
    with replacing(chosen.out) as draft:
        if chosen.out.suffix == ".csv":
            table.to_csv(draft, index=False)
        else:
            table.to_parquet(draft, index=False)
    first = table[history.modules.names[0]]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in first.value_counts(normalize=True).items())
    print(f"{chosen.out}: {len(table):,} decisions for {timestamps(np.array([at]))[0]:%Y-%m-%d %H:%M} UTC: {shares}")
    return 0


def _moment(text: str | None, history: History, max_log_age: int) -> int:
    """Return the time of the decisions, which the log must reach."""
    start, end = history.span
    if text is None:
        return end
    try:
        moment = pd.Timestamp(text)
    except ValueError:
        raise ConfigError(f"--at {text!r} is not a time: write it as 2026-11-24T06:00") from None
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    at = int(moment.as_unit("us").to_datetime64().astype(np.int64))
    if not start < at <= end + max_log_age:
        first, last = timestamps(np.array([start, end]))
        raise ConfigError(
            f"--at {text} is not covered by the log, which runs from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} "
            "UTC: read a newer log (--history.path), or allow an older one (--max-log-age)"
        )
    return at


if __name__ == "__main__":
    program(main)
