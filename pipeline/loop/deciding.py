"""Decide for all users of one day: decisions with exact propensities, everybody's arm, a summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from crosschannel import agents
from crosschannel.agents import Decisions, Observations
from crosschannel.agents.constraints.settings import Constraints
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, ObjectArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import derive, keys, pseudonyms
from crosschannel.core.serialization import to_dict
from crosschannel.core.times import SECOND, timestamps
from crosschannel.histories.arms import ARMS, WAITING, Arms, arm_uniforms
from crosschannel.histories.history import History
from crosschannel.histories.logs import DecisionLog, decisions_frame, listed_actions
from crosschannel.histories.readers.decided.days import day_name
from crosschannel.pipeline.command_line import logger, one_thread
from crosschannel.pipeline.loop.day_summaries import DAY_VERSION
from crosschannel.pipeline.loop.decisions.day_users import DayPolicy, DayRequest, DayUsers, Deciders, users_of_day
from crosschannel.pipeline.loop.decisions.eligible import UNGUARDED
from crosschannel.pipeline.pricing import priced_policy
from crosschannel.pipeline.run_files import TrainedWith
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
    run: Run, history: History, request: DayRequest, eligible: BoolArray, may_receive: BoolArray | None = None
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
        request: What is decided.
        eligible: What may be sent to whom (U, sum of actions), before guardrails.
        may_receive: Which users may get messages yet (U,); the agent's other users wait, with only "none" eligible.

    Raises:
        ConfigError: If the constraints do not fit the history or the agent, or cannot be kept (`InfeasibleBudget`).
    """
    agent, constraints, policy = open_policy(run, history.modules, request.device)
    users, deciders = users_of_day(request, policy, history, eligible, may_receive)
    chosen, prices = _choose(agent, constraints, deciders, request, policy)
    note_binding(prices)
    return day_of_users(request, policy, users, chosen, prices)


def open_policy(run: Run, modules: ActionSpace, device: str) -> tuple[agents.Agent, Constraints, DayPolicy]:
    """Return the agent of a run that decides for a day, the constraints that it decides under, and what else it is.

    Args:
        run: The run, with the arms of the command line.
        modules: The action space of the log.
        device: Where the agent computes.

    Raises:
        ConfigError: If the policy's file is damaged, or the constraints do not fit the action space.
    """
    agent, extra = agents.load_policy(run.policy, device, modules, run.allowed_classes)
    trained_with = TrainedWith.from_dict(extra.get("run", {}), run.policy)
    constraints = run.constraints_given(extra)
    agents.check_constraints(constraints, modules, trained_with.pace.rates)
    return agent, constraints, DayPolicy(trained_with, run.policy_version, run.config.arms)


def _choose(
    agent: agents.Agent, constraints: Constraints, deciders: Deciders, request: DayRequest, policy: DayPolicy
) -> tuple[Decisions, pd.DataFrame | None]:
    """Return what is decided for the users whom the agent decides for, and the constraints' prices."""
    seen, explore = deciders.seen, request.explore
    if not len(seen):
        return no_decisions(agent.modules), None
    if not (explore or constraints.price_messages):
        return agent.act(seen, explore=False), None
    together = np.zeros(len(seen), dtype=np.int64)
    pace = policy.trained_with.pace
    found = priced_policy(agent, seen, together, constraints, pace, deciders.has_slot, explore=explore)
    return draw(agent.modules, found.probabilities, seen, request), found.table


def draw(modules: ActionSpace, probabilities: list[FloatArray], seen: Observations, request: DayRequest) -> Decisions:
    """Draw for each user by a hash of the seed, the time and the user: who else is decided for changes nothing.

    Args:
        modules: The action space.
        probabilities: The policy's probabilities, one array (n, *shape(m)) per module.
        seen: What the agent sees of n users.
        request: What is decided.
    """
    agents.check_probabilities(modules, probabilities, seen.action_mask)
    assert seen.users is not None  # `users_of_day` knows them
    return agents.sample_keyed(modules, probabilities, derive(derive(seen.users, request.seed), request.at))


def no_decisions(modules: ActionSpace, rows: int = 0) -> Decisions:
    """Return decisions to send nothing, with certainty."""
    shape = (rows, len(modules))
    return Decisions(np.zeros(shape, dtype=np.int64), np.ones(shape), np.ones(rows))


def day_of_users(
    request: DayRequest, policy: DayPolicy, users: DayUsers, chosen: Decisions, prices: pd.DataFrame | None
) -> DecidedDay:
    """Return the day's tables and summary.

    Args:
        request: What was decided.
        policy: The policy that decided.
        users: All users.
        chosen: What was decided for those whom the agent decides for; the others get nothing.
        prices: The constraints' prices; None where nothing was priced.

    Raises:
        ConfigError: If a decision is not what an agent may decide, or the log has a column with the name of a price.
    """
    modules, at, version, decides = users.modules, request.at, policy.version, users.decides
    out = no_decisions(modules, len(decides))
    out.actions[decides] = chosen.actions
    out.probabilities[decides] = chosen.probabilities
    out.joint[decides] = chosen.joint
    agents.check_decisions(modules, out, users.eligible)
    ids = _decision_ids(users.user_ids[users.users], at, None if request.clear_ids else policy.trained_with.history)
    log = DecisionLog(
        id=ids,
        key=keys(ids),
        user=users.users,
        time=np.full(len(decides), at, dtype=np.int64),
        actions=out.actions,
        propensity=out.probabilities,
        joint=out.joint,
        policy=np.where(users.waits, version + WAITING, version).astype(object),
        arm=users.arm[users.users],
        eligible=users.eligible,
    )
    table = decisions_frame(log, users.user_ids, modules)
    table = table.assign(
        **{WAITING_COLUMN: users.waits, CONTEXT: users.contexts},
        **listed_actions(users.unguarded, modules, UNGUARDED),
        **_price_columns(prices, decides, table, modules.names),
    )
    arms = pd.DataFrame({"user_id": users.user_ids, "arm": users.arm})
    summary = {
        "version": DAY_VERSION,
        "at": _text(at),
        "policy_version": version,
        "explore": request.explore,
        "seed": request.seed,
        "log_ends": _text(users.log_ends),
        "log_age_hours": (at - users.log_ends) / (3600 * SECOND),
        "arms": to_dict(policy.arms),
        "users": {name: int((users.arm == name).sum()) for name in ARMS},
        "waiting": int(users.waits.sum()),
        "without_choice": users.without_choice(),
        "counts": counts_of(table.loc[decides, list(modules.names)], modules.names),
        "prices": [] if prices is None else _plain(prices),
    }
    return DecidedDay(day_name(at, policy.trained_with.pace.period), table, arms, summary)


def unreached_text(day: DecidedDay) -> str:
    """Return how many users could be sent nothing, and why; empty where everybody could be sent something."""
    why = {name: n for name, n in day.summary["without_choice"].items() if n}
    listed = ", ".join(f"{name} {n:,}" for name, n in why.items())
    return f"; nothing could be sent to {sum(why.values()):,} of them ({listed})" if why else ""


def note_binding(prices: pd.DataFrame | None) -> None:
    """Print the constraints that bind."""
    for row in [] if prices is None else prices.to_dict("records"):
        if row["binding"]:
            logger.info(
                f"the constraint {row['constraint']} binds: shadow price {row['price']:.4g} in reward units, "
                f"expected use {row['use']:.4g} of a budget of {row['budget']:.4g}"
            )


def _price_columns(
    prices: pd.DataFrame | None, decides: BoolArray, table: pd.DataFrame, names: tuple[str, ...]
) -> dict[str, Any]:
    """Return a column with the price of each constraint.

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
