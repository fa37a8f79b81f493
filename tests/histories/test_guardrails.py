"""Guardrails against a slow loop over users, rule by rule, on random logs; what they see, and what they refuse."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.guardrails import Guardrails, allowed_actions, guarded_mask
from crosschannel.histories.history import DecisionLog, EventLog, History
from tests.envs.replay.samples import rewards_of, sample_history
from tests.samples import MODULES

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", None)
#: Three weeks around the last Sunday of March 2024, when Berlin's clocks go forward.
START = int(dt.datetime(2024, 3, 18, tzinfo=dt.UTC).timestamp()) * 1_000_000
WHEN = Module(
    "when", ("soon", "later", "any"), labels={"soon": {"send_from": 1}, "later": {"send_from": 9.5, "send_to": 13}}
)
CHANNEL, OFFER = Module("channel", ("none", "email", "push")), Module("offer", ("small", "summer"))
AT_ONCE, DELAYED = ActionSpace([CHANNEL, OFFER]), ActionSpace([CHANNEL, WHEN, OFFER])


def messages(seed: int, modules: ActionSpace, users: int = 12, slots: int = 60) -> History:
    """Slots on whole hours, so that gaps and weeks are often met exactly; attributes with holes."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, slots)
    time = START + rng.integers(0, 21 * 8, slots) * 3 * HOUR
    actions = modules.canonical(np.stack([rng.integers(0, size, slots) for size in modules.sizes], axis=1))
    ids = np.array([f"d{i}" for i in range(slots)], dtype=object)
    unknown = np.full((slots, len(modules)), np.nan)
    return History.from_arrays(
        DecisionLog(ids, keys(ids), user, time, actions, unknown, unknown[:, 0]),
        EventLog(user[:1], time[:1], np.zeros(1, dtype=np.int64), np.ones(1)),
        modules=modules,
        user_ids=np.array([f"u{i}" for i in range(users)], dtype=object),
        event_names=("order",),
        span=(START, START + 21 * DAY),
        users=pd.DataFrame(
            {
                "user_id": [f"u{i}" for i in range(users)],
                "tz": [ZONES[i] for i in rng.integers(0, len(ZONES), users)],
                "push_enabled": [(True, False, None)[i] for i in rng.integers(0, 3, users)],
                "mail": rng.random(users) < 0.7,
            }
        ),
    )


def slow(g: Guardrails, history: History, user: int, time: int) -> list[bool]:
    """The mask of one user at one time, by looking at one message after the other and at every minute of sending."""
    modules, d = history.modules, history.decisions
    earlier = [i for i in range(len(d)) if d.user[i] == user and d.time[i] < time and d.actions[i, 0] > 0]
    week = [i for i in earlier if time - d.time[i] < 7 * DAY]
    person = history.users.iloc[user]
    out = []
    for m, module in enumerate(modules):
        for code, action in enumerate(module.actions):
            ok = True
            if m == 0 and code > 0:
                if g.weekly_cap is not None:
                    ok &= len(week) < g.weekly_cap
                if action in g.weekly_caps:
                    ok &= sum(int(d.actions[i, 0] == code) for i in week) < g.weekly_caps[action]
                if g.min_gap is not None:
                    ok &= all(time - d.time[i] >= int(g.min_gap[:-1]) * HOUR for i in earlier)
                if action in g.reachable:
                    ok &= pd.notna(person[g.reachable[action]]) and bool(person[g.reachable[action]])
            moment = dt.datetime.fromtimestamp(time / 1_000_000, dt.UTC)
            if action in g.starts.get(module.name, {}):
                ok &= moment.date() >= dt.date.fromisoformat(g.starts[module.name][action])
            if action in g.ends.get(module.name, {}):
                ok &= moment.date() <= dt.date.fromisoformat(g.ends[module.name][action])
            labels, delayed = module.labels.get(action, {}), any(one.labels for one in modules)
            if g.quiet_hours is not None and ("send_from" in labels or (not delayed and m == 0 and code > 0)):
                hours = labels.get("send_from", 0)
                name = person[g.time_zone] if g.time_zone and pd.notna(person[g.time_zone]) else g.default_time_zone
                local = (moment + dt.timedelta(hours=hours)).astimezone(ZoneInfo(name))
                minute = local.hour * 60 + local.minute
                begin, end = (int(text[:2]) * 60 + int(text[3:]) for text in g.quiet_hours)
                quiet = {(begin + k) % 1440 for k in range((end - begin) % 1440)}
                minutes = max(1, round((labels.get("send_to", hours) - hours) * 60))
                ok &= not any((minute + k) % 1440 in quiet for k in range(minutes))
            out.append(bool(ok) or (m == 0 and code == 0))
    return out


CLOCK = st.sampled_from(["00:00", "06:30", "08:00", "12:00", "21:00", "23:30"])
RULES = {
    "weekly cap": st.builds(Guardrails, weekly_cap=st.integers(0, 4)),
    "channel caps": st.builds(
        Guardrails, weekly_caps=st.dictionaries(st.sampled_from(["email", "push"]), st.integers(0, 3))
    ),
    "minimum gap": st.builds(Guardrails, min_gap=st.sampled_from(["3h", "24h", "72h", "500h"])),
    "quiet hours": st.builds(
        Guardrails,
        quiet_hours=st.tuples(CLOCK, CLOCK).filter(lambda pair: pair[0] != pair[1]),
        time_zone=st.sampled_from([None, "tz"]),
        default_time_zone=st.sampled_from(["UTC", "Asia/Tokyo"]),
    ),
    "reachability": st.builds(
        Guardrails, reachable=st.sampled_from([{"push": "push_enabled"}, {"push": "push_enabled", "email": "mail"}])
    ),
    "dates": st.builds(
        Guardrails,
        starts=st.sampled_from([{}, {"offer": {"summer": "2024-03-25"}}, {"channel": {"push": "2024-03-20"}}]),
        ends=st.sampled_from([{}, {"offer": {"summer": "2024-04-02"}}, {"channel": {"push": "2024-03-28"}}]),
    ),
}
ALL = st.builds(
    Guardrails,
    weekly_cap=st.sampled_from([None, 2]),
    weekly_caps=st.sampled_from([{}, {"push": 1}]),
    min_gap=st.sampled_from([None, "48h"]),
    quiet_hours=st.sampled_from([None, ("21:00", "08:00")]),
    time_zone=st.just("tz"),
    reachable=st.sampled_from([{}, {"email": "mail"}]),
    starts=st.sampled_from([{}, {"offer": {"summer": "2024-03-25"}}]),
)


@pytest.mark.parametrize("rule", [*RULES, "all together"])
@pytest.mark.parametrize("modules", [AT_ONCE, DELAYED], ids=["sent at the slot", "sent later"])
def test_each_rule_equals_a_loop_over_users(rule, modules):
    held_back = []

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(guardrails=RULES.get(rule, ALL), seed=st.integers(0, 10**6))
    def check(guardrails, seed):
        history = messages(seed, modules)
        rng = np.random.default_rng(seed)
        user = np.concatenate([history.decisions.user, rng.integers(0, 12, 20)])
        time = np.concatenate([history.decisions.time, START + rng.integers(0, 200, 20) * 3 * HOUR])
        mask = allowed_actions(guardrails, history, user, time)
        assert mask.tolist() == [slow(guardrails, history, int(u), int(t)) for u, t in zip(user, time, strict=True)]
        held_back.append(1 - mask.mean())

    check()
    assert max(held_back) > 0


def test_without_a_setting_everything_is_eligible():
    history = messages(0, DELAYED)
    assert allowed_actions(Guardrails(), history, history.decisions.user, history.decisions.time).all()


def test_what_is_decided_at_a_slot_or_later_does_not_change_its_mask():
    guardrails = Guardrails(weekly_cap=2, weekly_caps={"push": 1}, min_gap="24h", quiet_hours=("21:00", "08:00"))
    checked = 0
    for seed in range(20):
        history = messages(seed, AT_ONCE)
        d, rng = history.decisions, np.random.default_rng(seed)
        t = int(d.time[rng.integers(len(d))])
        actions = d.actions.copy()
        actions[d.time >= t] = AT_ONCE.canonical(rng.integers(0, 2, (int((d.time >= t).sum()), 2)))
        other = replace(history, decisions=replace(d, actions=actions))
        rows = d.time <= t
        masks = [allowed_actions(guardrails, h, d.user[rows], d.time[rows]) for h in (history, other)]
        assert masks[0].tobytes() == masks[1].tobytes()
        checked += int((actions != d.actions).any())
    assert checked > 10


def test_all_users_at_one_time_count_the_message_of_their_last_slot():
    history = messages(3, AT_ONCE)
    d, users = history.decisions, np.arange(history.n_users)
    row = int(np.flatnonzero(d.actions[:, 0] > 0)[-1])
    user, time = int(d.user[row]), int(d.time[row])
    gap = Guardrails(min_gap="3h")

    def may_send(at):
        return allowed_actions(gap, history, users, np.full(len(users), at))[user, 1]

    assert not may_send(time + 1)
    assert not may_send(time + 3 * HOUR - 1)
    later = d.time[(d.user == user) & (d.actions[:, 0] > 0) & (d.time > time)]
    assert len(later) == 0
    assert may_send(time + 3 * HOUR)


def test_they_narrow_what_the_log_says_and_the_replay_shows_it():
    history = sample_history(5)
    users = pd.DataFrame({"user_id": history.user_ids, "push_ok": np.arange(history.n_users) % 2 == 0})
    history = replace(history, users=users)
    guardrails = Guardrails(weekly_cap=1, reachable={"push": "push_ok"})
    rewards, features = rewards_of(history), ContextFeatures.fit(history)
    free = ReplayLog.build(history, rewards, features)
    log = ReplayLog.build(history, rewards, features, guardrails=guardrails)
    mask = guarded_mask(guardrails, history)
    np.testing.assert_array_equal(log.action_mask, mask[log.decision_row])
    assert not (log.action_mask & ~free.action_mask).any()
    assert log.action_mask.sum() < free.action_mask.sum()
    unreachable = np.isin(log.user_ids[log.user], history.user_ids[1::2])
    assert not log.action_mask[unreachable, 2].any()
    assert log.action_mask[~unreachable, 2].any()
    offer = MODULES.slices[1].start
    channel, kind = history.decisions.actions[log.decision_row].T
    seen = mask[log.decision_row]
    rows = np.arange(len(log))
    broken = int((~(seen[rows, channel] & ((channel == 0) | seen[rows, offer + kind]))).sum())
    assert log.outside == broken > 0
    assert f"{broken:,} logged actions are not eligible" in log.summary()
    assert "not eligible" not in free.summary()


def test_a_child_without_a_date_takes_its_parents_action_out():
    modules = ActionSpace(
        [
            Module("channel", ("none", "push")),
            Module("kind", ("sale", "news")),
            Module("text", ("sale_a", "sale_b", "news_a"), parent="kind", requires=("sale", "sale", "news")),
        ]
    )
    history = messages(1, AT_ONCE)
    d = history.decisions
    actions = np.zeros((len(d), 3), dtype=np.int64)
    history = replace(history, modules=modules, decisions=replace(d, actions=actions))
    guardrails = Guardrails(ends={"text": {"sale_a": "2024-01-01", "sale_b": "2024-01-01"}})
    assert guarded_mask(guardrails, history).tolist() == [[True, True, False, True, False, False, True]] * len(d)
    nothing = Guardrails(ends={"text": dict.fromkeys(("sale_a", "sale_b", "news_a"), "2024-01-01")})
    assert guarded_mask(nothing, history)[:, :2].tolist() == [[True, False]] * len(d)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"weekly_cap": -1}, "weekly_cap is -1"),
        ({"weekly_caps": {"push": -2}}, r"weekly_caps\.push is -2"),
        ({"min_gap": "a day"}, "'a day' is not a duration"),
        ({"quiet_hours": ("21", "08:00")}, r"'21' is not a time of day: write it as \"21:00\""),
        ({"quiet_hours": ("25:00", "08:00")}, "'25:00' is not a time of day"),
        ({"quiet_hours": ("08:00", "08:00")}, "are empty"),
        ({"default_time_zone": "Mars/Base"}, "unknown time zone 'Mars/Base'"),
        ({"starts": {"offer": {"summer": "June"}}}, r"starts\.offer\.summer: 'June' is not a day"),
        ({"weekly_caps": {"pushh": 1}}, r"weekly_caps: 'channel' has no action 'pushh'\. Did you mean 'push'"),
        ({"ends": {"ofer": {"summer": "2024-06-01"}}}, r"ends: there is no module 'ofer'\. Did you mean 'offer'"),
        ({"reachable": {"push": "push_enable"}}, r"no attribute 'push_enable'\. Did you mean 'push_enabled'"),
        ({"reachable": {"push": "tz"}}, "attribute 'tz' of user 'u.*' is '.*it must be true or false"),
        ({"time_zone": "zone", "quiet_hours": ("21:00", "08:00")}, "no attribute 'zone'"),
        ({"time_zone": "user_id", "quiet_hours": ("21:00", "08:00")}, "'user_id' of user 'u0': unknown time zone 'u0'"),
    ],
)
def test_what_is_wrong_is_named(settings_, message):
    history = messages(0, AT_ONCE)
    with pytest.raises(ConfigError, match=message):
        allowed_actions(Guardrails(**settings_), history, history.decisions.user, history.decisions.time)
