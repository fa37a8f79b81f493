"""Settings of constraints: what they may be, in files and in code."""

from __future__ import annotations

from typing import Any

import pytest

from crosschannel.agents import Budget, Constraints, CostLimit
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import from_dict, to_dict

SMS = {"name": "sms", "amount": 0.02, "costs": {"channel": {"sms": 0.07}}}


def test_without_settings_there_is_no_constraint() -> None:
    assert Constraints().names == ()
    assert from_dict(Constraints, {}) == Constraints()


def test_all_settings_there_and_back() -> None:
    data: dict[str, Any] = {
        "cost_events": [
            {"event": "unsubscribed", "at_most": "log"},
            {"event": "app_removed", "margin": 0},
            {"event": "complained", "at_most": 0.001},
        ],
        "messages_per_week": 2,
        "budgets": [SMS, {"name": "coupons", "amount": 500, "per": "decision_time", "costs": {"offer": {"ten": 1.5}}}],
    }
    found = from_dict(Constraints, data)
    assert found.names == ("unsubscribed", "app_removed", "complained", "messages_per_week", "sms", "coupons")
    assert found.cost_events[2] == CostLimit("complained", 0.001)
    assert found.budgets[0] == Budget("sms", 0.02, {"channel": {"sms": 0.07}}, "week")
    assert from_dict(Constraints, to_dict(found)) == found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"cost_event": []}, "unknown key 'cost_event'. Did you mean 'cost_events'"),
        ({"cost_events": [{"at_most": 1}]}, r"cost_events\[0\]: the key 'event' is missing"),
        (
            {"cost_events": [{"event": "a", "at_most": "lgo"}]},
            "'lgo' is not one of 'log'. Did you mean 'log'",
        ),
        ({"cost_events": [{"event": "a", "margin": 1}]}, "'a': margin is 1.0: give a share from 0 to below 1"),
        ({"cost_events": [{"event": "a", "margin": -0.1}]}, "margin is -0.1"),
        ({"cost_events": [{"event": "a", "at_most": -1}]}, "'a': at_most is -1.0: give a finite number"),
        ({"cost_events": [{"event": "a", "at_most": "nan"}]}, "at_most is nan"),
        ({"cost_events": [{"event": ""}]}, "has no name"),
        ({"cost_events": [{"event": "a"}, {"event": "a"}]}, "two constraints have the name 'a'"),
        ({"cost_events": [{"event": "sms"}], "budgets": [SMS]}, "two constraints have the name 'sms'"),
        ({"messages_per_week": 1, "budgets": [SMS | {"name": "messages_per_week"}]}, "two constraints have the name"),
        ({"messages_per_week": "inf"}, "messages_per_week is inf: give a finite number of at least 0, or leave"),
        ({"messages_per_week": -0.5}, "messages_per_week is -0.5"),
        ({"budgets": [SMS | {"name": ""}]}, "a budget has no name"),
        ({"budgets": [SMS | {"amount": -1}]}, "budget 'sms': amount is -1.0"),
        ({"budgets": [SMS | {"costs": {"channel": {"sms": -0.1}}}]}, "the cost of channel.sms is -0.1"),
        ({"budgets": [SMS | {"costs": {}}]}, "no action costs anything"),
        ({"budgets": [SMS | {"costs": {"channel": {"sms": 0.0}}}]}, "no action costs anything"),
        ({"budgets": [SMS | {"costs": {"channel": 3}}]}, r"budgets\[0\].costs.channel: expected a mapping, got 3"),
        ({"budgets": [SMS | {"per": "day"}]}, "'day' is not one of 'week', 'decision_time'"),
        ({"budgets": [{"name": "a", "amount": 1}]}, "the key 'costs' is missing"),
    ],
)
def test_wrong_settings_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(Constraints, data)


def test_code_is_checked_as_files_are() -> None:
    with pytest.raises(ConfigError, match="at_most 'lgo' is neither 'log' nor a number"):
        CostLimit("unsubscribed", "lgo")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="per 'day' is neither 'week' nor 'decision_time'"):
        Budget("sms", 1.0, {"channel": {"sms": 1.0}}, "day")  # type: ignore[arg-type]
