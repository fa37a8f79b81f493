"""Constraints through the programs: kept by decide and evaluate, with their prices in what these write."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from crosschannel import agents
from crosschannel.agents.constraints.budgets import budgets_at
from crosschannel.core import ConfigError, write_csv
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories import History, TableMapping, TableSource, read_tables, write_history
from crosschannel.pipeline import load_config
from crosschannel.pipeline.judgement.results import RESULT_VERSION
from crosschannel.pipeline.report.run_report import write_report
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import decide, evaluate

NO_CONSTRAINT = ("--constraints.cost-events", "[]")


@pytest.fixture(scope="module")
def run(funnel_run: Path, tmp_path_factory) -> Path:
    """A copy of the run, which tests of this module may edit."""
    return Path(shutil.copytree(funnel_run, tmp_path_factory.mktemp("constraints") / "run"))


@pytest.fixture(scope="module")
def history() -> History:
    return simulate_history(Market(MarketConfig(users=600, days=10)))[0]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def decided(run: Path, *arguments: str, out: str = "x.parquet") -> pd.DataFrame:
    decide.main([str(run), "--out", out, "--force", *arguments])
    return pd.read_parquet(out)


def test_decisions_hold_the_price_and_it_limits_the_messages(run, caplog):
    with caplog.at_level("INFO"):
        table = decided(run)
    assert table.price_unsubscribed.nunique() == 1
    assert table.price_unsubscribed.iloc[0] > 0
    lines = [line for line in caplog.messages if line.startswith("the constraint unsubscribed binds: shadow price ")]
    assert len(lines) == 1
    free = decided(run, *NO_CONSTRAINT)
    assert not [name for name in free if name.startswith("price_")]
    assert (table.channel != "none").mean() < (free.channel != "none").mean()


def test_the_expected_messages_of_the_propensities_are_the_budget(run, history):
    """A limit on messages leaves its use in the log: users who have not churned count, and nobody else."""
    flags = ("--constraints.messages-per-week", "0.5", *NO_CONSTRAINT)
    table = decided(run, *flags)
    assert table.price_messages_per_week.iloc[0] > 0
    trained = Run.open(run).trained_with("policy")
    at = history.span[1]
    active = int((history.churned_at >= at).sum())
    assert active < history.n_users
    constraints = replace(trained.config.constraints, cost_events=(), messages_per_week=0.5)
    budget = budgets_at(constraints, active, trained.pace.period)[0]
    mask = np.array([len(names.split("|")) > 1 for names in table.eligible_channel])
    sent = table.channel != "none"
    # The probability of a message is 1 - P(none); of those who got one, P(none) follows from a second seed.
    none = pd.Series(np.nan, index=table.user_id)
    for seed in range(30):
        again = decided(run, *flags, "--seed", str(seed)).set_index("user_id")
        silent = again.channel == "none"
        none[silent] = again.propensity_channel[silent]
    assert np.allclose(none[~mask], 1.0)
    known = none.notna()
    # Whoever always got a message counts as one: 20 users with a chance of 1/31 of nothing are .6 of the 40 messages.
    assert known.mean() > 0.95
    expected = float((1.0 - none[known]).sum()) + float((~known).sum())
    assert expected == pytest.approx(budget, rel=0.02)
    assert sent.sum() == pytest.approx(budget, abs=4 * np.sqrt(budget))


def test_decisions_without_exploration_keep_the_budget_as_well(run):
    flags = ("--constraints.messages-per-week", "0.5", *NO_CONSTRAINT)
    table = decided(run, *flags, "--greedy")
    explored = decided(run, *flags)
    assert table.price_messages_per_week.iloc[0] > 0
    assert (table.propensity == 1).mean() > 0.9
    assert (explored.propensity == 1).mean() < 0.6
    assert (table.channel != "none").sum() == pytest.approx((explored.channel != "none").sum(), rel=0.4)
    greedy = decided(run, *NO_CONSTRAINT, "--greedy")
    assert (greedy.propensity == 1).all()
    assert not [name for name in greedy if name.startswith("price_")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--constraints.cost-events", "[{event: unsubscribed, at_most: 0.0}]"),
            r"unsubscribed: the budget is 0, but .* are expected even if no vote sends anything",
        ),
        (("--constraints.cost-events", "[{event: complaint}]"), "'complaint' is not a cost event of `reward.funnel"),
        (
            ("--constraints.budgets", "[{name: sms, amount: 1.0, costs: {chanel: {sms: 0.1}}}]"),
            "'sms': there is no module 'chanel'. Did you mean 'channel'",
        ),
    ],
)
def test_constraints_that_cannot_be_kept_are_named_and_nothing_is_written(flags, message, run):
    with pytest.raises(ConfigError, match=message):
        decide.main([str(run), "--out", "x.csv", *flags])
    assert not Path("x.csv").exists()


def test_decisions_with_prices_begin_the_next_log(run, history):
    """As a table, and as decide's CSV through the reader; a budget may have any name that the log does not have."""
    budget = "[{name: cost per week, amount: 0.01, costs: {channel: {sms: 0.07}, offer: {percent_20: 0.02}}}]"
    table = decided(run, "--constraints.budgets", budget)
    assert {"price_unsubscribed", "price_cost per week"} <= set(table)
    both = pd.concat([history.decisions_frame(), table], ignore_index=True)
    again = History.from_tables(both, history.events_frame(), history.modules, history.users)
    assert len(again.decisions) == len(history.decisions) + history.n_users
    assert again.propensity_source == "logged"

    decide.main([str(run), "--constraints.budgets", budget, "--out", "x.csv"])
    write_csv(history.events_frame(), Path("events.csv"))
    modules = tuple(history.modules.to_dict())
    span = tuple(str(pd.Timestamp(t, unit="us")) for t in (history.span[0], history.span[1] + 1))
    source = TableMapping(TableSource(Path("x.csv")), (TableSource(Path("events.csv")),), modules, span=span)
    read = read_tables(source)
    assert read.propensity_source == "logged"
    joint = pd.Series(read.decisions.joint, index=read.decisions.id)
    assert joint[table.decision_id].to_numpy() == pytest.approx(table.propensity.to_numpy())


def test_the_result_holds_constraints_and_calibration(run):
    stored = json.loads((run / "evaluation.json").read_text())
    assert stored["version"] == RESULT_VERSION
    (found,) = stored["constraints"]
    assert found["name"] == "unsubscribed"
    assert found["price"] > 0
    assert found["binding"] > 0
    assert 0 < found["use"] <= found["budget"]
    assert set(stored["calibration"]) == {
        *("slope", "slope_se", "intercept", "weight_of_funnel", "weight_of_all_sends"),
        *("weight_of_missed", "weight_of_personal"),
    }
    result = Run.open(run).stored_result()
    assert result is not None
    assert result.constraints[0].budget == found["budget"]
    assert result.calibration is not None
    assert result.calibration.slope == stored["calibration"]["slope"]
    assert "Slope of the rewards of all messages on the funnel's predicted value" in result.details()
    text = str(result)
    users, decisions = result.evaluation.users, result.evaluation.logged_decisions
    assert f"of the test users' {decisions:,} decisions in all ({users:,} users with a reward); a shadow price" in text
    assert "constraint    shadow price  expected use" in text
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["constraints"] == stored["constraints"]


def test_the_report_has_the_funnel_by_segment_and_the_constraints(run):
    opened = Run.open(run)
    result = opened.stored_result()
    assert result is not None
    write_report(opened, result, Path("report.html"))
    page = Path("report.html").read_text()
    for text in ("What the policy sends", "<th>engages</th>", "<th>unsubscribed</th>", "Shadow prices and use"):
        assert text in page
    assert page.count("Slope of the rewards") == 1
    # The slope also stands there where too few messages have a reward for groups of them.
    write_report(opened, replace(result, evidence=replace(result.evidence, calibration=())), Path("report.html"))
    assert Path("report.html").read_text().count("Slope of the rewards") == 1
    segments = result.policy_table["segment"].unique()
    assert len(segments) > 1
    assert all(page.count(f"<summary>{segment} (") == 1 for segment in segments)
    assert page.count("decision times</td>") == 1


def test_a_policy_without_a_funnel_has_neither(small_run):
    run, printed = small_run
    result = Run.open(run).stored_result()
    assert result is not None
    assert result.constraints == ()
    assert result.calibration is None
    assert "funnel" not in printed
    write_report(Run.open(run), result, Path("report.html"))
    page = Path("report.html").read_text()
    assert "What the policy sends" in page
    assert "<th>engages</th>" not in page
    assert "Shadow prices and use" not in page


def test_an_evaluation_is_of_the_constraints_that_it_was_made_with(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    kept = (run / "config.yaml").read_text()
    config["constraints"] = {"cost_events": []}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert Run.open(run).stored_result() is None
    result = evaluate.evaluate(run, out=Path("free"))
    assert result.constraints == ()
    assert "price_unsubscribed" not in decided(run)
    (run / "config.yaml").write_text(kept)
    assert Run.open(run).stored_result() is not None
    assert "price_unsubscribed" in decided(run)


def test_another_log_is_judged_by_the_pace_of_the_runs_own(run):
    """Its limit is what decide would allow there, not what that log had: that of the training's rate and period."""
    other = simulate_history(Market(MarketConfig(users=500, days=14, seed=5)))[0]
    write_history(other, Path("log"))
    result = evaluate.evaluate(run, Path("log"), out=Path("there"))
    trained = Run.open(run).trained_with("policy")
    decisions = int(result.policy_table.loc[result.policy_table.segment == agents.ALL_DECISIONS, "decisions"].iloc[0])
    budget = budgets_at(trained.config.constraints, decisions, trained.pace.period, trained.pace.rates)[0]
    assert result.constraints[0].budget == pytest.approx(budget)


def test_constraints_that_another_agent_or_other_goals_cannot_keep_are_left_out(caplog):
    with caplog.at_level("INFO"):
        assert load_config("market", {"agent.name": "best_fixed"}).constraints.names == ()
    assert "the agent best_fixed cannot keep constraints: left out are those on unsubscribed" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        goals = [{"event": "order:*", "weight": 1.0}]
        assert load_config("market", {"reward.goals": goals}).constraints.names == ()
    assert "no longer cost events of the rewards: the constraints on unsubscribed are left out" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        assert load_config("market", {"seed": 3}).constraints.names == ("unsubscribed",)
        asked = load_config("market", {"agent.name": "best_fixed", "constraints.messages_per_week": 2.0})
        assert asked.constraints.names == ("unsubscribed", "messages_per_week")
    assert not caplog.text


def test_agents_that_keep_limits_on_cost_events_are_those_with_a_funnel():
    from crosschannel.agents.registry import AGENTS, AGENTS_WITHOUT_FUNNEL
    from crosschannel.agents.votes import PriceableAgent
    from tests.agents.samples import PLAIN

    made = {name: agents.make_agent(name, PLAIN, 3) for name in AGENTS}
    assert {name for name, agent in made.items() if not hasattr(agent, "funnel")} == AGENTS_WITHOUT_FUNNEL
    assert all(isinstance(made[name], PriceableAgent) for name in AGENTS if name not in AGENTS_WITHOUT_FUNNEL)
