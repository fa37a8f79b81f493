"""Looks of a trial: which count, what stays of past ones, and Holm's method over outcomes."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY
from crosschannel.evaluation.trials import TrialConfig
from crosschannel.evaluation.trials.looks import decide_over_goals, plan_looks

SETTINGS = TrialConfig(days=10)


def test_every_day_counts_where_nobody_says_when_it_was_looked_at():
    looks = plan_looks(SETTINGS, 5 * DAY, 9 * DAY + DAY // 2, None, 1)
    assert (looks.times / DAY).tolist() == [6, 7, 8, 9, 9.5]
    assert looks.shares == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.45])
    assert looks.past == 0


def test_looks_that_took_place_replace_them():
    past = np.array([6 * DAY, 9 * DAY])
    looks = plan_looks(SETTINGS, 5 * DAY, 12 * DAY, past, 1)
    assert (looks.times / DAY).tolist() == [6, 9, 12]
    assert looks.past == 2
    again = plan_looks(SETTINGS, 5 * DAY, 9 * DAY, past, 1)
    assert (again.times / DAY).tolist() == [6, 9]
    assert again.past == 2
    with pytest.raises(ConfigError, match="previous look was later"):
        plan_looks(SETTINGS, 5 * DAY, 8 * DAY, past, 1)


def test_a_trial_that_is_read_once_has_one_look():
    settings = TrialConfig(days=10, looks="once")
    assert len(plan_looks(settings, 0, 10 * DAY, None, 1)) == 1


def constant(levels):
    """Boundaries of two looks by divisor of alpha: the quantiles of a plain test, and the look before never stops."""
    return lambda _, divisor: np.array([np.inf, levels[divisor]])


def test_holm_steps_down_until_nothing_more_crosses():
    """Three outcomes at alpha / 3, then two at alpha / 2, then one at alpha: 2.5 passes only at the second step."""
    levels = {1: 1.96, 2: 2.24, 3: 2.39}
    z = [np.array([9.0, 3.0]), np.array([0.0, -2.3]), np.array([0.0, 1.9])]
    first, second, third = decide_over_goals(z, constant(levels))
    assert (first.look, first.divisor) == (1, 3)
    assert (second.look, second.divisor) == (1, 2)
    assert (third.look, third.divisor) == (None, 1)
    assert set(second.criticals) == {1, 2, 3}
    # Without the first, the second is tested at alpha / 2 only from the start, and passes alike; 1.97 alone would not.
    alone = decide_over_goals([np.array([0.0, 1.97]), np.array([0.0, 0.1])], constant(levels))
    assert [one.look for one in alone] == [None, None]
    assert [one.divisor for one in alone] == [2, 2]


def test_the_first_look_that_crosses_decides():
    (only,) = decide_over_goals([np.array([1.0, 3.0, 0.0])], lambda *_: np.array([4.0, 2.0, 2.0]))
    assert only.look == 1
    assert only.divisor == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"days": 0}, "days"),
        ({"alpha": 0.7}, "alpha"),
        ({"compare": ("agent",)}, "not a pair"),
        ({"compare": ("a:b", "a:b")}, "twice"),
        ({"shares": {"a": 0.5}}, "do not add up"),
        ({"shares": {"a": 1.5, "b": -0.5}}, "between 0 and 1"),
        ({"every": "1min"}, "more than 200 looks"),
        ({"start": "yesterday"}, "not a time"),
        ({"follow_up": "7d"}, "is for looks"),
        ({"planned_users": 0}, "planned_users"),
        ({"looks": "confidence_sequence"}, "Over days of the same users no confidence sequence is valid"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrialConfig(**settings)


def test_pairs_are_those_of_the_log_where_none_are_declared():
    settings = TrialConfig()
    assert settings.pairs_among(("agent", "holdout")) == (("agent", "holdout"),)
    assert len(settings.pairs_among(("agent", "business_as_usual", "holdout"))) == 3
    with pytest.raises(ConfigError, match=r"name what to compare, such as trial\.compare A:B"):
        settings.pairs_among(("A", "B"))
    with pytest.raises(ConfigError, match="no user of the log has the arm 'C'"):
        TrialConfig(compare=("A:C",)).pairs_among(("A", "B"))
