"""True value of each agent's policy on the simulated market, also as a share of the oracle's.

    python -m benchmarks.market_agents --scenarios default null --seeds 0 1 2 3 4 --output docs/market/agents

Trains on one simulated log of business as usual per scenario and seed, as `train.py` does, and deploys every policy to
the same new users with the same random numbers. Writes OUTPUT.csv (one row per policy, scenario and seed) and OUTPUT.md
(means over seeds, and the meaning of the columns). An agent that keeps the configuration's constraints has a second row
without them; the others run without. `--agents t_learner` needs `pip install 'crosschannel[baselines]'`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.market_references import TLearner, best_constant
from crosschannel.agents import Agent, Constraints, make_agent
from crosschannel.agents.votes import PriceableAgent
from crosschannel.core.times import DAY
from crosschannel.envs.market import SCENARIOS, FreshUsers, MarketPolicy
from crosschannel.envs.replay import CrossChannelReplayVector, ReplayLog, TransitionIndex
from crosschannel.pipeline.batches import batch_at
from crosschannel.pipeline.building import TrainingData, agent_spec, prepare
from crosschannel.pipeline.configuration import AgentConfig, Config, read_config
from crosschannel.pipeline.judgement.judging import calibration_of, deployable_policy, explain_policy, judge

MYOPIC = "bootstrapped_q, discount 0"
T_LEARNER, UNLIMITED = "t_learner", "no constraints"
DEFAULT_AGENTS = ("best_fixed", "linear_thompson", "beta_thompson", T_LEARNER, "ensemble_thompson")
SEQUENTIAL_AGENTS = ("bootstrapped_q", MYOPIC)
# Settings that differ from the defaults. Single rewards are mostly noise here: of strengths from 20 to 200,000 the
# largest was best on seeds 100 and 101, and with the default of 20 a user's own rewards have no influence.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    MYOPIC: ("bootstrapped_q", {"discount": 0.0}),
    "beta_thompson": ("beta_thompson", {"strength": 200_000.0}),
}
REFERENCES = ("business_as_usual", "uniform", "no_send", "best_constant", "oracle", "far_sighted")
COLUMNS = {
    "value": "incremental goal value per user, on new users",
    "share_of_oracle": "value divided by that of the oracle",
    "lift_over_usual": "value minus that of business as usual",
    "identified": "number of doubly robust estimates, of the whole policy and of each module, that the log identifies",
    "significant": "number of these whose 95 % interval of the difference to the log excludes 0",
    "calibration_slope": "slope of the DiD reward of all sends on the value that the agent's funnel predicts for users "
    "it has not learned from; 1 if predictions have the right size",
    "sends": "messages per user",
    "unsubscribed": "share of users who unsubscribed",
    "second_week_effect": "true effect per decision at the test users' slots of the second week, after training on the "
    "first half of the log; the oracle's is the largest possible one",
    "last_week_effect": "the same of the last week, after training on the whole log",
    "sd of value": "standard deviation of the value over seeds",
    "wins": "seeds at which the lift is above two standard errors",
}


def learn(agent: Agent, log: ReplayLog, config: Config, until: int | None = None) -> Agent:
    """Replay the log once, up to a time if one is given, and train the agent as `train.py` does."""
    env = CrossChannelReplayVector(min(config.train.num_envs, log.n_users), log)
    transitions = TransitionIndex.from_log(log)
    env.reset(seed=config.seed)
    while env.passes_completed < 1:
        _, _, _, _, info = env.step_logged()
        rows = info["row"][info["_row"] & (info["pass"] == 0)]
        if until is not None:
            rows = rows[log.available_at[rows] <= until]
        agent.observe(batch_at(log, transitions, rows))
        agent.update(config.train.updates_per_step)
    for _ in range(config.train.offline_updates):
        agent.update(config.train.updates_per_step)
    return agent


def per_decision(data: TrainingData, agent: Agent | None, first: int, last: int) -> float:
    """Return the mean true effect of the agent's policy, or of the best actions, at test users' slots of some days."""
    assert data.truth is not None
    test = data.test
    day = (test.history.decisions.time - data.history.decisions.time.min()) // DAY
    inside = (day >= first) & (day < last)
    rows = np.flatnonzero(data.rows("test"))[inside]
    seen = test.observations[inside]
    if agent is None:
        return float(data.truth.best_effect(rows, seen.action_mask).mean())
    return float(data.truth.expected_effect(rows, agent.action_probabilities(seen)).mean())


def results(config: Config, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return one row per policy, with its true value on new users and the other columns."""
    data = prepare(config)
    assert data.truth is not None
    market, users = data.truth.market, config.evaluation.market_users
    split = data.train
    log = ReplayLog.build(split.history, split.rewards, split.features, observations=split.observations)
    begun, days = int(data.history.decisions.time.min()), config.history.market.days
    fresh_users = FreshUsers.draw(market, users)
    deployed = {name: fresh_users.deploy(reference(name, fresh_users)) for name in REFERENCES}
    rows: list[dict[str, Any]] = [{"agent": name} for name in REFERENCES]
    weeks = (days // 4, days // 2), (3 * days // 4, days)
    if config.history.market.scenario == "refresh":
        second, last = (per_decision(data, None, *week) for week in weeks)
        rows[REFERENCES.index("oracle")] |= {"second_week_effect": second, "last_week_effect": last}
    for name in names:
        started = time.perf_counter()
        if name == T_LEARNER:
            learner = TLearner.fit(data, config.seed)
            rows.append({"agent": name, "seconds": time.perf_counter() - started})
            deployed[name] = fresh_users.deploy(learner.policy(data))
            continue
        agent_name, settings = SETTINGS.get(name, (name, config.agent.settings if name == config.agent.name else {}))
        made = replace(config, agent=AgentConfig(agent_name, settings))
        spec = agent_spec(made, data.features)
        agent = learn(make_agent(modules=log.modules, **spec), log, made)
        row: dict[str, Any] = {"agent": name, "seconds": time.perf_counter() - started}
        if (calibration := calibration_of(agent)) is not None:
            row |= {"calibration_slope": calibration.slope, "calibration_slope_se": calibration.slope_se}
        free = replace(made, constraints=Constraints())
        if not isinstance(agent, PriceableAgent):
            made = free
        deployed[name] = fresh_users.deploy(deployable_policy(made, data, agent, name))
        if config.history.market.scenario == "refresh":
            half = learn(make_agent(modules=log.modules, **spec), log, made, begun + days // 2 * DAY)
            row["second_week_effect"] = per_decision(data, half, *weeks[0])
            row["last_week_effect"] = per_decision(data, agent, *weeks[1])
        if config.history.market.scenario == "null" and name == config.agent.name:
            policy = explain_policy(made, data, agent)
            judged = judge(made, data, agent, policy).evaluation
            known = [e.difference for e in judged.estimates if e.estimator == "dr" and e.identified]
            row |= {"identified": len(known), "significant": sum(not each.contains(0.0) for each in known)}
        rows.append(row)
        if made.constraints.price_messages:
            unlimited = f"{name}, {UNLIMITED}"
            deployed[unlimited] = fresh_users.deploy(deployable_policy(free, data, agent, unlimited))
            rows.append({"agent": unlimited})
    best, usual = deployed["oracle"].mean, deployed["business_as_usual"]
    for row in rows:
        value = deployed[row["agent"]]
        difference, error = value.minus(usual)
        row |= {
            "value": value.mean,
            "se": value.se,
            "share_of_oracle": value.mean / best if best > 0 else float("nan"),
            "lift_over_usual": difference,
            "lift_over_usual_se": error,
            "sends": float(value.sends.mean()),
            "unsubscribed": float(value.unsubscribed.mean()),
        }
    return rows


def reference(name: str, users: FreshUsers) -> str | MarketPolicy:
    """Return the policy of this name: one of the market's, or the constant message that is best for the users."""
    return best_constant(users) if name == "best_constant" else name


def page(command: str, frame: pd.DataFrame) -> str:
    """Format the whole page: command, one table per scenario, meaning of the columns."""
    tables = table(frame)
    meaning = [f"- `{name}`: {text}" for name, text in COLUMNS.items() if f"| {name} |" in tables]
    return f"# True value of each agent on the market\n\n```\n{command}\n```\n\n{tables}\n" + "\n".join(meaning) + "\n"


def table(frame: pd.DataFrame) -> str:
    """Format means over seeds as Markdown, one table per scenario."""
    lines = []
    for scenario, part in frame.groupby("scenario", sort=False):
        shown = [column for column in COLUMNS if column in part and part[column].notna().any()]
        values = part.pivot(index="seed", columns="agent", values="value")
        lines += [f"\n## {scenario} ({len(values)} seeds)\n", f"| policy | {' | '.join(shown)} | sd of value | wins |"]
        lines.append("|---|" + "---|" * (len(shown) + 2))
        for agent, own in part.groupby("agent", sort=False):
            means = own[shown].mean()
            numbers = ["" if np.isnan(means[c]) else f"{means[c]:.3f}" for c in shown]
            wins = int((own["lift_over_usual"] > 2 * own["lift_over_usual_se"]).sum())
            deviation = f"{values[agent].std():.3f}" if len(values) > 1 else ""
            lines.append(f"| {agent} | {' | '.join(numbers)} | {deviation} | {wins} of {len(own)} |")
    return "\n".join(lines).strip() + "\n"


def main() -> None:
    """Run the chosen scenarios and seeds; the files are replaced after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/market.yaml"))
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--agents", nargs="+", default=list(DEFAULT_AGENTS))
    parser.add_argument("--users", type=int, default=None, help="users of the log; default: the configuration's")
    parser.add_argument("--output", type=Path, required=True, help="path of the two files, without suffix")
    chosen = parser.parse_args()
    base = read_config(chosen.config)
    command = " ".join(["python -m benchmarks.market_agents", *sys.argv[1:]])
    rows: list[dict[str, Any]] = []
    for scenario in chosen.scenarios:
        for seed in chosen.seeds:
            market = replace(base.history.market, scenario=scenario, seed=seed)
            market = replace(market, users=chosen.users or market.users)
            config = replace(base, seed=seed, history=replace(base.history, market=market))
            names = (*chosen.agents, *(SEQUENTIAL_AGENTS if scenario == "fatigue" else ()))
            rows += [{"scenario": scenario, "seed": seed, **row} for row in results(config, names)]
            frame = pd.DataFrame(rows)
            frame.to_csv(chosen.output.with_suffix(".csv"), index=False, float_format="%.5g")
            chosen.output.with_suffix(".md").write_text(page(command, frame))
            print(table(frame[(frame["scenario"] == scenario) & (frame["seed"] == seed)]), flush=True)


if __name__ == "__main__":
    main()
