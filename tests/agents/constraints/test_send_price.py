"""The price of a message, against the solution of small worlds in which it is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crosschannel.agents.constraints.send_price import price_of_message

USERS, SLOTS = 400, 30


def log(closed: int = 0, churn: float = 0.0, worth: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """Return a log in which half of the slots have a message, which closes some slots and may end the subscription."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in ("sent", "next_row", "steps_to_next", "terminal")}
    for _ in range(USERS):
        slot, row = 0, len(columns["sent"])
        while slot < SLOTS:
            sent = bool(rng.random() < 0.5)
            churned = sent and bool(rng.random() < churn)
            step = 1 + closed * sent
            last = churned or slot + step >= SLOTS
            columns["sent"].append(sent)
            columns["next_row"].append(-1 if last else row + 1)
            columns["steps_to_next"].append(np.nan if last else float(step))
            columns["terminal"].append(churned)
            row, slot = row + 1, SLOTS if churned else slot + step
    found = {name: np.array(values) for name, values in columns.items()}
    n = len(found["sent"])
    return {**found, "value": np.full(n, worth), "context": rng.standard_normal((n, 2))}


@pytest.mark.parametrize("discount", [0.5, 0.9])
def test_a_closed_slot_costs_what_it_would_have_earned(discount: float) -> None:
    # W = v / (1 - g^2), and the price is (g - g^2) W = g v / (1 + g), if every open slot is used and none is closed
    # longer. What the iterations leave out is 1 % of W, and the noise of the regressions is in contexts alone.
    price = price_of_message(**log(closed=1), discount=discount)
    assert price == pytest.approx(discount / (1.0 + discount), abs=0.03)


def test_a_message_that_ends_subscriptions_costs_later_slots() -> None:
    # W = v + g (1 - h) W, and the price is g h W.
    discount, churn = 0.8, 0.2
    price = price_of_message(**log(churn=churn), discount=discount)
    exact = discount * churn / (1.0 - discount * (1.0 - churn))
    n = 0.5 * USERS * SLOTS * 0.2  # about as many slots have a message, as users churn early
    error = discount * (churn * (1.0 - churn) / n) ** 0.5 / (1.0 - discount * (1.0 - churn)) ** 2
    assert price == pytest.approx(exact, abs=4.0 * error)


def test_a_message_that_changes_nothing_later_costs_nothing() -> None:
    assert price_of_message(**log(), discount=0.9) == pytest.approx(0.0, abs=0.02)


def test_slots_without_value_cost_nothing() -> None:
    assert price_of_message(**log(closed=1, worth=-1.0), discount=0.9) == pytest.approx(0.0, abs=1e-9)


def test_closed_slots_are_worth_what_follows_them() -> None:
    data = log()
    closed = np.random.default_rng(1).random(len(data["sent"])) < 0.3
    data["value"] = np.where(closed, -np.inf, data["value"])
    data["sent"] &= ~closed
    assert price_of_message(**data, discount=0.9) == pytest.approx(0.0, abs=0.05)


def test_without_a_discount_or_without_messages_there_is_no_price() -> None:
    assert price_of_message(**log(closed=1), discount=0.0) == 0.0
    data = log(closed=1)
    assert price_of_message(**{**data, "sent": np.zeros_like(data["sent"])}, discount=0.9) == 0.0


def test_few_messages_and_many_features_make_no_price() -> None:
    rng = np.random.default_rng(5)
    for share, width in ((0.01, 20), (0.02, 40)):
        data = log()
        n = len(data["sent"])
        data["sent"] = rng.random(n) < share
        assert price_of_message(**{**data, "context": rng.standard_normal((n, width))}, discount=0.95) < 0.05
    data["sent"] = np.arange(n) < 40
    assert price_of_message(**data, discount=0.95) == 0.0
