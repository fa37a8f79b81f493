"""Looks of a trial: which count, what stays of past ones, and Holm's method over outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

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
    """Boundaries of two looks by divisor of alpha; the look before never stops."""
    return lambda _, divisor: np.array([np.inf, levels[divisor]])


LEVELS = {divisor: -ndtri(0.025 / divisor) for divisor in range(1, 9)}


def decided(*z):
    """Divisor and look of each outcome."""
    found = decide_over_goals([np.array([9.0, one]) for one in z], constant(LEVELS))
    return [(one.divisor, one.look) for one in found]


def test_the_others_share_half_of_the_level_by_holms_method():
    """Boundaries of alpha / 6, / 4, / 2: 2.64, 2.50, 2.24. 2.55 passes only after 2.7, and 2.3 only after both."""
    assert decided(0.0, 2.7, 2.55, 2.3) == [(1, None), (6, 1), (4, 1), (2, 1)]
    assert decided(0.0, 2.6, 2.55, 2.3) == [(2, None), (6, None), (6, None), (6, None)]


def test_the_primary_outcome_hands_its_half_on():
    """With it, the others are tested at alpha / 3, / 2, / 1: 2.39, 2.24, 1.96."""
    assert decided(-2.3, 2.45, 2.3, -2.0) == [(2, 1), (3, 1), (2, 1), (1, 1)]
    assert decided(2.2, 2.45, 2.3, 2.0) == [(2, None), (6, None), (6, None), (6, None)]


def test_the_others_hand_their_half_on_once_all_are_rejected():
    assert decided(2.0, 3.0, 2.9) == [(1, 1), (4, 1), (4, 1)]
    assert decided(2.0, 3.0, 1.0) == [(2, None), (4, 1), (2, None)]


def test_one_outcome_has_all_of_the_level():
    assert decided(1.97) == [(1, 1)]
    assert decided(1.95) == [(1, None)]


def test_with_plain_tests_any_error_is_made_in_at_most_alpha():
    """20,000 families of four independent outcomes without an effect: .05 and 3 standard errors."""
    z = np.random.default_rng(100).standard_normal((20_000, 4))
    any_one = sum(any(look is not None for _, look in decided(*row)) for row in z)
    assert 0.04 < any_one / 20_000 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 20_000)


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
