"""`crosschannel explain`: one decision in words, with the numbers that the policy itself used."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel import agents
from crosschannel.core.errors import ConfigError, InputError
from crosschannel.histories.logs import take_rows
from crosschannel.pipeline import UsageError, load_history
from crosschannel.pipeline.loop.decisions.explaining import explain_decision, find_decision
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import decide, explain, train
from tests.pipeline.loop.samples import daily_log, train_on
from tests.programs.samples import FUNNEL


@pytest.fixture(scope="module")
def funnel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a funnel and a limit on unsubscribes, and its decisions in one file."""
    folder = tmp_path_factory.mktemp("explain")
    train.main([*FUNNEL, f"--run-dir={folder}"])
    # A tight limit, so that it has a price.
    flags = ("--constraints.cost-events", "[{event: unsubscribed, at_most: 0.003}]")
    decide.main([str(folder / "market"), "--out", str(folder / "x.parquet"), *flags])
    return folder


def one(folder: Path, **wanted: str) -> pd.Series:
    table = pd.read_parquet(folder / "x.parquet")
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table.iloc[0]


def run_of(folder: Path, at_most: float = 0.003) -> Run:
    run = Run.open_ended(folder / "market")
    limit = replace(run.config.constraints.cost_events[0], at_most=at_most)
    constraints = replace(run.config.constraints, cost_events=(limit,))
    return replace(run, config=replace(run.config, constraints=constraints))


def test_probabilities_values_and_costs_are_those_that_the_policy_used(funnel):
    run, history = run_of(funnel), load_history(Run.read_config(funnel / "market"))
    table = pd.read_parquet(funnel / "x.parquet")
    assert (table.price_unsubscribed > 0).all()
    exact = 0
    for k in range(0, 60, 5):
        row = find_decision(funnel / "x.parquet", table.decision_id[k])
        found = explain_decision(run, history, row)
        alternatives = found.alternatives
        if not len(alternatives):
            continue
        for module in history.modules.names:
            part = alternatives[alternatives.module == module]
            if module == "channel" or row["channel"] != "none":
                assert part.probability.sum() == pytest.approx(1.0)
        chosen = alternatives[alternatives.chosen]
        assert chosen.action.tolist() == [
            row[name] for name in history.modules.names if row["channel"] != "none" or name == "channel"
        ]
        exact += chosen.probability.prod() == pytest.approx(row["propensity"], abs=1e-9)
        channels = alternatives[alternatives.module == "channel"].set_index("action")
        hazard = channels.hazard_unsubscribed.drop("none")
        assert (channels.cost.drop("none") >= 0).all()
        assert channels.cost["none"] == 0.0
        positive = hazard[hazard > 0].index.intersection(channels.index[channels.eligible])
        assert (channels.cost[positive] > 0).all()
        assert {"engagement", "gain", "direct"} <= set(alternatives.columns)
        assert "Context: as the policy saw it" in str(found)
    # A few users are those whose votes lie next to the price, of which a share is drawn.
    assert exact >= 6


def test_a_decision_is_explained_in_words(funnel, capsys, monkeypatch):
    row = one(funnel, channel="email")
    explain.main([str(funnel / "market"), "--decision", row.decision_id, "--decisions", str(funnel / "x.parquet")])
    shown = capsys.readouterr().out
    run = Run.open(funnel / "market")
    for text in (
        f"Decision {row.decision_id}: user {row.user_id}",
        "Decided: channel email",
        f"Policy {run.policy_version}",
        "Shadow prices in reward units: unsubscribed",
        "`email` was chosen with probability",
        "after shadow prices; the best other action, `",
        "\nchannel:\n",
        "engagement",
    ):
        assert text in shown
    with pytest.raises(InputError, match="no decision with this id"):
        find_decision(funnel / "x.parquet", "another")
    with pytest.raises(UsageError, match="--decision is missing"):
        explain.main([str(funnel / "market")])
    with pytest.raises(UsageError, match="--decisions is missing"):
        explain.main([str(funnel / "market"), "--decision", "x"])


def test_other_constraints_than_the_decisions_are_noted(funnel):
    history = load_history(Run.read_config(funnel / "market"))
    run = run_of(funnel)
    bare = replace(run, config=replace(run.config, constraints=agents.Constraints()))
    row = find_decision(funnel / "x.parquet", one(funnel, channel="email").decision_id)
    assert "constraints are not those of the decision" in str(explain_decision(bare, history, row))


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a native log, and two days of its decisions with arms and a gap."""
    folder = tmp_path_factory.mktemp("days")
    history = daily_log(90)
    d = history.decisions
    early = replace(history, decisions=take_rows(d, d.time < np.unique(d.time)[-2]))
    train_on(early, folder, "--arms.holdout=0.2", "--guardrails.min-gap=36h")
    for day, ramp in (("2024-10-12", "1"), ("2024-10-13", "0.8")):
        out = ("--out", str(folder / "decided"), "--ramp", ramp)
        decide.main([str(folder / "run"), "--at", f"{day}T06:00", *out])
    return folder


def test_it_says_why_nothing_was_eligible(days):
    run = Run.open_ended(days / "run")
    config = replace(run.config, history=replace(run.config.history, decided=days / "decided"))
    history = load_history(config)
    table = pd.read_parquet(days / "decided" / "2024-10-13" / "decisions.parquet")
    free = (table.arm == "agent") & ~table.waiting
    for rows, text in (
        (table.arm == "holdout", "The user is held out"),
        (table.waiting, "The user waits for the roll-out"),
        (free & (table.eligible_channel == "none"), "by guardrails, churn, consent"),
    ):
        row = find_decision(days / "decided", table.decision_id[rows].iloc[0])
        found = str(explain_decision(run, history, row))
        assert text in found
        assert "Not eligible by guardrails, churn, arm or roll-out: channel email, push" in found
    row = find_decision(days / "decided", table.decision_id[free & (table.eligible_channel != "none")].iloc[0])
    assert "Context: as the policy saw it" in str(explain_decision(run, history, row))


def test_another_log_or_another_policy_is_noticed(days, tmp_path):
    run = Run.open_ended(days / "run")
    history = load_history(run.config)
    table = pd.read_parquet(days / "decided" / "2024-10-12" / "decisions.parquet")
    row = find_decision(days / "decided", table.decision_id[0])
    changed = replace(history, events=take_rows(history.events, history.events.user != 0))
    assert "the log now gives another one" in str(explain_decision(run, changed, row))
    with pytest.raises(ConfigError, match="does not have the policy 000000000000"):
        explain_decision(run, history, {**row, "policy": "000000000000"})
    with pytest.raises(InputError, match="the log has no such user"):
        explain_decision(run, history, {**row, "user_id": "nobody"})
    # A later version has taken its place, and the one that decided is kept beside it.
    later = tmp_path / "run"
    shutil.copytree(days / "run", later)
    kept = later / "policies" / f"{run.policy_version}.pt"
    kept.parent.mkdir()
    (later / "policy.pt").rename(kept)
    moved = replace(run, path=later)
    assert str(explain_decision(moved, history, row)) == str(explain_decision(run, history, row)).replace(
        str(run.policy), str(kept)
    )


def test_the_folder_of_the_run_is_searched_where_none_is_named(days, capsys):
    table = pd.read_parquet(days / "decided" / "2024-10-13" / "decisions.parquet")
    flags = ("--history.decided", str(days / "decided"))
    explain.main([str(days / "run"), "--decision", table.decision_id.iloc[-1], *flags])
    assert f"user {table.user_id.iloc[-1]}" in capsys.readouterr().out
