"""Modules of hundreds of actions: estimates stay right, and take time that is about linear in the actions."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.history import History
from crosschannel.histories.propensities import calibration
from crosschannel.histories.propensities.calibration import PlattScaling
from crosschannel.histories.propensities.checks import check_propensities
from crosschannel.histories.propensities.estimate import estimate_propensities
from crosschannel.histories.propensities.newton import ImplicitInformation
from tests.samples import random_history

pytestmark = pytest.mark.numerics

SPEC = ContextSpec(windows=("3d",))


def campaigns(actions: int, users: int = 500, seed: int = 0) -> tuple[History, np.ndarray]:
    """Half of the decisions send one of many campaigns, few of them often; and the probability of each decision."""
    history = random_history(seed, users=users, days=10, send=0.0)
    rng, n = np.random.default_rng(seed), len(history.decisions)
    share = np.arange(1, actions) ** -0.7
    policy = np.concatenate([[0.5], 0.5 * share / share.sum()])
    taken = rng.choice(actions, n, p=policy)
    unknown = np.full(n, np.nan)
    decisions = replace(history.decisions, actions=taken[:, None], propensity=unknown[:, None], joint=unknown)
    modules = ActionSpace([Module("campaign", ("none", *(f"c{k}" for k in range(1, actions))))])
    return replace(history, decisions=decisions, modules=modules), policy[taken]


def test_estimates_of_many_actions_are_close_to_the_truth():
    history, truth = campaigns(300)
    estimated, report = estimate_propensities(history, SPEC)
    p = estimated.decisions.joint
    assert abs(np.log(p / truth).mean()) < 0.05
    # By chance alone the log odds of a campaign with 10 decisions are off by .3.
    assert np.median(np.abs(np.log(p / truth))) < 0.15
    assert abs((1 / p).mean() / (1 / truth).mean() - 1) < 0.1
    assert len(report.pooled) > 200
    assert f"and {len(report.pooled) - 5:,} more actions" in report.summary()


def test_a_sample_of_the_reference_action_changes_the_estimates_little(monkeypatch):
    """With a fifth of the default's decisions of the reference action, whose intercepts are corrected for that."""
    history, truth = campaigns(12, users=1500)
    full = estimate_propensities(history, SPEC)[0].decisions.joint
    monkeypatch.setattr("crosschannel.histories.propensities.estimate.ZEROS_PER_ONE", 4)
    monkeypatch.setattr("crosschannel.histories.propensities.estimate.MIN_ZEROS", 100)
    sampled = estimate_propensities(history, SPEC)[0].decisions.joint
    assert not np.array_equal(full, sampled)
    assert abs(np.log(sampled / full).mean()) < 0.02
    assert np.abs(np.log(sampled / truth)).mean() < 0.15


def test_calibration_without_the_matrix_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    n, size = 800, 30
    eligible = rng.random((n, size)) < 0.8
    score = rng.normal(size=(n, size))
    taken = np.where(eligible, score + rng.gumbel(size=(n, size)), -np.inf).argmax(1)
    offset = 0.3 * rng.normal(size=size)
    explicit = PlattScaling.fit(offset, score, eligible, taken)
    monkeypatch.setattr(calibration, "MAX_EXPLICIT", 0)
    implicit = PlattScaling.fit(offset, score, eligible, taken)
    assert implicit.slope == pytest.approx(explicit.slope, rel=1e-9)
    np.testing.assert_allclose(implicit.offset, explicit.offset, atol=1e-8)


def test_implicit_information_solves_as_its_matrix_does():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(20, 20))
    matrix, score = root @ root.T + np.eye(20), rng.normal(size=20)
    found = ImplicitInformation(lambda v: matrix @ v, np.diag(matrix)).solve(score)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, score), rtol=1e-6)


def fastest(function, *arguments) -> float:
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        function(*arguments)
        best = min(best, time.perf_counter() - start)
    return best


def test_ten_times_the_actions_take_at_most_fifteen_times_as_long():
    """600 actions against 60, both above the limit up to which messages are counted one by one."""
    few, many = (fastest(estimate_propensities, campaigns(actions)[0], SPEC) for actions in (60, 600))
    assert many < 15 * few


def test_the_check_of_propensities_does_not_slow_down_with_the_number_of_actions():
    logs = []
    for actions in (60, 600):
        history, truth = campaigns(actions)
        logs.append(history.with_propensities(truth[:, None], truth, "logged"))
    few, many = (fastest(check_propensities, log) for log in logs)
    assert many < 10 * few
