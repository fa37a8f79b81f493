"""Propensities are tested within levels of past activity, except where one draw lasts over several decisions."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import InputError
from crosschannel.core.times import DAY
from crosschannel.histories.history import History
from crosschannel.histories.propensities.checks import check_propensities
from crosschannel.histories.propensities.groups import draws_last, past_groups
from tests.reward.effects.checks.logs import after_a_quiet_day, at_random, by_level, daily_log


def with_overall_rates(history: History) -> History:
    """Log the share of the decisions at which something was sent, as if everybody got messages alike."""
    sent = history.modules.sends(history.decisions.actions)
    p = np.where(sent, sent.mean(), 1.0 - sent.mean())
    return history.with_propensities(p[:, None], p, "logged")


def test_overall_rates_of_messages_to_the_active_are_refused() -> None:
    history = daily_log(0, by_level)
    assert check_propensities(history).contradictions == ()
    with pytest.raises(InputError, match="events of the user in the week before"):
        check_propensities(with_overall_rates(history)).refuse_contradictions()


def test_right_propensities_are_accepted_whatever_messages_answer_and_do() -> None:
    for seed in range(10):
        for rule in (at_random, by_level, after_a_quiet_day):
            assert check_propensities(daily_log(seed, rule, effect=1.0, users=100)).contradictions == ()


def test_a_draw_that_lasts_a_week_is_accepted() -> None:
    """Each user draws once a week with the logged probability, and messages double what users do."""

    def rule(day: int, sent: np.ndarray, orders: np.ndarray, level: np.ndarray) -> np.ndarray:
        draw = np.random.default_rng(day // 7).random(len(level)) < 0.4
        return draw.astype(float)

    history = daily_log(0, rule, effect=2.0, days=28)
    sent = history.modules.sends(history.decisions.actions)
    p = np.where(sent, 0.4, 0.6)
    drawn = history.with_propensities(p[:, None], p, "logged")
    assert draws_last(drawn.decisions.user, drawn.decisions.actions[:, 0])
    assert past_groups(drawn).labels == ()
    assert not any("events of the user" in each.group for each in check_propensities(drawn).contradictions)


def test_groups_are_levels_of_a_count_by_hand() -> None:
    history = daily_log(1, at_random, users=50)
    found = past_groups(history)
    d, e = history.decisions, history.events
    assert len(found.labels) == 3
    for i in range(0, len(d), 37):
        gap = d.time[i] - e.time[e.user == d.user[i]]
        low, high = (int(word) for word in found.labels[found.code[i]].split()[1:4:2])
        assert low <= ((gap > 0) & (gap <= 7 * DAY)).sum() <= high


def test_single_decisions_have_no_past_to_compare() -> None:
    assert draws_last(np.arange(10), np.zeros(10, dtype=np.int64))


def test_most_users_who_never_change_are_one_draw_each() -> None:
    user, kept = np.repeat(np.arange(100), 5), np.repeat(np.arange(100) % 2, 5)
    assert draws_last(user, kept)
    assert not draws_last(user, np.random.default_rng(0).integers(0, 2, 500))
