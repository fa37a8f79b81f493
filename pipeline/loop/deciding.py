"""Decide for all users of one day, and write the day: decisions with exact propensities, everybody's arm, a summary."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel import agents
from crosschannel.agents import Decisions, Observations
from crosschannel.agents.constraints.settings import Constraints
from crosschannel.core.arrays import BoolArray, ObjectArray
from crosschannel.core.errors import ConfigError, OutputError
from crosschannel.core.hashing import derive, keys, pseudonyms, row_fingerprints
from crosschannel.core.serialization import to_dict
from crosschannel.core.times import SECOND, timestamps
from crosschannel.histories.arms import AGENT, ARMS, BUSINESS_AS_USUAL, WAITING, Arms, arm_uniforms, assign_arms
from crosschannel.histories.eligibility import without_churned
from crosschannel.histories.guardrails import Guardrails, allowed_actions
from crosschannel.histories.history import History
from crosschannel.histories.logs import DecisionLog, decisions_frame, listed_actions, take_rows, without_decisions
from crosschannel.histories.readers.decided.days import (
    ARMS_FILE,
    DECISIONS_FILE,
    SUMMARY_FILE,
    day_name,
    draft_of,
    replaced_day,
    replaced_of,
    unfinished_replacements,
)
from crosschannel.pipeline.command_line import UsageError, logger, one_thread
from crosschannel.pipeline.loop.day_summaries import DAY_VERSION
from crosschannel.pipeline.loop.decisions.eligible import UNGUARDED, own_decisions
from crosschannel.pipeline.pricing import LogPace, priced_policy
from crosschannel.pipeline.run_files import RunLock, TrainedWith, write_json
from crosschannel.pipeline.run_folder import Run

#: Columns beside the native ones: who waits for the roll-out, and the fingerprint of what the policy saw.
WAITING_COLUMN, CONTEXT = "waiting", "context"


@dataclass(frozen=True)
class DecidedDay:
    """The decisions of one day.

    Attributes:
        name: Name of the day's folder.
        decisions: One row for each user of the agent and of the holdout, in the native columns, with `arm`, `policy`
            (its version, with `WAITING` for users who wait), `waiting`, `context` (a hash of what the policy saw),
            `unguarded_<module>` (what could be sent before guardrails) and `price_<constraint>` (empty where nothing
            was priced).
        arms: `user_id` and `arm` of all users, those of business as usual included.
        summary: What was decided, in plain values.
    """

    name: str
    decisions: pd.DataFrame
    arms: pd.DataFrame
    summary: dict[str, Any]


@one_thread()
def decide_day(
    run: Run,
    history: History,
    at: int,
    eligible: BoolArray,
    guardrails: Guardrails,
    *,
    may_receive: BoolArray | None = None,
    explore: bool = True,
    device: str = "cpu",
    seed: int = 0,
    clear_ids: bool = False,
) -> DecidedDay:
    """Choose for each user of the agent's arm what to send at a time, under the run's constraints.

    Users of the holdout get nothing: only "none" is eligible, with propensity 1. Those of business as usual have no
    row, nor those whose observation has ended. Prices are found for the agent's users who have not churned, before
    anything is drawn: budgets and limits are those of this arm alone. Each draw is a hash of (seed, time, user), so
    that no user changes what another one gets but by the prices, and the same day has the same bits. Without
    exploration prices are those of the best estimate's votes, of which a share next to the price is drawn where that
    is needed to keep a budget.

    Args:
        run: The run.
        history: What is known of the users, and earlier decisions. What this package decided for the time itself or
            later is left out, so that deciding again gives the same.
        at: Time of the decisions, microseconds since 1970 UTC.
        eligible: What may be sent to whom (U, sum of actions), before guardrails.
        guardrails: Limits on what is sent.
        may_receive: Which users may get messages yet (U,); the agent's other users wait, with only "none" eligible.
        explore: Whether the policy explores.
        device: Where the agent computes.
        seed: Seed of the draws.
        clear_ids: Whether decision ids have the users' ids in them, instead of a keyed hash.

    Raises:
        ConfigError: If the constraints do not fit the history or the agent, or cannot be kept (`InfeasibleBudget`).
    """
    agent, extra = agents.load_policy(run.policy, device, history.modules, run.allowed_classes)
    trained_with = TrainedWith.from_dict(extra.get("run", {}), run.policy)
    constraints, version = run.constraints_given(extra), run.policy_version
    agents.check_constraints(constraints, history.modules, trained_with.pace.rates)
    history = known_at(history, at)
    arm = assign_arms(history.user_ids, run.config.arms, history.users)
    ended = history.observed_until < min(at, history.span[1])
    users = np.flatnonzero((arm != BUSINESS_AS_USUAL) & ~ended)
    time = np.full(len(users), at, dtype=np.int64)
    is_agent = np.asarray(arm[users] == AGENT)
    decides = is_agent if may_receive is None else is_agent & may_receive[users]
    mask = without_churned(eligible, history, at)[users]
    # A microsecond later, so that a message of this very moment counts towards caps and gaps as well.
    mask &= allowed_actions(guardrails, history, users, time + 1)
    mask[~decides, 1:] = False
    context = trained_with.features.at(history, users, time)
    seen = Observations(context, mask, history.user_keys[users])

    has_slot = (history.churned_at >= at)[users]
    chosen, prices = _choose(
        agent, seen, decides, has_slot, constraints, trained_with.pace, explore=explore, seed=seed, at=at
    )
    ids = _decision_ids(history.user_ids[users], at, None if clear_ids else trained_with.history)
    log = DecisionLog(
        id=ids,
        key=keys(ids),
        user=users,
        time=time,
        actions=chosen.actions,
        propensity=chosen.probabilities,
        joint=chosen.joint,
        policy=np.where(is_agent & ~decides, version + WAITING, version).astype(object),
        arm=arm[users],
        eligible=mask,
    )
    table = decisions_frame(log, history.user_ids, history.modules)
    table = table.assign(
        **{WAITING_COLUMN: is_agent & ~decides, CONTEXT: row_fingerprints(context)},
        **listed_actions(eligible[users], history.modules, UNGUARDED),
        **_price_columns(prices, decides, table, history.modules.names),
    )
    arms = pd.DataFrame({"user_id": history.user_ids, "arm": arm})
    summary = {
        "version": DAY_VERSION,
        "at": _text(at),
        "policy_version": version,
        "explore": explore,
        "seed": seed,
        "log_ends": _text(history.span[1]),
        "log_age_hours": (at - history.span[1]) / (3600 * SECOND),
        "arms": to_dict(run.config.arms),
        "users": {name: int((arm == name).sum()) for name in ARMS},
        "waiting": int((is_agent & ~decides).sum()),
        "counts": counts_of(table.loc[decides, list(history.modules.names)], history.modules.names),
        "prices": [] if prices is None else _plain(prices),
    }
    return DecidedDay(day_name(at, trained_with.pace.period), table, arms, summary)


def known_at(history: History, at: int) -> History:
    """Return a history without what this package decided for a time or later: what a decision for it may see."""
    d = history.decisions
    late = np.flatnonzero(d.time >= at)
    dropped = np.zeros(len(d), dtype=bool)
    dropped[late] = own_decisions(take_rows(d, late))
    if not dropped.any():
        return history
    decisions, events = without_decisions(d, history.events, dropped)
    return replace(history, decisions=decisions, events=events)


def _choose(
    agent: agents.Agent,
    seen: Observations,
    decides: BoolArray,
    has_slot: BoolArray,
    constraints: Constraints,
    pace: LogPace,
    *,
    explore: bool,
    seed: int,
    at: int,
) -> tuple[Decisions, pd.DataFrame | None]:
    """Return the actions of all rows (N,), nothing where the agent does not decide, and the constraints' prices."""
    modules = agent.modules
    n, rows = len(seen), np.flatnonzero(decides)
    out = Decisions(np.zeros((n, len(modules)), dtype=np.int64), np.ones((n, len(modules))), np.ones(n))
    prices: pd.DataFrame | None = None
    if len(rows):
        mine = seen[rows]
        if explore or constraints.price_messages:
            together = np.zeros(len(rows), dtype=np.int64)
            policy = priced_policy(agent, mine, together, constraints, pace, has_slot[rows], explore=explore)
            agents.check_probabilities(modules, policy.probabilities, mine.action_mask)
            assert mine.users is not None  # the caller knows them
            chosen = agents.sample_keyed(modules, policy.probabilities, derive(derive(mine.users, seed), at))
            prices = policy.table
        else:
            chosen = agent.act(mine, explore=False)
        out.actions[rows], out.probabilities[rows], out.joint[rows] = chosen.actions, chosen.probabilities, chosen.joint
    agents.check_decisions(modules, out, seen.action_mask)
    return out, prices


def _price_columns(
    prices: pd.DataFrame | None, decides: BoolArray, table: pd.DataFrame, names: tuple[str, ...]
) -> dict[str, Any]:
    """Return a column with the price of each constraint; log those that bind.

    Raises:
        ConfigError: If the log has a column of that name.
    """
    columns = {}
    for row in [] if prices is None else prices.to_dict("records"):
        name, price = row["constraint"], float(row["price"])
        column = f"price_{name}"
        if column in table or column in names:
            raise ConfigError(f"the constraint {name!r} needs the column {column!r}, which the log has already")
        columns[column] = np.where(decides, price, np.nan)
        if row["binding"]:
            logger.info(
                f"the constraint {name} binds: price {price:.4g} in reward units, expected use {row['use']:.4g} of a "
                f"budget of {row['budget']:.4g}"
            )
    return columns


def _plain(prices: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "constraint": str(row["constraint"]),
            **{name: float(row[name]) for name in ("price", "use", "budget")},
            "binding": bool(row["binding"]),
        }
        for row in prices.to_dict("records")
    ]


def counts_of(decisions: pd.DataFrame, modules: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Return how often each action of each module was chosen, by the names of both."""
    return {name: {str(action): int(n) for action, n in _sorted_counts(decisions[name])} for name in modules}


def _sorted_counts(column: pd.Series[Any]) -> list[tuple[Any, int]]:
    return sorted(column.value_counts().items(), key=lambda item: str(item[0]))


def _decision_ids(user_ids: ObjectArray, at: int, secret: str | None) -> ObjectArray:
    """Return ids of the time and the user: of a keyed hash of the user's id, or with no secret of the id itself.

    The secret is the fingerprint of the log that the run has learned from, which only the run folder holds. Deciding
    again for the same time gives the same ids.
    """
    users = user_ids.astype(str) if secret is None else pseudonyms(user_ids, secret)
    moment = pd.Timestamp(at, unit="us", tz="UTC").strftime("%Y%m%dT%H%M%S" + ("%f" if at % SECOND else ""))
    return np.array([f"{moment}-{user}" for user in users], dtype=object)


def _text(time: int) -> str:
    return f"{timestamps(np.array([time]))[0].isoformat()}"


def rolled_out(history: History, arms: Arms, ramp: float, listed: BoolArray | None = None) -> BoolArray:
    """Return which users may get messages yet (U,): a share of all, and of these only the listed ones.

    A user belongs to the share by a permanent hash of the id (of the cluster, where the arms have one) which is
    independent of the arm. So a larger share only adds users.

    Args:
        history: The users.
        arms: The arms.
        ramp: The share, from 0 to 1.
        listed: The users on an allow-list (U,); None if there is none.
    """
    out = np.asarray(arm_uniforms(history.user_ids, arms, history.users, "ramp") < ramp)
    return out if listed is None else out & listed


def write_day(folder: Path, day: DecidedDay, *, force: bool = False) -> Path:
    """Write a day into a folder by date, as a whole or not at all; return its own folder.

    Args:
        folder: The folder of all days.
        day: The day.
        force: Whether a day of the same name is replaced.

    Raises:
        UsageError: If the day exists, and is not to be replaced.
        ConfigError: If another process writes into the folder.
        OutputError: If the folder cannot be written.
    """
    target = folder / day.name
    draft, before = draft_of(target), replaced_of(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with RunLock(folder):
            for moved in unfinished_replacements(folder):
                moved.rename(replaced_day(moved))
            _remove(before)
            _remove(draft)
            refuse_decided(target, force)
            draft.mkdir()
            day.decisions.to_parquet(draft / DECISIONS_FILE, index=False)
            day.arms.to_parquet(draft / ARMS_FILE, index=False)
            write_json(day.summary, draft / SUMMARY_FILE)
            for name in (DECISIONS_FILE, ARMS_FILE, "."):
                _flush(draft / name)
            if target.exists():
                target.rename(before)
            draft.rename(target)
            _flush(folder)
            _remove(before)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def restore_days(folder: Path) -> None:
    """Give days of a folder their names again that were moved away, where the process that did so was killed.

    Raises:
        ConfigError: If another process writes into the folder.
        OutputError: If the folder cannot be written.
    """
    if not unfinished_replacements(folder):
        return
    try:
        with RunLock(folder):
            for moved in unfinished_replacements(folder):
                moved.rename(replaced_day(moved))
                logger.info(f"{replaced_day(moved)} is as it was before a process was killed that replaced it")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None


def refuse_decided(day: Path, force: bool) -> None:
    """Refuse to decide again for a day, unless that is asked for.

    Raises:
        UsageError: If the day exists and `force` is False.
    """
    if day.exists() and not force:
        raise UsageError(f"{day} exists already: the day was decided. --force decides it again")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; some systems cannot for folders."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
