"""Trajectories: how a log is cut into them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, InputError, NotIdentified
from crosschannel.evaluation import TRAJECTORY_ESTIMATORS, blocks, first_slots
from tests.evaluation.sequential.trajectory_worlds import by_hand

pytestmark = pytest.mark.numerics


def test_first_slots_and_blocks_by_hand():
    user = np.array([5, 9, 5, 5, 9, 5, 9, 5, 2])
    order = np.array([3, 1, 1, 2, 3, 5, 2, 4, 0])
    churned = np.array([0, 0, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    # User 5 in order: rows 2, 3, 0, 7, 5; user 9: rows 1, 6, 4, then churned; user 2 has one slot.
    first = first_slots(user, order, 2, churned)
    assert first.rows.tolist() == [[2, 3], [1, 6]]
    assert (first.user.tolist(), first.excluded) == ([5, 9], 1)
    cut = blocks(user, order, 2, churned)
    assert cut.rows.tolist() == [[2, 3], [0, 7], [1, 6], [4, -1]]
    assert (cut.user.tolist(), cut.length.tolist(), cut.excluded) == ([5, 5, 9, 9], [2, 2, 2, 1], 2)
    assert cut.gather(10.0 * np.arange(9)).tolist() == [[20, 30], [0, 70], [10, 60], [40, 0]]
    assert first_slots(user, order, 4, churned).rows.tolist() == [[2, 3, 0, 7], [1, 6, 4, -1]]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"horizon": 0}, ConfigError, "a horizon of 0 slots is below 1"),
        ({"order": np.ones(3)}, InputError, r"column 'order': the shape is \(3,\), not \(4,\)"),
        (
            {"order": np.array([1, 1, 2, 1])},
            InputError,
            "column 'order', row 1: is the same as that of another slot of the user",
        ),
        (
            {"churned": np.array([True, False, True, True])},
            InputError,
            "column 'churned', row 1: the user has later slots",
        ),
        ({"horizon": 4}, NotIdentified, "no user's log has 4 slots"),
        (
            {"user": np.zeros(0, dtype=int), "order": np.zeros(0), "churned": np.zeros(0, dtype=bool)},
            NotIdentified,
            "no user's log has 2 slots",
        ),
    ],
)
def test_logs_that_cannot_be_cut(changes, error, message):
    good = {"user": np.array([0, 0, 0, 1]), "order": np.arange(4), "horizon": 2, "churned": np.zeros(4, dtype=bool)}
    for cut in (first_slots, blocks):
        with pytest.raises(error, match=message):
            cut(**(good | changes))


def test_who_churns_so_late_that_nobody_has_all_slots_is_excluded_like_those_who_stay():
    """Users 0 to 2 have the days 0 to 2; user 1 churns on day 1, user 2 on day 2. Day 2 begins no block of two days."""
    user, day = np.array([0, 0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 2, 0, 1, 0, 1, 2])
    churned = np.isin(np.arange(8), [4, 7])
    index = blocks(user, day, 2, churned)
    assert index.rows.tolist() == [[0, 1], [3, 4], [5, 6]]
    assert index.excluded == 2
    # With blocks of one day, both of day 2 are complete; whoever churns on the first of two days stays in.
    assert len(blocks(user, day, 1, churned).rows) == 8
    early = blocks(np.array([0, 0, 1]), np.array([0, 1, 0]), 2, np.array([False, False, True]))
    assert early.rows.tolist() == [[0, 1], [2, -1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.ones(2)}, r"column 'rewards': the shape is \(2,\), not \(n, H\)"),
        ({"ratios": np.ones((2, 3))}, r"column 'ratios': the shape is \(2, 3\), not \(2, 2\)"),
        ({"length": np.array([0, 3])}, r"column 'length', row 1, value 0: is not in 1 to 2 \(2 rows in all\)"),
        ({"counts": np.array([1.0, -1.0])}, r"column 'counts', row 2, value -1.0: is not a count"),
        ({"ratios": np.array([[1.0, -1.0], [1.0, 1.0]])}, "column 'ratios', row 1, .*: is not a ratio"),
        ({"ratios": np.array([[1.0, 1.0], [np.inf, 1.0]])}, "column 'ratios', row 2, .*: is not a ratio"),
        ({"rewards": np.array([[1.0, np.nan], [1.0, 1.0]])}, "column 'rewards', row 1, .*: is not a finite number"),
        ({"q_policy": np.full((2, 2), np.inf)}, r"column 'q_policy', row 1, .*: is not a finite number \(3 rows"),
    ],
)
def test_invalid_trajectories(changes, message):
    with pytest.raises(InputError, match=message):
        by_hand(**changes)


def test_entries_after_a_user_churned_are_ignored():
    missing = by_hand(rewards=np.array([[1.0, 2.0], [4.0, np.nan]]))
    for e in TRAJECTORY_ESTIMATORS:
        assert e.value(missing) == e.value(by_hand())
    with pytest.raises(ConfigError, match=r"discount 1.5 is not in \[0, 1\]"):
        by_hand(discount=1.5)
