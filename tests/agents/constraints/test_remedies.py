"""What the error of constraints that cannot be kept says to do is enough, in the settings' own units."""

import re

import numpy as np
import pytest

from crosschannel.agents import InfeasibleBudget, shadow_prices
from crosschannel.agents.constraints.budgets import budgets_at
from crosschannel.agents.constraints.remedies import in_settings
from crosschannel.agents.constraints.settings import Budget, Constraints, CostLimit
from crosschannel.core.times import DAY, WEEK

USERS, FLOOR, HAZARD, ORGANIC, LOG_RATE = 200, 0.2, 0.02, 0.03, 0.035
SMS = {"channel": {"sms": 1.0}}


def solve(constraints: Constraints, floor: float = FLOOR) -> None:
    """Decide between nothing and one message for each user and day, as `find_prices` does."""
    use = np.zeros((len(constraints.names), USERS, 2))
    for c, name in enumerate(constraints.names):
        use[c, :, 1] = HAZARD if name == "unsubscribed" else 1.0
    budgets = budgets_at(constraints, USERS, DAY, {"unsubscribed": LOG_RATE}, {"unsubscribed": ORGANIC})
    values, mask = np.ones((1, USERS, 2)), np.ones((USERS, 2), dtype=bool)
    try:
        shadow_prices(values, mask, use, budgets, floor, constraints.names)
    except InfeasibleBudget as error:
        organic = {"unsubscribed": ORGANIC}
        raise in_settings(error, constraints, USERS * DAY / WEEK, organic) from None


def remedy(constraints: Constraints, floor: float = FLOOR) -> str:
    with pytest.raises(InfeasibleBudget) as error:
        solve(constraints, floor)
    assert "Raise these budgets" not in str(error.value)
    return str(error.value).splitlines()[-1]


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, text
    return float(found[1])


def test_a_limit_of_messages_and_a_budget_are_raised_in_their_own_units() -> None:
    for per in ("week", "decision_time"):
        both = Constraints(messages_per_week=0.5, budgets=(Budget("text", 0.3, SMS, per),))
        told = remedy(both)
        messages = number(r"raise `messages_per_week` from 0\.5 to ([\d.]+)", told)
        amount = number(r"raise the amount of the budget 'text' from 0\.3 to ([\d.]+)", told)
        solve(Constraints(messages_per_week=messages, budgets=(Budget("text", amount, SMS, per),)))
        solve(both, floor=number(r"lower `agent\.settings\.floor` to ([\d.]+)", told))


def test_the_rate_of_the_log_cannot_be_raised() -> None:
    told = remedy(Constraints(cost_events=(CostLimit("unsubscribed", "log"),)))
    rate = number(r"is a fact: give `at_most` as a number, at least ([\d.]+), as 0\.03 per user and week happen", told)
    solve(Constraints(cost_events=(CostLimit("unsubscribed", rate),)))
    assert "`margin`" not in told  # no margin is enough
    with pytest.raises(InfeasibleBudget):
        solve(Constraints(cost_events=(CostLimit("unsubscribed", ORGANIC + 0.99 * (rate - ORGANIC)),)))


def test_a_smaller_margin_is_advised_where_it_is_enough() -> None:
    tight = CostLimit("unsubscribed", ORGANIC + 7 * FLOOR / 2 * HAZARD / 0.9, 0.2)
    told = remedy(Constraints(cost_events=(tight,)))
    margin = number(r"lower its `margin` from 0\.2 to ([\d.]+)", told)
    solve(Constraints(cost_events=(CostLimit("unsubscribed", tight.at_most, margin),)))
    rate = number(r"raise `at_most` of 'unsubscribed' from [\d.]+ to at least ([\d.]+)", told)
    solve(Constraints(cost_events=(CostLimit("unsubscribed", rate),)))


def test_a_limit_that_leaves_nothing_is_raised_above_what_happens_anyway() -> None:
    told = remedy(Constraints(cost_events=(CostLimit("unsubscribed", 0.01),), messages_per_week=0))
    rate = number(r"from 0\.01 to at least ([\d.]+), as 0\.03 per user and week happen without messages", told)
    solve(Constraints(cost_events=(CostLimit("unsubscribed", rate),)))
    assert "and raise `messages_per_week` above 0" in told


def test_the_least_limit_is_enough_where_messages_cause_little_of_it() -> None:
    """What the floor's draws cause is then below the fourth digit of the limit."""
    told = remedy(Constraints(cost_events=(CostLimit("unsubscribed", 0.01),)), floor=1e-7)
    rate = number(r"to at least ([\d.]+), as 0\.03 per user and week happen without messages", told)
    assert rate < 1.001 * ORGANIC
    solve(Constraints(cost_events=(CostLimit("unsubscribed", rate),)), floor=1e-7)
