"""Panels from histories: who is treated when, who is left out and counted, and effects with a known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.histories.logs import take_rows
from crosschannel.reward import Goal, RewardSpec
from crosschannel.reward.effects.panels import panel_from_history
from crosschannel.reward.effects.staggered import NEVER, aggregate, group_time_effects
from tests.reward.simulated import SPEC, simulate
from tests.samples import MODULES, random_history

pytestmark = pytest.mark.numerics

SMALL = RewardSpec(goals=(Goal("order", 2.0, measure="value"),))


@pytest.mark.parametrize("others", ["censor", "leave_out", "keep"])
def test_periods_and_first_messages_equal_a_loop_over_users(others):
    history = random_history(1, users=80, send=0.08)
    built = panel_from_history(history, SMALL, "channel=email", "2d", others=others)
    d, e = history.decisions, history.events
    counts = dict.fromkeys(("treated", "censored", "never", "until", "already", "others"), 0)
    row = 0
    for user in range(history.n_users):
        mine = (d.user == user) & (d.actions[:, 0] > 0)
        periods = d.time // (2 * DAY) + 1
        email, other = periods[mine & (d.actions[:, 0] == 1)], periods[mine & (d.actions[:, 0] > 1)]
        first, until = (p.min() if len(p) else NEVER for p in (email, other))
        until = NEVER if others == "keep" else until
        if first < 2:
            counts["already"] += 1
            continue
        if until != NEVER and (others == "leave_out" or until <= 2):
            counts["others"] += 1
            continue
        first = first if first < until else NEVER
        counts["treated"] += first != NEVER
        counts["censored"] += first != NEVER and until != NEVER
        counts["never"] += first == NEVER and until == NEVER
        counts["until"] += first == NEVER and until != NEVER
        assert built.user[row] == user
        assert built.panel.first[row] == first
        for k in range(len(built.starts)):
            inside = (e.time >= k * 2 * DAY) & (e.time < (k + 1) * 2 * DAY) & (e.user == user) & (e.event == 0)
            expected = np.nan if k + 1 >= until else 2.0 * e.value[inside].sum()
            assert built.panel.outcome[row, k] == pytest.approx(expected, nan_ok=True)
        row += 1
    assert row == len(built.user)
    assert {name: getattr(built, f"n_{name}") for name in counts} == counts
    assert min(counts["treated"], counts["never"]) > 0
    if others == "censor":
        assert min(counts["censored"], counts["until"], counts["others"]) > 0
    assert f"{counts['others']:,} because of other messages" in built.summary()


def test_users_treated_before_the_panel_starts_are_left_out_and_counted():
    history = random_history(2, users=40, send=0.1)
    whole = panel_from_history(history, SMALL, None, "2d")
    later = panel_from_history(history, SMALL, None, "2d", start=4 * DAY)
    assert later.n_already > whole.n_already
    assert later.n_treated + later.n_never + later.n_already == history.n_users
    assert set(later.user.tolist()) < set(whole.user.tolist())


@pytest.mark.parametrize("control", ["never", "not_yet"])
def test_other_messages_leave_no_trace_in_the_effect(control):
    """A first push is worth 1 a period, an e-mail, sent to half of all users at any time, 10: censored, it is not seen.

    One log of 3,000 users: both truths are hundreds of errors apart, so 4 errors are a narrow gate that chance leaves
    once in 16,000.
    """
    history = two_messages(0)
    found = {}
    for others in ("censor", "keep"):
        built = panel_from_history(history, SMALL, "channel=push", "2d", others=others)
        found[others], _ = aggregate(group_time_effects(built.panel, control), "simple")
    assert abs(found["censor"].value - 2.0) < 4 * found["censor"].se  # weight 2
    assert found["censor"].se < 0.2
    assert abs(found["keep"].value - 2.0) > 4 * found["keep"].se


def two_messages(seed: int, users: int = 3000, periods: int = 8) -> History:
    """Orders of two-day periods: 5 plus noise, 1 more from a first push on, 10 more from an e-mail on.

    Pushes begin in period 4, 6 or never; e-mails at any time to a half of the users, later to those with a push.
    """
    rng = np.random.default_rng(seed)
    push = rng.choice([3, 5, NEVER], users)
    email = np.where(rng.random(users) < 0.5, rng.integers(2, periods, users), NEVER)
    email = np.where(push == NEVER, email, np.where(email == NEVER, NEVER, np.maximum(email, push + 1)))
    at = np.arange(periods)
    amount = 5.0 + rng.standard_normal((users, periods)) + (at >= push[:, None]) + 10.0 * (at >= email[:, None])
    user, period = np.divmod(np.arange(users * periods), periods)
    actions = np.where(period == push[user], 2, np.where(period == email[user], 1, 0))
    ids = np.arange(users * periods).astype(str).astype(object)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=2 * DAY * period,
            actions=np.stack([actions, np.zeros_like(actions)], axis=1),
            propensity=np.full((len(ids), 2), np.nan),
            joint=np.full(len(ids), np.nan),
        ),
        EventLog(user, 2 * DAY * period + DAY, np.zeros(len(user), dtype=np.int64), amount.reshape(-1)),
        modules=MODULES,
        user_ids=np.arange(users).astype(str).astype(object),
        event_names=("order",),
        span=(0, 2 * DAY * periods - 1),
    )


def test_first_messages_have_their_true_effect():
    """Each user's first message alone: 5-day periods that begin with the slot, a quarter of the level a message."""
    history = simulate(0, "random", users=3000, effect=4.0).history
    sent = history.modules.sends(history.decisions.actions)
    rank = np.cumsum(sent) - np.concatenate([[0], np.cumsum(sent)])[history.decision_offsets[history.decisions.user]]
    only = take_rows(history.decisions, ~sent | (rank == 1))
    built = panel_from_history(replace(history, decisions=only), SPEC, "channel=push", "5d")
    overall, entries = aggregate(group_time_effects(built.panel), "dynamic")
    at_once = next(e for e in entries if e.label == "0")
    assert abs(at_once.value - 1.9) < 3 * at_once.se  # mean level 1.9, effect 4 / 4 of it
    assert at_once.se < 0.4
    before = [e for e in entries if int(e.label) < 0]
    assert before
    assert all(abs(e.value) < 3.5 * e.se for e in before)
    assert overall.value > 0


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("chanel=push", "no module 'chanel'. Did you mean 'channel'"),
        ("channel=pus", "no action 'pus'. Did you mean 'push'"),
    ],
)
def test_unknown_choices_are_explained(choice, message):
    with pytest.raises(ConfigError, match=message):
        panel_from_history(random_history(1), SMALL, choice, "2d")


def test_a_log_of_one_period_is_not_identified():
    with pytest.raises(NotIdentified, match="fewer than two whole periods of 2w"):
        panel_from_history(random_history(1), SMALL, None, "2w")
