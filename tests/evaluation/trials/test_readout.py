"""The readout of a whole trial: lifts, checks, looks that took place, messages, segments, clusters, one decision."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.times import DAY, HOUR
from crosschannel.evaluation.trials import ArmTable, TrialConfig, read_past_looks, read_trial, significant_outcomes
from crosschannel.evaluation.trials.results import BETTER, NOT_SHOWN, NOT_VALID, NOT_YET
from crosschannel.histories import Goal
from crosschannel.histories.logs import take_rows
from tests.evaluation.trials.worlds import BEGIN, DAYS, GOALS, START, trial_history

SETTINGS = TrialConfig(
    start="2024-01-15",
    days=DAYS,
    every="7d",
    shares={"agent": 0.5, "business_as_usual": 0.4, "holdout": 0.1},
    segments=("city",),
)


def outcome(trial, name, comparison=0):
    return next(one for one in trial.comparisons[comparison].outcomes if one.name == name)


def test_outcomes_are_counts_and_values_per_user_since_the_start():
    """By hand: without adjustment the means are sums of a table of events, and the value is their weighted sum."""
    history = trial_history()
    trial = read_trial(history, replace(SETTINGS, pre=None), GOALS)
    events = history.events_frame()
    events = events[events["time"] >= pd.Timestamp(START, unit="us", tz="UTC")]
    arm = pd.Series(history.users["arm"].to_numpy(), index=history.user_ids)
    users = arm.value_counts()
    counts = events.assign(arm=events["user_id"].map(arm)).groupby(["arm", "event"]).size().unstack(fill_value=0)
    for one in trial.comparisons[0].outcomes[1:]:
        for mean, name in zip(one.means, ("agent", "business_as_usual"), strict=True):
            assert mean == pytest.approx(counts.loc[name, one.name] / users[name], abs=1e-12)
        assert one.lift.point == pytest.approx(one.means[0] - one.means[1], abs=1e-12)
    weights = {"order:food": 1.0, "order:rides": 1.0, "visit:food": 0.1, "unsubscribed": -3.0}
    value = sum(weight * outcome(trial, name).lift.point for name, weight in weights.items())
    assert trial.comparisons[0].value.lift.point == pytest.approx(value, abs=1e-12)
    assert [one.service for one in trial.comparisons[0].outcomes] == ["", "food", "rides", "food", ""]
    assert outcome(trial, "unsubscribed").sign == -1


def test_arms_that_are_neither_declared_nor_compared_are_named():
    history = trial_history()
    arms = history.users["arm"].to_numpy(dtype=object).copy()
    assert not any("do not count" in note for note in read_trial(history, SETTINGS, GOALS).notes)
    arms[[0, 5]] = "agnet"
    trial = read_trial(history, SETTINGS, GOALS, arms=ArmTable(history.user_ids, arms))
    (note,) = (note for note in trial.notes if "do not count" in note)
    assert note.endswith("`agnet` 2")


def test_values_of_events_count_where_the_goal_says_so():
    history = trial_history()
    trial = read_trial(history, replace(SETTINGS, pre=None), (Goal("order:rides", measure="value"),))
    counted = read_trial(history, replace(SETTINGS, pre=None), (Goal("order:rides"),))
    assert len(trial.comparisons[0].outcomes) == 1  # one event alone is not added to itself
    assert trial.comparisons[0].value.means == pytest.approx(np.multiply(2, counted.comparisons[0].value.means))


def test_a_lift_is_found_where_it_is_and_covers_its_true_value():
    """Orders of food rise by 60 % in `agent`: 4.2 expected orders a user, 2.52 more. The other events do not change."""
    trial = read_trial(trial_history(1, users=4000, lift=0.6), SETTINGS, GOALS)
    food = outcome(trial, "order:food")
    assert food.significant
    assert food.direction == BETTER
    assert food.lift.low < 2.52 < food.lift.high
    assert food.relative.low < 0.6 < food.relative.high
    assert not outcome(trial, "order:rides").significant
    assert trial.verdict == BETTER
    assert food.variance_reduction > 0.3
    assert [check.passed for check in trial.checks] == [True] * 4
    holdout = trial.comparisons[2]
    assert holdout.name == "business_as_usual against holdout"
    assert not any(one.significant for one in holdout.outcomes)


def test_the_interval_over_all_looks_is_wider_than_that_of_one():
    trial = read_trial(trial_history(2), SETTINGS, GOALS)
    for one in trial.comparisons[0].outcomes:
        assert one.lift.high - one.lift.low > one.alone.high - one.alone.low
    assert [point.share for point in trial.comparisons[0].value.course] == [0.25, 0.5, 0.75, 1.0]
    assert trial.verdict == NOT_SHOWN


def test_before_the_end_the_trial_is_not_over():
    trial = read_trial(trial_history(2), SETTINGS, GOALS, at=START + 10 * DAY)
    assert trial.share == pytest.approx(10 / 28)
    assert len(trial.comparisons[0].value.course) == 2
    assert trial.verdict == NOT_YET
    first = read_trial(trial_history(2), SETTINGS, GOALS, at=START + 2 * DAY)
    assert not first.comparisons[0].value.lift.is_defined  # this look spends nothing
    assert first.comparisons[0].value.alone.is_defined
    once = read_trial(trial_history(2, lift=9.0), replace(SETTINGS, looks="once"), GOALS, at=START + 27 * DAY)
    assert once.verdict == NOT_YET
    assert not any(one.significant for one in once.comparisons[0].outcomes)


def test_what_happens_after_the_declared_end_does_not_count():
    short = replace(SETTINGS, days=14)
    whole = read_trial(trial_history(3), short, GOALS)
    cut = read_trial(trial_history(3), short, GOALS, at=START + 14 * DAY)
    assert whole.to_dict() == cut.to_dict()


def test_messages_and_cost_events_by_arm():
    trial = read_trial(trial_history(), SETTINGS, GOALS, costs=("visit:food",))
    by_name = {arm.arm: arm for arm in trial.arms}
    assert by_name["agent"].messages["all"].point == pytest.approx(0.3 * DAYS, rel=0.05)
    assert by_name["agent"].messages["push"].point == 0.0
    assert by_name["holdout"].messages["all"].point == 0.0
    assert by_name["holdout"].logged
    assert not by_name["business_as_usual"].logged  # what was sent to them is not in this log
    assert set(by_name["agent"].costs) == {"unsubscribed", "visit:food"}
    assert by_name["agent"].days == pytest.approx(DAYS)


def test_segments_are_exploratory_lifts_of_the_value():
    trial = read_trial(trial_history(4, users=2000, lift=0.5), SETTINGS, GOALS)
    segments = trial.comparisons[0].segments
    assert [one.level for one in segments] == ["north", "south"]
    assert sum(sum(one.users) for one in segments) == sum(trial.comparisons[0].value.course[-1].users)
    assert all(one.lift.low > 0 for one in segments)
    assert 0 <= segments[0].p_of_differences <= 1
    assert trial.comparisons[1].segments == ()


def previous(trial):
    content = json.loads(json.dumps(trial.to_dict(), allow_nan=False))
    return lambda start: read_past_looks(content, SETTINGS, start, "trial.json")


def test_looks_that_took_place_keep_what_they_found_and_had_to_reach():
    history = trial_history(5, lift=0.3)
    early = read_trial(history, SETTINGS, GOALS, at=START + 10 * DAY)
    later = read_trial(history, SETTINGS, GOALS, at=START + 20 * DAY, past=previous(early))
    shares = [point.share for point in later.comparisons[0].value.course]
    assert shares == pytest.approx([7 / 28, 10 / 28, 20 / 28])
    for old, new in zip(early.comparisons[0].outcomes, later.comparisons[0].outcomes, strict=True):
        assert [(p.z, p.critical) for p in new.course[:2]] == [(p.z, p.critical) for p in old.course]
    # A correction of the log changes neither what past looks found nor what they had to reach.
    kept = np.ones(len(history.events), dtype=bool)
    kept[::7] = False
    events = replace(
        history.events, **{name: getattr(history.events, name)[kept] for name in ("user", "time", "event", "value")}
    )
    corrected = (
        read_trial(replace(history, events=events), SETTINGS, GOALS, at=START + 20 * DAY, past=previous(early))
        .comparisons[0]
        .value
    )
    assert [(p.z, p.critical) for p in corrected.course[:2]] == [
        (p.z, p.critical) for p in early.comparisons[0].value.course
    ]
    assert corrected.course[2].z != later.comparisons[0].value.course[2].z
    # The same look again is the same look.
    again = read_trial(history, SETTINGS, GOALS, at=START + 20 * DAY, past=previous(later))
    assert again.comparisons == later.comparisons


def test_what_a_past_look_decided_stays_decided():
    history = trial_history(6, users=3000, lift=0.8)
    early = read_trial(history, SETTINGS, GOALS, at=START + 14 * DAY)
    assert outcome(early, "order:food").significant
    without = history.event_codes(["order:food"])
    kept = (history.events.event != without[0]) | (history.events.time < START)
    events = replace(
        history.events, **{name: getattr(history.events, name)[kept] for name in ("user", "time", "event", "value")}
    )
    late = read_trial(replace(history, events=events), SETTINGS, GOALS, past=previous(early))
    assert outcome(late, "order:food").significant
    assert outcome(late, "order:food").since == outcome(early, "order:food").since


def test_a_past_look_at_another_trial_is_refused():
    trial = read_trial(trial_history(7), SETTINGS, GOALS, at=START + 7 * DAY)
    content = trial.to_dict()
    with pytest.raises(ConfigError, match="another start, days"):
        read_past_looks(content, replace(SETTINGS, days=10), START + HOUR, "trial.json")
    with pytest.raises(ConfigError, match="not a readout"):
        read_past_looks({"format": "x"}, SETTINGS, START, "trial.json")
    del content["comparisons"][0]["outcomes"][0]["looks"]
    with pytest.raises(ConfigError, match="damaged"):
        read_past_looks(content, SETTINGS, START, "trial.json")


def test_users_who_join_during_the_trial_count_from_then_on():
    trial = read_trial(trial_history(8, joined=0.4), SETTINGS, GOALS)
    users = [sum(point.users) for point in trial.comparisons[0].value.course]
    assert users == sorted(users)
    assert users[0] < users[-1]
    assert any("entered after the start" in note for note in trial.notes)
    assert trial.arms[0].days < DAYS
    assert trial.verdict == NOT_SHOWN


def test_a_log_in_which_only_one_arm_is_seen_is_not_valid():
    """Users without a row were never observed: with rows of decisions, all of `agent` are in the log."""
    history = trial_history(9, users=2000)
    quiet = (history.users["arm"] == "business_as_usual") & (np.arange(2000) % 3 == 0)
    history = replace(history, observed_from=np.where(quiet, history.span[1], history.observed_from))
    trial = read_trial(history, SETTINGS, GOALS)
    assert trial.verdict == NOT_VALID
    assert next(check for check in trial.checks if check.invalidates and check.passed is False).name == "sample ratio"
    without_shares = read_trial(history, replace(SETTINGS, shares={}), GOALS)
    assert without_shares.verdict == NOT_VALID
    assert without_shares.checks[1].name == "entry into the trial"


def test_arms_that_differed_before_are_found():
    """Arms by how much users order: neither balance nor placebo can pass, whatever the lifts are."""
    history = trial_history(10, users=2000)
    before = np.bincount(history.events.user[history.events.time < START], minlength=2000)
    arm = np.where(before > np.median(before), "agent", "business_as_usual").astype(object)
    trial = read_trial(history, replace(SETTINGS, shares={}), GOALS, arms=ArmTable(history.user_ids, arm))
    passed = {check.name.partition(":")[0]: check.passed for check in trial.checks}
    assert passed["balance of the period before"] is False
    assert passed["balance of attributes"] is True
    assert trial.verdict == NOT_VALID


def test_an_attribute_that_treatment_changed_is_named_and_leaves_the_trial_valid():
    """The table of users is one of today: of the treated 10 % have unsubscribed, of the others 5 %."""
    history = trial_history(10, users=6000)
    agent = (history.users["arm"] == "agent").to_numpy()
    gone = np.random.default_rng(0).random(6000) < np.where(agent, 0.1, 0.05)
    users = history.users.assign(email=np.where(gone, "unsubscribed", "subscribed"))
    trial = read_trial(replace(history, users=users), SETTINGS, GOALS)
    check = next(check for check in trial.checks if check.name == "balance of attributes")
    assert (check.passed, check.invalidates) == (False, False)
    assert check.p_value < 1e-6
    assert "email" in check.finding
    assert "treatment changes" in check.remedy
    assert trial.verdict == read_trial(history, SETTINGS, GOALS).verdict != NOT_VALID


def test_arms_that_depend_on_the_day_are_not_valid():
    """Each decision has an arm of its own, so that no user is in any."""
    history = trial_history(20, arms_in="decisions")
    arms = np.array(["agent", "holdout"], dtype=object)[np.random.default_rng(0).integers(0, 2, len(history.decisions))]
    by_day = replace(history, decisions=replace(history.decisions, arm=arms))
    settings = replace(SETTINGS, shares={}, compare=("agent:holdout",))
    trial = read_trial(by_day, settings, GOALS)
    assert (trial.verdict, [c.name for c in trial.checks if c.invalidates]) == (NOT_VALID, ["stability of arms"])
    assert read_trial(history, settings, GOALS).verdict != NOT_VALID


def test_messages_to_users_held_out_are_noted():
    history = trial_history(21)
    d = history.decisions
    held = (history.users["arm"] == "holdout").to_numpy()[d.user]
    actions = d.actions.copy()
    actions[np.flatnonzero(held)[::5], 0] = 1
    settings = replace(SETTINGS, shares={})
    leaked = read_trial(replace(history, decisions=replace(d, actions=actions)), settings, GOALS)
    assert any("`holdout` got" in note for note in leaked.notes)
    assert not any("`holdout` got" in note for note in read_trial(history, settings, GOALS).notes)


def test_clusters_are_the_units_that_are_counted_and_compared():
    history = trial_history(11, users=2000)
    household = history.users["household"].to_numpy()
    names = np.array(["agent", "business_as_usual"], dtype=object)
    arm = names[np.random.default_rng(1).integers(0, 2, 1000)][household]
    settings = replace(SETTINGS, cluster="household", shares={"agent": 0.5, "business_as_usual": 0.5}, segments=())
    trial = read_trial(history, settings, GOALS, arms=ArmTable(history.user_ids, arm))
    assert trial.checks[0].finding.startswith("clusters: ")
    assert trial.verdict == NOT_SHOWN
    assert not any("clusters have users of several arms" in note for note in trial.notes)
    mixed = read_trial(history, replace(settings, compare=("agent:business_as_usual",)), GOALS)
    assert any("clusters have users of several arms" in note for note in mixed.notes)


def test_a_household_enters_the_check_of_entry_once():
    history = trial_history(18, users=1000, joined=0.3)
    settings = replace(SETTINGS, cluster="household", shares={})
    trial = read_trial(history, settings, GOALS)
    found = next(check for check in trial.checks if check.name == "entry into the trial").finding
    numbers = [int(text.replace(",", "")) for text in re.findall(r"[\d,]+(?= from| later| never)", found)]
    assert sum(numbers) == 500


def test_strata_change_no_lift_much_and_need_an_attribute():
    history = trial_history(12, users=2000)
    plain = read_trial(history, SETTINGS, GOALS).comparisons[0].value
    strata = read_trial(history, replace(SETTINGS, strata=("city",)), GOALS).comparisons[0].value
    assert abs(strata.lift.point - plain.lift.point) < plain.alone.se
    assert strata.alone.se == pytest.approx(plain.alone.se, rel=0.02)
    for setting in ("strata", "segments"):
        with pytest.raises(ConfigError, match=f"trial.{setting}: the users have no attribute 'town'"):
            read_trial(history, replace(SETTINGS, **{setting: ("town",)}), GOALS)


def test_a_confidence_sequence_counts_users_whose_follow_up_has_closed():
    settings = replace(SETTINGS, looks="confidence_sequence", follow_up="7d", segments=())
    history = trial_history(13, users=3000, joined=0.3, lift=0.8)
    trial = read_trial(history, settings, GOALS, at=START + 20 * DAY)
    course = trial.comparisons[0].value.course
    # All who were there at the start are followed by the first look, and who joins closes 7 days later.
    assert sum(course[0].users) == pytest.approx(0.9 * 0.7 * 3000, rel=0.1)
    assert sum(course[1].users) > sum(course[0].users)
    food = outcome(trial, "order:food")
    assert food.significant
    assert food.means[1] == pytest.approx(0.15 * 7, rel=0.2)
    assert food.lift.low < 0.8 * 0.15 * 7 < food.lift.high
    with pytest.raises(NotIdentified, match="fewer than two users"):
        read_trial(history, settings, GOALS, at=START + 5 * DAY)


def test_a_confidence_sequence_of_users_who_all_join_needs_a_planned_number():
    history = trial_history(14, joined=1.0)
    settings = replace(SETTINGS, looks="confidence_sequence", follow_up="7d")
    with pytest.raises(ConfigError, match=r"trial.planned_users"):
        read_trial(history, settings, GOALS)
    assert read_trial(history, replace(settings, planned_users=400), GOALS).planned_users == 400


def one_decision_history(seed=15, users=2000, lift=2.0):
    """A campaign that decides once a user, on one of ten days, in arms A and B; and its effect on the days after."""
    base = trial_history(seed, users=users, arms_in="nowhere")
    rng = np.random.default_rng(seed)
    user = np.arange(users)
    when = START + rng.integers(0, 10, users) * DAY + 6 * HOUR
    arm = np.array(["A", "B"], dtype=object)[rng.integers(0, 2, users)]
    more = rng.poisson(lift * (arm == "A"))
    who = np.repeat(user, more)
    events = base.events
    return type(base).from_arrays(
        type(base.decisions)(
            id=np.array([f"d{k}" for k in user], dtype=object),
            key=user.astype(np.uint64),
            user=user,
            time=when,
            actions=np.zeros((users, 2), dtype=np.int64),
            propensity=np.full((users, 2), np.nan),
            joint=np.full(users, np.nan),
            arm=arm,
        ),
        type(events)(
            user=np.append(events.user, who),
            time=np.append(events.time, when[who] + rng.integers(0, 5 * DAY, len(who))),
            event=np.append(events.event, np.zeros(len(who), dtype=np.int64)),
            value=np.append(events.value, np.ones(len(who))),
        ),
        modules=base.modules,
        user_ids=base.user_ids,
        event_names=base.event_names,
        span=base.span,
        observed_from=np.full(users, BEGIN),
        name="campaign",
    )


@pytest.mark.parametrize("looks", ["group_sequential", "confidence_sequence"])
def test_a_trial_of_one_decision_a_user(looks):
    history = one_decision_history()
    settings = TrialConfig(days=DAYS, every="7d", enrolment="first_decision", compare=("A:B",))
    if looks == "confidence_sequence":
        settings = replace(settings, looks=looks, follow_up="7d", planned_users=1000)
    trial = read_trial(history, settings, GOALS)
    food = outcome(trial, "order:food")
    assert trial.start == START + 6 * HOUR
    assert food.significant
    assert food.lift.low < 2.0 < food.lift.high
    assert food.course[0].users != (0, 0)
    assert trial.verdict == (BETTER if trial.comparisons[0].value.significant else trial.verdict)


def test_what_is_compared_must_be_in_the_log():
    with pytest.raises(ConfigError, match=r"trial\.goals.*: the history has no event 'order:taxi'"):
        read_trial(trial_history(), SETTINGS, (Goal("order:taxi"),))
    with pytest.raises(ConfigError, match="no attribute 'flat'"):
        read_trial(trial_history(), replace(SETTINGS, cluster="flat"), GOALS)
    with pytest.raises(ConfigError, match="after the end of the log"):
        read_trial(trial_history(), SETTINGS, GOALS, at=START + 90 * DAY)


def test_goals_of_the_trial_take_the_place_of_those_of_the_reward():
    trial = read_trial(trial_history(), replace(SETTINGS, goals=(Goal("visit:food", clip=3.0),)), GOALS)
    assert [one.name for one in trial.comparisons[0].outcomes] == ["visit:food"]
    assert any("do not apply" in note for note in trial.notes)


def test_the_readout_does_not_depend_on_the_order_of_users():
    history = trial_history(16)
    arms = ArmTable(history.user_ids, history.users["arm"].to_numpy(dtype=object))
    shuffled = ArmTable(arms.user_ids[::-1], arms.arms[::-1])
    assert (
        read_trial(history, SETTINGS, GOALS, arms=arms).to_dict()
        == read_trial(history, SETTINGS, GOALS, arms=shuffled).to_dict()
    )


def test_many_trials_of_one_log_are_decided_as_each_alone():
    """Four tables of arms on a log whose orders of food rise in `agent`: the same outcomes as in each readout."""
    history = trial_history(17, users=3000, lift=0.5)
    settings = replace(SETTINGS, shares={}, compare=("agent:business_as_usual",), segments=())
    rng = np.random.default_rng(17)
    names = np.array(["agent", "business_as_usual"], dtype=object)
    tables = [None, *(ArmTable(history.user_ids, names[rng.integers(0, 2, 3000)]) for _ in range(3))]
    found = significant_outcomes(history, settings, GOALS, tables)
    for table, significant in zip(tables, found, strict=True):
        trial = read_trial(history, settings, GOALS, arms=table)
        assert significant == {
            (one.treated, one.control, outcome.name)
            for one in trial.comparisons
            for outcome in one.outcomes
            if outcome.significant
        }
    assert ("agent", "business_as_usual", "order:food") in found[0]


def test_the_unit_of_the_weights_changes_no_decision():
    history = trial_history(19, lift=0.3)
    cents = tuple(replace(goal, weight=100 * goal.weight) for goal in GOALS)
    plain, scaled = (read_trial(history, SETTINGS, goals) for goals in (GOALS, cents))
    for one, other in zip(plain.comparisons[0].outcomes, scaled.comparisons[0].outcomes, strict=True):
        factor = 100 if one.name == "value" else 1
        assert other.lift.point == pytest.approx(factor * one.lift.point, rel=1e-10)
        assert [p.z for p in other.course] == pytest.approx([p.z for p in one.course], rel=1e-8)
        assert one.significant == other.significant
    assert plain.verdict == scaled.verdict


def test_a_log_of_another_year_gives_the_same_readout():
    """All times 366 days later: the same numbers, at other dates."""
    history, shift = trial_history(20, joined=0.3), 366 * DAY
    moved = replace(
        history,
        decisions=replace(history.decisions, time=history.decisions.time + shift),
        events=replace(history.events, time=history.events.time + shift),
        span=(history.span[0] + shift, history.span[1] + shift),
        observed_from=history.observed_from + shift,
        observed_until=history.observed_until + shift,
    )
    one = read_trial(history, SETTINGS, GOALS).comparisons[0].value
    other = read_trial(moved, replace(SETTINGS, start="2025-01-15"), GOALS).comparisons[0].value
    assert (one.lift, one.relative, one.p_value) == (other.lift, other.relative, other.p_value)
    assert [point.z for point in one.course] == [point.z for point in other.course]


def test_goal_events_that_were_delivered_twice_are_a_note():
    history = trial_history()
    events = history.events
    twice = take_rows(events, np.repeat(np.arange(len(events.time)), 2))
    trial = read_trial(replace(history, events=twice), SETTINGS, GOALS)
    assert any("follow one of the same user, name and value within a minute" in note for note in trial.notes)
    assert not any("within a minute" in note for note in read_trial(history, SETTINGS, GOALS).notes)
