"""Fitted Q evaluation: the enumerated sums, and cross-fitting by user."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.evaluation import first_slots, fit_q_values
from tests.evaluation.sequential.trajectory_worlds import fatigue_world

pytestmark = pytest.mark.numerics


def test_fitted_q_finds_the_enumerated_sums():
    """The context holds the state, so that only noise is left: the largest error of any state's sum is below .05."""
    world = fatigue_world(3)
    walk = world.draw(np.random.default_rng(0), 20_000)
    log, columns, p = walk.flat()
    index = first_slots(log.user, columns["time"], 3, columns["churned"])
    q = fit_q_values(log, columns["context"], p, columns["rewards"], index, discount=0.9)
    x = walk.trajectories(world.q(0.9), 0.9)
    assert (q.logged[index.rows < 0] == 0).all()
    assert np.abs(q.logged - x.q_logged).max() < 0.05
    assert np.abs(q.policy - x.q_policy).max() < 0.05


def test_a_users_sums_come_from_others():
    world = fatigue_world(2)
    log, columns, p = world.draw(np.random.default_rng(0), 300).flat()
    index = first_slots(log.user, columns["time"], 2, columns["churned"])
    fit = lambda r: fit_q_values(log, columns["context"], p, r, index)  # noqa: E731
    before = fit(columns["rewards"])
    after = fit(columns["rewards"] + 5.0 * (log.user == 7))
    same = (before.logged == after.logged).all(1) & (before.policy == after.policy).all(1)
    assert same[7]
    # The user's fold is a third of all; everybody else's models have seen the user.
    assert 0.2 < same.mean() < 0.5
