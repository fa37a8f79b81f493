"""Shares of activity: by hand, strictly before, in any zone, and shrunk by what the truth asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, HOUR, SECOND, WEEK
from crosschannel.histories.context.activity import Activity, BlockHabits, WeekendHabits, block_of_day, weekend_time
from crosschannel.histories.context.columns import raw_columns
from crosschannel.histories.features import ContextFeatures, ContextSpec, Layout
from crosschannel.histories.history import DecisionLog, EventLog, History
from tests.samples import MODULES

HOURS = (6, 10, 14, 18, 22)
MONDAY = 4 * DAY  # 1970 began on a Thursday
SPEC = ContextSpec(windows=("1d",), messages=False, clock=False)


def log(user, time, slots, *, names=("visit",), event=None, days=28, start=MONDAY, users=None, observed_from=None):
    """A log of events, with decisions at (user, time)."""
    user, time = np.array(user, dtype=np.int64), np.array(time, dtype=np.int64)
    n_users = int(user.max()) + 1 if users is None else users
    who, when = (np.array(column, dtype=np.int64) for column in zip(*slots, strict=True))
    ids = np.array([f"d{i}" for i in range(len(who))], dtype=object)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=who,
            time=when,
            actions=np.zeros((len(who), 2), dtype=np.int64),
            propensity=np.full((len(who), 2), np.nan),
            joint=np.full(len(who), np.nan),
        ),
        EventLog(
            user=user,
            time=time,
            event=np.zeros(len(user), dtype=np.int64) if event is None else np.array(event, dtype=np.int64),
            value=np.ones(len(user)),
        ),
        modules=MODULES,
        user_ids=np.array([f"u{i:04d}" for i in range(n_users)], dtype=object),
        event_names=names,
        span=(start, start + days * DAY),
        observed_from=observed_from,
    )


def habits(seed, prior, users=2000, mean=20.0, days=28, shares=(0.1, 0.3, 0.2, 0.3, 0.1)):
    """A log of users whose own shares of the blocks are drawn from a Dirichlet distribution, and these shares."""
    rng = np.random.default_rng(seed)
    own = rng.dirichlet(prior * np.array(shares), users)
    count = rng.poisson(rng.gamma(1.0, mean, users))
    user = np.repeat(np.arange(users), count)
    block = (rng.random(len(user))[:, None] > np.cumsum(own, axis=1)[user]).sum(1).clip(max=4)
    length = np.array([4, 4, 4, 4, 8])[block] * HOUR
    hour = np.array(HOURS)[block] * HOUR + (rng.random(len(user)) * length).astype(np.int64)
    time = MONDAY + rng.integers(0, days, len(user)) * DAY + hour % DAY
    slots = [(u, MONDAY + days * DAY) for u in range(users)]
    return log(user, time, slots, users=users, days=days), own


def own_slots(history):
    return list(zip(history.decisions.user, history.decisions.time, strict=True))


def columns_of(history, activity, slots=None):
    layout = replace(Layout.build(replace(SPEC, blocks=(), weekend=()), history), activity=activity)
    d = history.decisions
    user, time = (d.user, d.time) if slots is None else (np.array(one) for one in zip(*slots, strict=True))
    return {name: column for name, column in raw_columns(layout, history, user, time) if name.startswith("share ")}


def by_hand(activity, history, user, time):
    """The columns of one user at one time, event by event."""
    table, own = history.events, []
    for u, t, e in zip(table.user, table.time, table.event, strict=True):
        if u == user and history.observed_from[u] <= t < time and history.event_names[e] in activity.events:
            own.append(int(t))
    zone = ZoneInfo(activity.time_zone)
    clocks = [datetime.fromtimestamp(t / SECOND, zone) for t in own]
    out = {}
    if activity.blocks:
        hours, k = activity.blocks.hours, activity.blocks.prior
        for b, begin in enumerate(hours):
            end = hours[(b + 1) % len(hours)]
            inside = sum((begin <= c.hour < end) if begin < end else (c.hour >= begin or c.hour < end) for c in clocks)
            out[f"share {begin:02d}-{end:02d}"] = (inside + k * activity.blocks.share[b]) / (len(own) + k)
    if activity.weekend:
        start = int(history.observed_from[user])
        observed = [datetime.fromtimestamp(h / SECOND, zone).weekday() for h in range(start, max(time, start), HOUR)]
        free = activity.weekend.ratio * sum(day in activity.weekend.days for day in observed)
        other = sum(day not in activity.weekend.days for day in observed)
        usual = free / (free + other) if observed else 0.0
        inside = sum(c.weekday() in activity.weekend.days for c in clocks)
        out["share weekend"] = (inside - len(own) * usual) / (len(own) + activity.weekend.prior)
    return out


ACTIVITY = Activity(
    ("visit",), "UTC", BlockHabits(HOURS, (0.1, 0.2, 0.3, 0.3, 0.1), 4.0), WeekendHabits((5, 6), 1.5, 3.0)
)


def test_shares_are_those_by_hand_and_strictly_before():
    day = MONDAY + np.arange(28) * DAY
    time = [day[0] + 7 * HOUR, day[0] + 23 * HOUR, day[2] + 2 * HOUR, day[5] + 12 * HOUR, day[5] + 12 * HOUR + 1]
    history = log([0] * 5, time, [(0, day[5] + 12 * HOUR), (0, day[5] + 12 * HOUR + 1), (0, day[0])], users=2)
    got = columns_of(history, ACTIVITY)
    order = np.argsort(history.decisions.time)
    # 3 events before day 5, 12:00, and 4 a microsecond later; two at night.
    assert got["share 06-10"][order].tolist() == [0.1, (1 + 0.4) / 7, (1 + 0.4) / 8]
    assert got["share 10-14"][order].tolist() == [0.2, (0 + 0.8) / 7, (1 + 0.8) / 8]
    assert got["share 22-06"][order].tolist() == [0.1, (2 + 0.4) / 7, (2 + 0.4) / 8]
    usual = 1.5 * 12 / (1.5 * 12 + 5 * 24)
    assert got["share weekend"][order[:2]] == pytest.approx([0.0, -3 * usual / 6], abs=1e-15)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_shares_are_those_by_hand_in_random_logs(seed, zone):
    rng = np.random.default_rng(seed)
    n, users, start = 300, 6, 19_783 * DAY  # clocks change in March 2024
    hours = tuple(sorted(rng.choice(24, rng.integers(2, 7), replace=False).tolist()))
    activity = Activity(
        ("visit", "order"),
        zone,
        BlockHabits(hours, tuple(rng.dirichlet(np.ones(len(hours))).tolist()), 2.5),
        WeekendHabits((4, 5), 0.7, 5.0),
    )
    time = start + rng.integers(0, 20 * DAY // HOUR, n) * HOUR
    slots = [
        (int(u), int(start + h * HOUR))
        for u, h in zip(rng.integers(0, users, 40), rng.integers(0, 480, 40), strict=True)
    ]
    history = log(
        rng.integers(0, users, n),
        time,
        slots,
        names=("order", "visit", "delivered"),
        event=rng.integers(0, 3, n),
        days=20,
        start=start,
        users=users,
        observed_from=start + rng.integers(0, 120, users) * HOUR,
    )
    got = columns_of(history, activity)
    for i, (user, at) in enumerate(zip(history.decisions.user.tolist(), history.decisions.time.tolist(), strict=True)):
        expected = by_hand(activity, history, user, at)
        assert list(got) == list(expected)
        # An hour that clocks skip or repeat is a part in 480 of the time of weekends.
        for name, value in expected.items():
            assert got[name][i] == pytest.approx(
                value, abs=0.02 if name == "share weekend" and zone != "UTC" else 1e-12
            )


def moments_by_hand(history, hours):
    """Usual shares and prior strength, pair by pair of events."""
    days = (history.span[1] - history.span[0]) // DAY
    own = {}
    for u, t in zip(history.events.user.tolist(), history.events.time.tolist(), strict=True):
        period = (t - history.span[0]) // DAY
        if period < days:
            own.setdefault(u, []).append((period, int(block_of_day(np.array([t]), hours)[0])))
    shares = {u: np.bincount([b for _, b in found], minlength=len(hours)) / len(found) for u, found in own.items()}
    several = [u for u, found in own.items() if len({period for period, _ in found}) > 1]
    same = [np.mean([a[1] == b[1] for a in own[u] for b in own[u] if a[0] != b[0]]) for u in several]
    two = np.mean([shares[u] @ shares[v] for u in several for v in several if u != v])
    return np.mean(list(shares.values()), axis=0), (1 - np.mean(same)) / (np.mean(same) - two)


def test_what_is_usual_is_found_pair_by_pair():
    history, _ = habits(0, prior=2.0, users=60, mean=6.0, days=9)
    history = replace(history, span=(history.span[0], history.span[1] - 5 * HOUR))
    fitted = Activity.fit(history, [0], HOURS, (), "UTC")
    share, prior = moments_by_hand(history, HOURS)
    assert fitted.weekend is None
    assert fitted.blocks.share == pytest.approx(share, abs=1e-8)
    assert fitted.blocks.prior == pytest.approx(prior, rel=1e-6)


@pytest.mark.parametrize("prior", [1.0, 8.0, 40.0])
def test_the_prior_is_that_of_the_dirichlet_distribution(prior):
    found = [Activity.fit(habits(seed, prior)[0], [0], HOURS, (), "UTC").blocks for seed in range(10)]
    strength = 1 / (1 + np.array([one.prior for one in found]))  # the intraclass correlation, which is unbiased
    assert abs(strength.mean() - 1 / (1 + prior)) < 4 * strength.std(ddof=1) / np.sqrt(len(found))
    share = np.array([one.share for one in found])
    error = share.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(share.mean(axis=0) - [0.1, 0.3, 0.2, 0.3, 0.1]) < 4 * error).all()


def test_shares_are_nearer_to_the_truth_than_raw_or_usual_ones():
    history, own = habits(3, prior=10.0)
    activity = Activity.fit(history, [0], HOURS, (), "UTC")
    shrunk = np.stack(list(columns_of(history, activity).values()), axis=1)
    count = np.bincount(history.events.user, minlength=len(own))
    block = block_of_day(history.events.time, HOURS)
    raw = np.zeros(own.shape)
    np.add.at(raw, (history.events.user, block), 1)
    raw /= np.maximum(count, 1)[:, None]
    error = [((one - own)[count > 0] ** 2).mean() for one in (shrunk, raw, np.array(activity.blocks.share)[None])]
    assert error[0] < 0.8 * min(error[1:])
    assert np.abs(shrunk.sum(1) - 1).max() < 1e-8
    few, many = (np.abs(shrunk - activity.blocks.share)[chosen].mean() for chosen in (count <= 2, count >= 40))
    assert few < 0.5 * many
    assert shrunk[count == 0] == pytest.approx(np.tile(activity.blocks.share, (int((count == 0).sum()), 1)), rel=1e-14)
    # The expected square error of the posterior mean is that of the Dirichlet posterior.
    expected = (1 - (np.array([0.1, 0.3, 0.2, 0.3, 0.1]) ** 2).sum()) * 10 / 11 / (count + 10)
    square = ((shrunk - own) ** 2).sum(1)
    assert abs((square - expected).mean()) < 4 * square.std() / np.sqrt(len(own))


def test_events_of_one_visit_are_no_habit():
    """Three events at once tell no more of a user than one: the prior is the same."""
    history, _ = habits(1, prior=6.0, users=500)
    three = replace(
        history,
        events=EventLog(*(np.repeat(getattr(history.events, f), 3) for f in ("user", "time", "event", "value"))),
    )
    one, other = (Activity.fit(h, [0], HOURS, (), "UTC").blocks for h in (history, three))
    assert other.prior == pytest.approx(one.prior, rel=1e-6)
    # All events of a user at once, each user once: nothing tells habits from chance.
    once = log(
        np.repeat(np.arange(200), 5), np.repeat(MONDAY + DAY + np.arange(200) * 7 * 60 * SECOND, 5), [(0, MONDAY)]
    )
    assert Activity.fit(once, [0], HOURS, (5, 6), "UTC") is None


def test_users_who_do_not_differ_have_no_columns():
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(60):
        user = rng.integers(0, 100, 1500)
        history = log(user, MONDAY + rng.integers(0, 28 * DAY, 1500), [(u, MONDAY + 28 * DAY) for u in range(100)])
        found += Activity.fit(history, [0], HOURS, (), "UTC") is not None
    # At two standard errors about 1.4 of 60 by chance; 7 or more have a probability of .001.
    assert found < 7


def test_weekends_are_told_from_other_days():
    """Half of the users are active on weekends three times as often as on other days, half a third as often."""
    rng = np.random.default_rng(2)
    users, days = 1500, 28
    factor = np.where(np.arange(users) % 2 == 0, 3.0, 1 / 3)
    weight = np.where(np.arange(days) % 7 >= 5, factor[:, None], 1.0)
    count = rng.poisson(0.6 * weight)
    user, day = (np.repeat(one.ravel(), count.ravel()) for one in np.indices(count.shape))
    history = log(
        user, MONDAY + day * DAY + rng.integers(0, DAY, len(user)), [(u, MONDAY + days * DAY) for u in range(users)]
    )
    fitted = Activity.fit(history, [0], HOURS, (5, 6), "UTC")
    assert fitted.blocks is None
    share = np.mean([3 * 2 / (3 * 2 + 5), 2 / 3 / (2 / 3 + 5)])
    assert fitted.weekend.ratio == pytest.approx(share / (1 - share) * 5 / 2, rel=0.03)
    column = columns_of(history, fitted)["share weekend"]
    assert column[::2].mean() > 0.12
    assert column[1::2].mean() < -0.12
    # Whoever has been observed on working days only is not less of a weekend's user for it.
    early = columns_of(history, fitted, [(u, MONDAY + 5 * DAY) for u in range(users)])["share weekend"]
    assert (early == 0).all()


def test_a_week_needs_two_weeks():
    history, _ = habits(0, prior=3.0, users=300, days=13)
    fitted = Activity.fit(history, [0], HOURS, (5, 6), "UTC")
    assert fitted.blocks is not None
    assert fitted.weekend is None


@pytest.mark.parametrize("days", [(5, 6), (4, 5), (0,), (6,)])
def test_weekend_time_adds_up_hours(days):
    hours = np.arange(-400, 400) * HOUR
    inside = [((hour // DAY) + 3) % 7 in days for hour in hours]
    assert np.array_equal(np.diff(weekend_time(hours, days)), np.array(inside[:-1]) * HOUR)
    assert weekend_time(np.array([WEEK + 5 * HOUR]), days) - weekend_time(np.array([5 * HOUR]), days) == len(days) * DAY


def test_blocks_divide_the_day():
    time = np.arange(-48, 48) * HOUR
    assert block_of_day(time, (6, 22)).tolist() == [
        1 if hour % 24 < 6 or hour % 24 >= 22 else 0 for hour in range(-48, 48)
    ]
    assert block_of_day(time, (0, 12)).tolist() == [hour % 24 // 12 for hour in range(-48, 48)]
    assert block_of_day(np.array([10 * HOUR - 1, 10 * HOUR]), HOURS).tolist() == [0, 1]


def test_a_zone_moves_blocks_as_its_clocks_do():
    history, _ = habits(4, prior=3.0, users=200)
    start = 19_786 * DAY  # Monday 2024-03-04; clocks change in Berlin on the 31st
    zone, utc = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")

    def moved(time, to_berlin):
        shown = [
            datetime.fromtimestamp((t - MONDAY + start) // SECOND, utc).replace(tzinfo=None) for t in time.tolist()
        ]
        return np.array([round(s.replace(tzinfo=zone if to_berlin else utc).timestamp()) * SECOND for s in shown])

    found = []
    for berlin in (False, True):
        e, d = history.events, history.decisions
        span = tuple(moved(np.array(history.span), berlin).tolist())
        here = log(
            e.user,
            moved(e.time, berlin),
            list(zip(d.user, moved(d.time, berlin), strict=True)),
            users=200,
            start=span[0],
        )
        activity = Activity.fit(here, [0], HOURS, (5, 6), "Europe/Berlin" if berlin else "UTC")
        found.append((activity.blocks.share, columns_of(here, activity)))
    assert found[0][0] == pytest.approx(found[1][0], abs=2e-3)  # events of the hour that the clocks skip
    for name, column in found[0][1].items():
        assert np.abs(column - found[1][1][name]).max() < 0.03
    wrong = Activity.fit(here, [0], HOURS, (), "UTC")
    assert np.abs(np.array(wrong.blocks.share) - found[0][0]).max() > 0.02


def test_dates_without_a_time_of_day_have_no_columns():
    history, _ = habits(0, prior=3.0, users=200)
    share = {"share 06-10", "share 10-14", "share 14-18", "share 18-22", "share 22-06"}
    assert share < set(ContextFeatures.fit(history, SPEC).names)
    e = history.events
    dates = log(e.user, e.time - e.time % DAY, own_slots(history), users=200)
    assert not any(name.startswith("share") for name in ContextFeatures.fit(dates, SPEC).names)
    assert Layout.build(SPEC, dates).activity is None
    with pytest.raises(ConfigError, match="`activity` has 'visit', whose times are dates"):
        ContextFeatures.fit(dates, replace(SPEC, activity=("visit",)))
    off = replace(SPEC, activity=("visit",), blocks=(), weekend=())
    assert Layout.build(off, dates).activity is None


def test_only_events_with_times_of_day_count_by_default():
    history, _ = habits(0, prior=3.0, users=200)
    e, slots = history.events, own_slots(history)
    user, time = np.tile(e.user, 2), np.concatenate([e.time, e.time - e.time % DAY])
    both = log(user, time, slots, names=("app", "shop"), event=np.repeat([0, 1], len(e.user)), users=200)
    assert Layout.build(SPEC, both).activity.events == ("app",)
    alone = columns_of(history, Activity.fit(history, [0], HOURS, (), "UTC"))
    for name, column in columns_of(both, Layout.build(replace(SPEC, weekend=()), both).activity).items():
        np.testing.assert_array_equal(column, alone[name])
    with pytest.raises(ConfigError, match="'shop'"):
        Layout.build(replace(SPEC, activity=("*",)), both)
    with pytest.raises(ConfigError, match=r"context\.activity: the history has no event 'visit'"):
        Layout.build(replace(SPEC, activity=("visit",)), both)


def test_which_events_show_activity_is_declared():
    history, _ = habits(0, prior=3.0, users=200)
    e, slots = history.events, own_slots(history)
    rng = np.random.default_rng(0)
    sent = np.arange(200).repeat(5), MONDAY + rng.integers(0, 28, 1000) * DAY + 12 * HOUR + rng.integers(1, HOUR, 1000)
    both = log(
        np.concatenate([e.user, sent[0]]),
        np.concatenate([e.time, sent[1]]),
        slots,
        names=("visit", "delivered"),
        event=np.repeat([0, 1], [len(e.user), 1000]),
        users=200,
    )
    everything = Layout.build(SPEC, both).activity
    assert everything.events == ("visit", "delivered")
    assert Layout.build(replace(SPEC, events=("visit",)), both).activity.events == ("visit",)
    chosen = Layout.build(replace(SPEC, activity=("visit*",)), both).activity
    assert chosen.events == ("visit",)
    assert chosen.blocks == Activity.fit(history, [0], HOURS, (), "UTC").blocks
    assert everything.blocks.share[1] > chosen.blocks.share[1] + 0.05
    assert Layout.build(replace(SPEC, activity=()), both).activity is None


def test_neither_the_order_of_rows_nor_other_users_nor_the_future_matter():
    history, _ = habits(6, prior=3.0, users=120)
    features = ContextFeatures.fit(history, SPEC)
    rng = np.random.default_rng(0)
    user, time = rng.integers(0, 120, 200), MONDAY + rng.integers(0, 20 * DAY, 200)
    whole = features.at(history, user, time)
    e = history.events
    shuffled = rng.permutation(len(e.user))
    again = log(e.user[shuffled], e.time[shuffled], own_slots(history), users=120)
    assert features.state_dict() == ContextFeatures.fit(again, SPEC).state_dict()
    np.testing.assert_array_equal(features.at(again, user, time), whole)
    past = e.time < MONDAY + 20 * DAY
    early = log(e.user[past], e.time[past], [(0, MONDAY)], users=120)
    np.testing.assert_array_equal(features.at(early, user, time), whole)
    some = np.arange(120) % 3 == 0
    code = np.cumsum(some) - 1
    mine = some[user]
    np.testing.assert_array_equal(features.at(history.select_users(some), code[user[mine]], time[mine]), whole[mine])


def test_events_before_a_user_s_observation_do_not_count():
    """The event that begins a user's observation would otherwise be in every user's share."""
    start = np.array([MONDAY + 7 * HOUR + 1, MONDAY])
    history = log(
        [0, 0, 1],
        [MONDAY + 7 * HOUR, MONDAY + 9 * HOUR, MONDAY + 7 * HOUR],
        [(0, MONDAY + DAY), (1, MONDAY + DAY), (0, MONDAY)],
        observed_from=start,
    )
    got = columns_of(history, ACTIVITY)["share 06-10"]
    order = np.lexsort((history.decisions.time, history.decisions.user))
    assert got[order].tolist() == [0.1, (1 + 0.4) / 5, (1 + 0.4) / 5]


def test_a_stored_state_gives_the_same_bits():
    history, _ = habits(0, prior=3.0, users=200)
    features = ContextFeatures.fit(history, replace(SPEC, time_zone="Europe/Berlin", clock=True))
    again = ContextFeatures.from_state_dict(json.loads(json.dumps(features.state_dict())))
    assert again.layout == features.layout
    np.testing.assert_array_equal(again.transform(history), features.transform(history))


def test_a_state_from_before_there_was_activity_is_read():
    history, _ = habits(0, prior=3.0, users=50)
    state = ContextFeatures.fit(history, replace(SPEC, blocks=(), weekend=())).state_dict()
    del state["layout"]["activity"], state["layout"]["time_zone"]
    assert ContextFeatures.from_state_dict(state).layout.activity is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": [0.5, 0.5]}, "do not have a share each"),
        ({"hours": [6, 10, 14, 22, 18]}, "do not have a share each"),
        ({"hours": [6, 10, 14, 18, 24]}, "do not have a share each"),
        ({"prior": 0.0}, "no positive weight"),
        ({"prior": float("nan")}, "no positive weight"),
        ({"share": [0.5, 0.5, 0.5, 0.5, -1.0]}, "no shares"),
        ({"hours": "abc"}, r"layout\.activity\.blocks\.hours: expected a list"),
    ],
)
def test_a_state_that_is_not_one_is_named(change, message):
    history, _ = habits(0, prior=3.0, users=200)
    state = json.loads(json.dumps(ContextFeatures.fit(history, SPEC).state_dict()))
    state["layout"]["activity"]["blocks"].update(change)
    with pytest.raises(ConfigError, match=message):
        ContextFeatures.from_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": (6,)}, "do not divide the day"),
        ({"blocks": (10, 6)}, "do not divide the day"),
        ({"blocks": (6, 6, 12)}, "do not divide the day"),
        ({"blocks": (0, 24)}, "do not divide the day"),
        ({"weekend": ("saturday", "saturday")}, "does not divide the week"),
        ({"weekend": ("caturday",)}, "does not divide the week"),
        (
            {"weekend": tuple(f"{d}day" for d in ("mon", "tues", "wednes", "thurs", "fri", "satur", "sun"))},
            "divide the week",
        ),
        ({"time_zone": "Mars/Olympus"}, "unknown time zone"),
    ],
)
def test_settings_that_divide_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ContextSpec(**settings)
