"""Each rule gives an alert where it must, and none where nothing is wrong; the sequential rule keeps its level."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, HOUR
from crosschannel.evaluation.trials.settings import TrialConfig
from crosschannel.histories.arms import Arms, assign_arms
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.pipeline.configuration import Config, load_config
from crosschannel.pipeline.watch.checking import check_alerts, write_alerts
from crosschannel.pipeline.watch.records import Alert
from crosschannel.pipeline.watch.settings import AlertsConfig
from crosschannel.pipeline.watch.statistical_rules import cost_events
from tests.pipeline.watch.samples import SETTINGS, START, World, deployment

RULES = {
    "age of the log": "max_log_age",
    "decisions": "max_drop",
    "share of an action": "max_action_share",
    "importance weights": "weights_alpha",
    "cost events": "cost_alpha",
    "placebo": "placebo_alpha",
    "rewards": "max_closed_drop",
    "deliveries": "min_delivered_share",
}


def config(**alerts: object) -> Config:
    rules = {f"alerts.{name}": value for name, value in alerts.items()}
    return load_config("market", {**SETTINGS, "history.path": "log", **rules})


def check(history: History, now: int | None = None, settings: Config | None = None) -> dict[str, list[Alert]]:
    """Check a log an hour after its last decisions; return the alerts by rule."""
    now = history.span[1] - DAY + HOUR if now is None else now
    found = check_alerts(settings or config(), history, now, DAY)
    assert set(found.checked) | set(found.not_checked) == set(RULES)
    return {rule: [one for one in found.alerts if one.rule == rule] for rule in RULES}


def fired(history: History, now: int | None = None, settings: Config | None = None) -> set[str]:
    return {rule for rule, alerts in check(history, now, settings).items() if alerts}


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_wrong_where_nothing_is(seed: int) -> None:
    history = deployment(seed=seed)
    found = check_alerts(config(), history, history.span[1] - DAY + HOUR, DAY)
    assert found.alerts == ()
    assert found.not_checked == {}


def test_an_old_log() -> None:
    history = deployment()
    end = history.span[1]
    assert "age of the log" not in fired(history, end + 2 * DAY)
    (alert,) = check(history, end + 2 * DAY + 1)["age of the log"]
    assert "2.0 days" in alert.finding


def test_no_decisions_and_fewer_decisions() -> None:
    history = deployment()
    newest = int(history.decisions.time.max())
    assert "decisions" not in fired(history, newest + DAY - 1)
    assert "no decisions since" in check(history, newest + DAY)["decisions"][0].finding
    fewer = (1.0,) * 7
    assert "decisions" not in fired(deployment(World(keep=(*fewer, 0.6))))
    (alert,) = check(deployment(World(keep=(*fewer, 0.3))))["decisions"]
    assert "a drop of 6" in alert.finding or "a drop of 7" in alert.finding
    usual = replace(history.decisions, policy=np.full(len(history.decisions), "campaign", dtype=object))
    (alert,) = check(replace(history, decisions=usual))["decisions"]
    assert "not decided anything" in alert.finding


def test_no_message_after_some() -> None:
    (alert,) = check(deployment(World(last_channel=(1.0, 0.0, 0.0))))["decisions"]
    assert alert.finding.startswith("None of ")


def test_one_whole_action_takes_all() -> None:
    (alert,) = check(deployment(World(users=1200, last_channel=(0.1, 0.9, 0.0), tone=1.0)))["share of an action"]
    assert alert.finding.startswith("`email, funny` is the action of ")
    assert alert.severity == "warning"


@pytest.mark.parametrize("world", [World(last_channel=(0.1, 0.9, 0.0)), World(users=1200, tone=1.0)])
def test_one_module_may_have_one_action_nearly_always(world: World) -> None:
    """A module of two actions with a floor of .01 may rightly reach 99.5 % of one, if the messages differ otherwise."""
    assert "share of an action" not in fired(deployment(world))


def test_an_action_without_an_alternative_may_take_all() -> None:
    history = deployment(World(users=1200, last_channel=(0.1, 0.9, 0.0), tone=1.0))
    assert "share of an action" in fired(history)
    eligible = np.array(history.eligible)
    eligible[:, [2, 3]] = False
    eligible[np.arange(len(eligible)), history.decisions.actions[:, 0]] = True
    only_email = replace(history, decisions=replace(history.decisions, eligible=eligible))
    assert "share of an action" not in fired(only_email)


def test_a_few_messages_of_one_action_are_chance() -> None:
    """Twenty messages of a channel whose share is .95 are all of it in 36 % of days."""
    assert "share of an action" not in fired(deployment(World(users=60, last_channel=(0.3, 0.7, 0.0), tone=1.0)))


@pytest.mark.parametrize("logged", [(0.5, 0.2, 0.3), (0.3, 0.5, 0.2), (0.8, 0.1, 0.1)])
def test_propensities_that_are_not_those_of_the_draws(logged: tuple[float, ...]) -> None:
    found = check(deployment(World(users=3000, logged=logged)))["importance weights"]
    assert len(found) == World().days  # each policy version is tested on its own
    assert all(one.severity == "critical" for one in found)


def test_only_the_version_with_wrong_propensities_is_named() -> None:
    right, wrong = deployment(World(users=3000)), deployment(World(users=3000, logged=(0.8, 0.1, 0.1)))
    last = right.decisions.time == right.decisions.time.max()
    p = np.where(last[:, None], wrong.decisions.propensity, right.decisions.propensity)
    history = right.with_propensities(p, p.prod(axis=1), "logged")
    (alert,) = check(history)["importance weights"]
    assert f"policy {7:012x} " in alert.finding


def test_propensities_of_rare_and_of_impossible_actions_are_not_wrong() -> None:
    """A policy may give an eligible action no probability: the mean weight of the others is 1 nonetheless."""
    for channel in ((0.5, 0.5, 0.0), (0.985, 0.01, 0.005)):
        assert "importance weights" not in fired(deployment(World(users=2000, channel=channel)))


def test_more_unsubscribes_than_business_as_usual() -> None:
    (alert,) = check(deployment(World(unsubscribes=(0.04, 0.002, 0.002))))["cost events"]
    assert "`unsubscribed` is more frequent" in alert.finding
    assert "cost events" not in fired(deployment(World(unsubscribes=(0.002, 0.04, 0.002))))
    other = config(cost_events=("bounced",))
    assert "cost events" not in fired(deployment(World(unsubscribes=(0.04, 0.002, 0.002))), settings=other)


def test_arms_that_differed_before_the_start() -> None:
    names = [one.finding for one in check(deployment(World(order_factor=0.6)))["placebo"]]
    assert any("balance of the period before" in name for name in names)


def test_arms_without_their_shares() -> None:
    settings = replace(config(), trial=TrialConfig(shares={"agent": 0.5, "business_as_usual": 0.3, "holdout": 0.2}))
    assert "placebo" not in fired(deployment(), settings=settings)
    (alert,) = check(deployment(shares=(0.4, 0.4, 0.2)), settings=settings)["placebo"]
    assert "sample ratio" in alert.finding
    assert alert.severity == "critical"


def test_a_policy_that_answers_events_fails_the_placebo_in_time_without_arms() -> None:
    """Without arms the reward's own placebo is tested: users who are sent something ordered more before."""
    history = deployment(World(users=1500, days=14, orders=0.2), shares=(1.0, 0.0, 0.0))
    alone = replace(config(), reward=replace(config().reward, controls="not_sent", overlap="shared"))
    found = check_alerts(alone, history, history.span[1], DAY)
    assert "placebo" in found.checked, found.not_checked
    assert "placebo" not in {one.rule for one in found.alerts}
    d, e = history.decisions, history.events
    # Users who will be sent something had orders three days before, and nobody else had.
    sent = np.flatnonzero(history.modules.sends(d.actions))
    rows = sent[d.time[sent] - START > 5 * DAY]
    extra = type(e)(
        user=np.concatenate([e.user, d.user[rows]]),
        time=np.concatenate([e.time, d.time[rows] - 3 * DAY + np.random.default_rng(0).integers(1, DAY, len(rows))]),
        event=np.concatenate([e.event, np.zeros(len(rows), dtype=np.int64)]),
        value=np.ones(len(e) + len(rows)),
    )
    order = np.lexsort((extra.time, extra.user))
    moved = replace(history, events=take_rows(extra, order))
    (alert,) = check(moved, settings=alone)["placebo"]
    assert "before the messages" in alert.finding


def test_rewards_that_stop_closing() -> None:
    history = deployment()
    assert "rewards" not in fired(history)
    few = config()
    # From the newest closed day on the holdout has no decisions, and so messages have no controls.
    strict = replace(few, reward=replace(few.reward, controls="holdout", holdout_arms=("holdout",)))
    d = history.decisions
    last = np.unique(d.time)[-3]
    gone = (d.arm == "holdout") & (d.time >= last)
    without = replace(history, decisions=take_rows(d, ~gone))
    assert "rewards" not in fired(history, settings=strict)
    (alert,) = check(without, settings=strict)["rewards"]
    assert "`reward.controls: holdout`" in alert.remedy
    assert "0 of " in alert.finding
    assert "The others, above all: too few controls in the time bucket (" in alert.finding


def test_messages_that_are_not_delivered() -> None:
    assert "deliveries" not in fired(deployment(World(delivered=0.85)))
    found = check(deployment(World(delivered=0.7)))["deliveries"]
    assert [one.finding.split(" messages")[0].split()[-1] for one in found] == ["of", "of", "all"] or len(found) == 3
    off = check_alerts(config(delivered=(), failed=()), deployment(), START + 16 * DAY, DAY)
    assert "no event tells" in off.not_checked["deliveries"]


def test_events_of_deliveries_that_never_came() -> None:
    (alert,) = check(deployment(), settings=config(delivered=("arrived",), failed=()))["deliveries"]
    assert "none of the events arrived" in alert.finding
    # A failure that never happened is not a fault.
    assert "deliveries" not in fired(deployment(), settings=config(delivered=(), failed=("blocked",)))


@pytest.mark.parametrize(("rule", "setting"), RULES.items())
def test_each_rule_can_be_switched_off(rule: str, setting: str) -> None:
    history = deployment(World(users=100, days=3))
    found = check_alerts(config(**{setting: None}), history, history.span[1] + 9 * DAY, DAY)
    assert found.not_checked[rule] == "switched off"
    assert rule not in found.checked
    assert rule not in {one.rule for one in found.alerts}


def test_a_log_that_ended_long_ago_is_an_alert_and_no_error() -> None:
    history = deployment(World(users=100, days=3))
    found = check_alerts(config(), history, history.span[1] + 100 * DAY, DAY)
    assert {one.rule for one in found.alerts} == {"age of the log", "decisions"}
    assert "before the window" in found.not_checked["rewards"]
    alone = deployment(World(users=100, days=3), shares=(1.0, 0.0, 0.0))
    assert "before the window" in check_alerts(config(), alone, history.span[1] + 100 * DAY, DAY).not_checked["placebo"]


def test_arms_by_hash_without_rows_of_business_as_usual() -> None:
    """The other system's log may have no decisions: its users are known by the hash of their ids."""
    settings = replace(config(), arms=Arms(holdout=0.2, business_as_usual=0.3))
    arm = assign_arms(deployment().user_ids, settings.arms)
    history = deployment(World(unsubscribes=(1e-9, 1e-9, 1e-9)))
    d, e = history.decisions, history.events
    rows = np.flatnonzero(arm == "agent")[::4]
    gone = replace(
        e,
        user=np.append(e.user, rows),
        time=np.append(e.time, np.full(len(rows), int(d.time.max()) - DAY)),
        event=np.append(e.event, np.full(len(rows), 2)),
        value=np.append(e.value, np.ones(len(rows))),
    )
    mine = arm[d.user] == "agent"
    decisions = replace(d, arm=arm[d.user], policy=np.where(mine, "0123456789ab", "campaign").astype(object))
    changed = replace(
        history,
        decisions=take_rows(decisions, mine),
        events=take_rows(gone, np.lexsort((gone.time, gone.user))),
    )
    found = check_alerts(settings, changed, history.span[1], DAY)
    assert "cost events" in {one.rule for one in found.alerts}


def test_what_came_later_than_the_check_does_not_count() -> None:
    history = deployment(World(keep=(1.0,) * 7 + (0.1,)))
    newest = int(history.decisions.time.max())
    assert "decisions" in fired(history, newest)
    assert "decisions" not in fired(history, newest - 1)


def test_what_is_written_is_what_was_found(tmp_path) -> None:
    history = deployment()
    found = check_alerts(config(), history, history.span[1] + 9 * DAY, DAY)
    content = json.loads(write_alerts(found, tmp_path).read_text())
    assert content["version"] == 1
    assert [one["rule"] for one in content["alerts"]] == [one.rule for one in found.alerts]
    assert [one["severity"] for one in content["alerts"]] == sorted(one.severity for one in found.alerts)
    for alert in found.alerts:
        assert alert.finding in str(found)
        assert alert.remedy in str(found)


@pytest.mark.parametrize("setting", ["max_drop", "max_action_share", "weights_alpha", "cost_alpha", "placebo_alpha"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1])
def test_bounds_that_are_no_shares_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=setting):
        AlertsConfig(**{setting: value})


def false_alarms(seeds: int, days: int = 28, users: int = 400, alpha: float = 0.05) -> int:
    """Count trials without a difference that give an alert on any of their days, by the looks of the last one.

    A look keeps what it found: the boundaries of the last day are those of all days.
    """
    number = 0
    for seed in range(100, 100 + seeds):
        world = World(users=users, days=days, before=2, orders=0.01, unsubscribes=(0.01, 0.01, 0.01), delivered=1.0)
        history = deployment(world, seed, (0.5, 0.5, 0.0))
        trial = TrialConfig(start=str(np.datetime64(START + 2 * DAY, "us")), days=days, pre=None)
        number += bool(cost_events(history, history.span[1], trial, ("unsubscribed",), alpha))
    return number


@pytest.mark.parametrize("seeds", [20, pytest.param(600, marks=pytest.mark.slow)])
def test_the_sequential_rule_keeps_its_level_over_all_days(seeds: int) -> None:
    """False alarms are at most alpha, within the binomial error of so many trials (99.9 %)."""
    number = false_alarms(seeds)
    assert number <= binom.ppf(0.999, seeds, 0.05)


def test_an_alarm_stays_and_is_as_early_as_the_difference_is_large() -> None:
    world = World(users=1000, days=14, before=2, unsubscribes=(0.05, 0.01, 0.01))
    history = deployment(world, shares=(0.5, 0.5, 0.0))
    trial = TrialConfig(start=str(np.datetime64(START + 2 * DAY, "us")), days=14, pre=None)
    start = START + 2 * DAY
    alarms = [bool(cost_events(history, start + k * DAY, trial, ("unsubscribed",), 0.05)) for k in (1, 7, 14)]
    assert alarms == [False, True, True]
