"""Explain one decision: what could be sent, what each action was worth and cost, and how probable it was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel import agents
from crosschannel.agents import Agent, Observations
from crosschannel.agents.explain import EstimatingAgent, FunnelAgent
from crosschannel.agents.votes import PriceableAgent
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, Fault, InputError, raise_faults
from crosschannel.core.hashing import row_fingerprints
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import DAY
from crosschannel.histories.arms import WAITING
from crosschannel.histories.history import History
from crosschannel.histories.readers.decided.days import DECISIONS_FILE, day_name, decided_days, is_by_date
from crosschannel.histories.readers.source_files import read_any
from crosschannel.histories.values.action_columns import eligible_mask
from crosschannel.pipeline.command_line import one_thread
from crosschannel.pipeline.loop.deciding import CONTEXT, WAITING_COLUMN
from crosschannel.pipeline.loop.decisions.day_users import known_at
from crosschannel.pipeline.loop.decisions.eligible import UNGUARDED
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.pricing import votes_at_prices
from crosschannel.pipeline.run_files import TrainedWith
from crosschannel.pipeline.run_folder import Run

_PRICE = "price_"
#: Central share of the votes that an interval covers.
_SHARE = 0.95


@dataclass(frozen=True)
class Explanation:
    """Why a decision was what it was.

    Attributes:
        head: Lines in words: who, when, what, by which policy, from what.
        alternatives: A row for each action of each module: `module`, `action`, `chosen`, `eligible`, `probability`
            (given the earlier choices), `value` with `low` and `high` (the central 95 % of the votes, before prices),
            `cost` (at the constraints' prices), and the components that the agent has learned.
    """

    head: tuple[str, ...]
    alternatives: pd.DataFrame

    def __str__(self) -> str:
        table = self.alternatives
        lines = [*self.head]
        for module in table["module"].unique() if len(table) else ():
            part = table[table["module"] == module].drop(columns="module").dropna(axis=1, how="all")
            shown = part.assign(chosen=np.where(part["chosen"], "<", ""), eligible=np.where(part["eligible"], "", "no"))
            text = shown.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="")
            lines += ["", f"{module}:", *(f"  {line}" for line in text.splitlines())]
        return "\n".join(lines)


def find_decision(path: Path, decision_id: str) -> dict[str, Any]:
    """Return the row of a decision, from a folder of decisions by date or from a file that `decide` wrote.

    Raises:
        InputError: If there is none with this id, or a file cannot be read.
    """
    files = [path]
    if is_by_date(path):
        days = decided_days(path)
        # The ids of `decide` begin with their time, so that mostly one day alone is read.
        found = re.match(r"(\d{8}T\d{6})", decision_id)
        at = None if found is None else int(pd.Timestamp(found[1]).value // 1000)
        first = set() if at is None else {day_name(at, DAY), day_name(at, 0)}
        files = [day / DECISIONS_FILE for day in sorted(days, key=lambda day: day.name not in first)]
    for file in files:
        frame = read_any(file, text=["decision_id", "user_id"])
        if "decision_id" not in frame:
            raise InputError([Fault(str(file), "there are no decisions", "Name what decide wrote.", "decision_id")])
        rows = np.flatnonzero(frame["decision_id"].astype(str) == decision_id)
        if len(rows):
            return {str(name): value for name, value in frame.iloc[int(rows[0])].items()}
    problem = "there is no decision with this id"
    raise InputError([Fault(str(path), problem, "Copy it from a table of decisions.", value=decision_id)])


@one_thread()
def explain_decision(run: Run, history: History, row: Mapping[str, Any], device: str = "cpu") -> Explanation:
    """Explain a decision by the policy that made it, from what the log says of the user before it.

    Args:
        run: The run.
        history: The log, with the earlier decisions.
        row: The decision, as `decide` wrote it: see `find_decision`.
        device: Where the agent computes.

    Raises:
        ConfigError: If the run does not have the policy that decided.
        InputError: If the log does not have the user, or the row is not one of `decide`.
    """
    run = _run_that_decided(run, str(row["policy"]).removesuffix(WAITING))
    agent, extra = agents.load_policy(run.policy, device, history.modules, run.allowed_classes)
    trained_with, modules = TrainedWith.from_dict(extra.get("run", {}), run.policy), history.modules
    at = int(pd.Timestamp(row["time"]).value // 1000)
    user = _user(history, str(row["user_id"]))
    mask, actions = _mask(row, modules, "eligible"), _actions(row, modules)
    seen = known_at(history, at)
    context = trained_with.features.at(seen, user, np.array([at]))
    observations = Observations(context, mask, history.user_keys[user])
    head = _head(row, modules, run.policy, mask, row_fingerprints(context)[0])
    if not modules.feasible_mask(mask)[:, 1 : modules.sizes[0]].any():
        return Explanation((*head, _why_nothing(row, modules)), pd.DataFrame(columns=["module"]))
    table, notes = _alternatives(run, agent, observations, actions, row, trained_with)
    return Explanation((*head, *notes), table)


def _run_that_decided(run: Run, version: str) -> Run:
    """Return the run with the version of its policy that decided.

    Raises:
        ConfigError: If the run does not have it.
    """
    trained = replace(run, version=None)
    if trained.policy.is_file() and trained.policy_version == version:
        return trained
    if Policies(run.path).path(version).is_file():
        return replace(run, version=version)
    raise ConfigError(
        f"{run.path} does not have the policy {version} that made this decision: it is of another run, or was removed "
        "by `update.keep` or `forget --policies`"
    )


def _user(history: History, user_id: str) -> IntArray:
    rows = np.flatnonzero(history.user_ids.astype(str) == user_id)
    if not len(rows):
        problem = "the log has no such user"
        raise InputError([Fault(history.name, problem, "Read the log of the decision.", "user_id", value=user_id)])
    return rows.astype(np.int64)


def _mask(row: Mapping[str, Any], modules: ActionSpace, prefix: str) -> BoolArray:
    """Return the actions (1, sum of actions) that the columns `<prefix>_<module>` of a decision list."""
    faults: list[Fault] = []
    frame = pd.DataFrame({f"eligible_{name}": [row.get(f"{prefix}_{name}")] for name in modules.names}, dtype=object)
    found = eligible_mask(
        TableValidator(frame, "decision", faults), modules, np.zeros((1, len(modules)), dtype=np.int64)
    )
    raise_faults(faults)
    assert found is not None
    return found


def _actions(row: Mapping[str, Any], modules: ActionSpace) -> IntArray:
    """Return the codes (1, M) of a decision's actions."""
    codes = [module.actions.index(row[module.name]) if row[module.name] in module.actions else 0 for module in modules]
    return modules.canonical(np.array([codes], dtype=np.int64))


def _head(
    row: Mapping[str, Any], modules: ActionSpace, path: Path, mask: BoolArray, fingerprint: str
) -> tuple[str, ...]:
    chosen = [f"{name} {row[name]}" for name in modules.names if isinstance(row[name], str) and row[name]]
    parts = [f"{name} {float(row[f'propensity_{name}']):.4g}" for name in modules.names if f"propensity_{name}" in row]
    lines = [
        f"Decision {row['decision_id']}: user {row['user_id']}, {pd.Timestamp(row['time']):%Y-%m-%d %H:%M} UTC, "
        f"arm {row.get('arm', 'agent')}",
        f"Decided: {', '.join(chosen)}, with probability {float(row['propensity']):.4g} ({' x '.join(parts)})",
        f"Policy {row['policy']} ({path})",
    ]
    same = row.get(CONTEXT)
    if same is not None and same != fingerprint:
        lines.append(
            f"Context: the log now gives another one ({fingerprint}) than the policy saw ({same}): late events, or "
            "other earlier decisions. What follows holds for the context of today's log"
        )
    else:
        lines.append(f"Context: as the policy saw it ({fingerprint})")
    lines += _limits(row, modules, mask)
    prices = [f"{name.removeprefix(_PRICE)} {value:.4g}" for name, value in _prices(row).items()]
    return (*lines, *([f"Shadow prices in reward units: {', '.join(prices)}"] if prices else []))


def _limits(row: Mapping[str, Any], modules: ActionSpace, mask: BoolArray) -> list[str]:
    """Return a line on what guardrails, churn, arm or roll-out took away, if they did."""
    if f"{UNGUARDED}_{modules.names[0]}" not in row:
        return []
    before = modules.split(_mask(row, modules, UNGUARDED))
    lost = [
        f"{module.name} {', '.join(np.asarray(module.actions)[gone[0]])}"
        for module, one, other in zip(modules, before, modules.split(mask), strict=True)
        if (gone := one & ~other).any()
    ]
    return [f"Not eligible by guardrails, churn, arm or roll-out: {'; '.join(lost)}"] if lost else []


def _why_nothing(row: Mapping[str, Any], modules: ActionSpace) -> str:
    nothing = modules[0].actions[0]
    if row.get("arm") == "holdout":
        return f"The user is held out: only `{nothing}` was eligible"
    if str(row.get(WAITING_COLUMN)).lower() == "true":
        return f"The user waits for the roll-out (--ramp, --only-users): only `{nothing}` was eligible"
    return f"Only `{nothing}` was eligible: by guardrails, churn, consent or what may be sent to the user"


def _prices(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(row[name]) for name in row if name.startswith(_PRICE) and not pd.isna(row[name])}


def _alternatives(
    run: Run,
    agent: Agent,
    observations: Observations,
    actions: IntArray,
    row: Mapping[str, Any],
    trained_with: TrainedWith,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the table of alternatives of one decision, and notes."""
    modules, constraints = agent.modules, run.constraints
    stored, names = _prices(row), [f"{_PRICE}{name}" for name in constraints.names]
    notes: list[str] = []
    estimates = _estimates(agent, observations)
    cost = np.full(modules.sizes[0], np.nan)
    if isinstance(agent, PriceableAgent) and set(stored) == set(names):
        prices = np.array([stored[name] for name in names])
        votes, costs = votes_at_prices(agent, observations, constraints, trained_with.pace, prices)
        probabilities, cost = votes.probabilities(costs), costs[0]
        estimates[0] = votes.values.astype(np.float64)
    else:
        probabilities = agent.action_probabilities(observations)
        if stored:
            notes.append("The run's constraints are not those of the decision: probabilities are those without prices")
    table = pd.concat(
        [
            _module_table(modules, m, observations.action_mask, actions, probabilities, estimates.get(m))
            for m in range(len(modules))
        ],
        ignore_index=True,
    )
    table["cost"] = np.append(cost, np.full(len(table) - modules.sizes[0], np.nan))
    for name, parts in _components(agent, observations).items():
        table[name] = np.concatenate([_given(modules, m, part, actions).mean(0) for m, part in enumerate(parts)])
    notes.append(_in_words(table[table["module"] == modules.names[0]]))
    now = float(modules.chosen_probabilities(probabilities, actions).prod())
    if abs(now - float(row["propensity"])) > 1e-4:
        notes.append(
            f"The probability is {now:.4g} by today's log and these prices, and was {float(row['propensity']):.4g}: "
            "the context or the constraints are others, votes next to the price were shared out, or nothing was "
            "explored"
        )
    return table, tuple(notes)


def _in_words(channels: pd.DataFrame) -> str:
    """Return a sentence on the chosen action of the first module and the best other one."""
    net = channels["value"] - channels["cost"].fillna(0.0)
    chosen, others = channels["chosen"], channels["eligible"] & ~channels["chosen"]
    here = channels[chosen].iloc[0]
    text = f"`{here['action']}` was chosen with probability {here['probability']:.2%}"
    if net[chosen].isna().any() or not others.any():
        return text
    after = " after shadow prices" if (channels["cost"] > 0).any() else ""
    best = channels[others].iloc[int(net[others].to_numpy().argmax())]
    worth = best["value"] - np.nan_to_num(best["cost"])
    return (
        f"{text}. It is worth {net[chosen].iloc[0]:.4g}{after}; the best other action, "
        f"`{best['action']}` with probability {best['probability']:.2%}, is worth {worth:.4g}"
    )


def _module_table(
    modules: ActionSpace,
    m: int,
    mask: BoolArray,
    actions: IntArray,
    probabilities: list[FloatArray],
    estimates: FloatArray | None,
) -> pd.DataFrame:
    names = modules[m].actions
    sends = bool(modules.sends(actions)[0])
    value = np.full((1, len(names)), np.nan) if estimates is None else _given(modules, m, estimates, actions)
    low, high = np.quantile(value, [(1 - _SHARE) / 2, (1 + _SHARE) / 2], axis=0)
    return pd.DataFrame(
        {
            "module": modules.names[m],
            "action": names,
            "chosen": (np.arange(len(names)) == actions[0, m]) & (sends or m == 0),
            "eligible": modules.split(modules.feasible_mask(mask))[m][0],
            "probability": modules.conditional(m, probabilities[m], actions)[0],
            "value": value.mean(0),
            "low": low,
            "high": high,
        }
    )


def _given(modules: ActionSpace, m: int, values: FloatArray, actions: IntArray) -> FloatArray:
    """Return the members' values (K, A) of a module's actions at one decision, given its earlier choices."""
    c = modules.condition(m)
    return np.asarray(values[:, 0] if c is None else values[:, 0, actions[0, c]], dtype=np.float64)


def _estimates(agent: Agent, observations: Observations) -> dict[int, FloatArray]:
    if not isinstance(agent, EstimatingAgent):
        return {}
    return {m: each.astype(np.float64) for m, each in enumerate(agent.expected_rewards(observations))}


def _components(agent: Agent, observations: Observations) -> dict[str, list[FloatArray]]:
    if not isinstance(agent, FunnelAgent):
        return {}
    return {name: [part.astype(np.float64) for part in parts] for name, parts in agent.components(observations).items()}
