"""A day of decisions: arms, exact propensities given the arm, draws that belong to each user, guardrails, roll-out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.times import DAY, HOUR, NEVER
from crosschannel.histories import Arms, Guardrails, History, assign_arms
from crosschannel.histories.logs import take_rows
from crosschannel.histories.readers.sources import concat_decisions
from crosschannel.pipeline.loop.deciding import DecidedDay, decide_day, rolled_out
from crosschannel.pipeline.loop.decisions.day_users import DayRequest
from crosschannel.pipeline.run_folder import Run
from tests.pipeline.loop.samples import START, daily_log

AT = START + 11 * DAY + 6 * HOUR
ARMS = Arms(0.2, 0.3)


def run_with(trained: Path, arms: Arms = ARMS) -> Run:
    run = Run.open_ended(trained)
    return replace(run, config=replace(run.config, arms=arms))


def everything(history: History) -> np.ndarray:
    return np.ones((history.n_users, history.modules.total), dtype=bool)


def decide(trained: Path, history: History, arms: Arms = ARMS, may_receive: np.ndarray | None = None, **options):
    run = run_with(trained, arms)
    return decide_day(run, history, DayRequest(AT, **options), everything(history), may_receive)


def row_of(day: DecidedDay) -> pd.DataFrame:
    return day.decisions.set_index("user_id").astype({"offer": object}).fillna({"offer": ""})


def test_each_arm_gets_what_belongs_to_it(trained):
    history = daily_log()
    day = decide(trained, history)
    arm = pd.Series(assign_arms(history.user_ids, ARMS), index=history.user_ids)
    assert (day.arms.set_index("user_id").arm == arm).all()
    assert set(day.decisions.user_id) == set(arm.index[arm != "business_as_usual"])
    table = row_of(day)
    assert (table.arm == arm[table.index]).all()
    held = table[table.arm == "holdout"]
    assert len(held) > 10
    assert (held.channel == "none").all()
    assert (held.eligible_channel == "none").all()
    assert (held[["propensity", "propensity_channel", "propensity_offer"]] == 1.0).all(axis=None)
    mine = table[table.arm == "agent"]
    assert set(mine.channel) == {"none", "email", "push"}
    assert (mine.propensity < 1.0).all()
    assert (mine.eligible_channel == "none|email|push").all()
    assert set(table.policy) == {Run.open(trained).policy_version}
    assert not table.waiting.any()
    assert day.summary["users"] == arm.value_counts().reindex(["agent", "business_as_usual", "holdout"]).to_dict()
    assert day.summary["counts"]["channel"] == mine.channel.value_counts().to_dict()
    assert day.name == "2024-10-15"


def test_users_who_could_be_sent_nothing_are_counted_by_reason(trained):
    """Those who churned count as churned, whatever else would exclude them; the holdout counts nowhere."""
    history = daily_log()
    number = np.arange(history.n_users)
    churned = replace(history, churned_before=np.where(number % 10 < 2, START, NEVER))
    eligible = everything(history)
    eligible[number % 10 == 1, 1:] = False  # churned as well
    eligible[number % 10 == 3, 1:] = False
    limits = Guardrails(min_gap="30d")
    agents = assign_arms(history.user_ids, ARMS) == "agent"
    assert decide(trained, history).summary["without_choice"] == {"churned": 0, "not eligible": 0, "guardrails": 0}
    for guardrails in (Guardrails(), limits):
        day = decide_day(run_with(trained), churned, DayRequest(AT, guardrails), eligible)
        table = row_of(day)
        closed = int(((table.arm == "agent") & (table.eligible_channel == "none")).sum())
        counts = day.summary["without_choice"]
        assert counts["churned"] == (agents & (number % 10 < 2)).sum() > 0
        assert counts["not eligible"] == (agents & (number % 10 == 3)).sum() > 0
        assert sum(counts.values()) == closed
        assert (counts["guardrails"] > 0) == (guardrails is limits)


def test_a_user_gets_the_same_whoever_else_is_there(trained):
    """New users, users who left and another order of the log change no draw of the others."""
    few, many = daily_log(120), daily_log(120)
    few = few.select_users(np.arange(120) % 4 != 1)
    one, other = row_of(decide(trained, few)), row_of(decide(trained, many))
    common = one.index.intersection(other.index)
    assert len(common) > 40
    pd.testing.assert_frame_equal(one.loc[common], other.loc[common])


def test_draws_follow_the_stated_probabilities_and_differ_by_day_and_seed(trained):
    history, run = daily_log(), run_with(trained, Arms())
    tables = [row_of(decide(trained, history, Arms(), seed=seed)) for seed in range(40)]
    sent = np.array([(table.channel != "none").mean() for table in tables])
    p_send = tables[0].apply(lambda row: 1 - row.propensity_channel if row.channel == "none" else np.nan, axis=1).mean()
    n = len(tables) * len(tables[0])
    assert abs(sent.mean() - p_send) < 5 * np.sqrt(0.25 / n)
    assert (tables[0].channel != tables[1].channel).any()
    later = decide_day(run, history, DayRequest(AT + DAY), everything(history)).decisions
    assert (later.channel.to_numpy() != tables[0].channel.to_numpy()).any()
    again = decide(trained, history, Arms(), seed=0)
    pd.testing.assert_frame_equal(row_of(again), tables[0])


def test_the_fingerprint_of_the_context_is_that_of_what_the_policy_saw(trained):
    history = daily_log()
    changed = replace(history, events=take_rows(history.events, history.events.user != 7))
    one, other = (row_of(decide(trained, each, Arms())).context for each in (history, changed))
    assert one.str.fullmatch("[0-9a-f]{16}").all()
    moved = one != other
    assert moved[history.user_ids[7]]
    assert moved.sum() == 1
    later = take_rows(history.events, history.events.time < AT)
    unseen = replace(history, events=later)
    assert (row_of(decide(trained, unseen, Arms())).context == one).all()


def test_waiting_users_are_marked_and_the_others_get_the_same(trained):
    history = daily_log()
    whole = row_of(decide(trained, history))
    before = np.zeros(history.n_users, dtype=bool)
    for ramp in (0.0, 0.3, 0.6, 1.0):
        may = rolled_out(history, ARMS, ramp)
        assert (may | ~before).all(), "a larger share only adds users"
        before = may
        table = row_of(decide(trained, history, may_receive=may))
        expected = (table.arm == "agent") & ~pd.Series(may, index=history.user_ids)[table.index]
        assert (table.waiting == expected).all()
        assert (table[expected][["channel", "eligible_channel"]] == "none").all(axis=None)
        assert (table[expected].propensity == 1.0).all()
        assert (table.policy.str.endswith(" (waiting)") == expected).all()
        pd.testing.assert_frame_equal(table[~expected], whole[~expected])
        assert (table.unguarded_channel == "none|email|push").all()
    assert before.all()
    listed = np.arange(history.n_users) < 20
    assert rolled_out(history, ARMS, 1.0, listed).sum() == 20
    arm = assign_arms(history.user_ids, ARMS)
    share = rolled_out(daily_log(120), ARMS, 0.5)[arm == "agent"].mean()
    assert 0.2 < share < 0.8, "the roll-out is independent of the arm"


def test_users_of_a_household_share_their_arm_and_their_start(trained):
    history = daily_log()
    arms = replace(ARMS, cluster="household")
    day = decide(trained, history, arms)
    arm = day.arms.set_index("user_id").arm
    household = history.users.set_index("user_id").household
    assert (arm.groupby(household).nunique() == 1).all()
    may = pd.Series(rolled_out(history, arms, 0.5), index=history.user_ids)
    assert (may.groupby(household).nunique() == 1).all()
    assert may.any()
    assert not may.all()


def test_what_was_decided_for_this_time_does_not_count_when_it_is_decided_again(trained):
    """The folder has the day already, and the log what was sent: the gap after these messages is not one before."""
    history, gap = daily_log(), Guardrails(min_gap="2d")
    early = history.decisions.time < AT - 3 * DAY
    history = replace(history, decisions=take_rows(history.decisions, early))
    first = decide(trained, history, guardrails=gap)
    table = first.decisions
    both = History.from_tables(
        concat_decisions([history.decisions_frame().assign(policy="old"), table], history.modules),
        history.events_frame(),
        history.modules,
        history.users,
        span=history.span,
    )
    both = replace(both, observed_from=history.observed_from, observed_until=history.observed_until)
    assert len(both.decisions) == len(history.decisions) + len(table)
    again = decide(trained, both, guardrails=gap)
    pd.testing.assert_frame_equal(again.decisions, table)
    assert (table[table.arm == "agent"].channel != "none").any()


def test_a_day_with_nobody_for_the_agent_is_one(trained):
    history = daily_log()
    day = decide(trained, history, may_receive=np.zeros(history.n_users, dtype=bool))
    assert (day.decisions.channel == "none").all()
    assert (day.decisions.propensity == 1.0).all()
    assert day.summary["waiting"] == day.summary["users"]["agent"]
