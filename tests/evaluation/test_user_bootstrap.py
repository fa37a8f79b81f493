"""User-clustered bootstrap: what is drawn, that intervals cover, and that clusters matter."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.evaluation import (
    IPS,
    SNIPS,
    EvaluationSettings,
    LoggedDecisions,
    evaluate,
    t_interval,
    user_bootstrap,
)
from crosschannel.evaluation.bootstrap import draw_user_counts
from tests.evaluation.bandit_worlds import CHANNEL, World

pytestmark = pytest.mark.numerics


def test_draws_are_as_many_users_as_there_are():
    draws = np.stack([draw_user_counts(50, np.random.default_rng(seed)) for seed in range(200)])
    assert (draws.sum(1) == 50).all()
    # A multinomial count has mean 1 and variance 1 - 1/U.
    assert draws.mean() == 1.0
    assert draws.var() == pytest.approx(1.0, abs=0.05)


def test_users_are_drawn_whole():
    user = np.array([7, 7, 3, 3, 3, 9])
    seen = user_bootstrap(lambda times: times, user, 50, np.random.default_rng(0))
    assert seen.shape == (50, 6)
    assert (seen[:, 0] == seen[:, 1]).all()
    assert (seen[:, 2] == seen[:, 3]).all()
    assert (seen[:, 2] == seen[:, 4]).all()
    assert (seen[:, 0] != seen[:, 2]).any()


def test_the_same_generator_gives_the_same_bits():
    user = np.arange(30)
    first, second = (user_bootstrap(lambda t: t[:3], user, 40, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_standard_error_is_the_clustered_one():
    """The bootstrap of a mean has the closed-form clustered standard error; ignoring users gives a third of it."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(200), 10)
    y = rng.normal(size=200)[user] + 0.3 * rng.normal(size=2000)
    per_user = np.bincount(user, y) - 10 * y.mean()
    closed = np.sqrt((per_user**2).sum()) / len(y)
    mean = lambda t: np.array([t @ y / t.sum()])  # noqa: E731
    clustered = user_bootstrap(mean, user, 1000, rng).std()
    naive = user_bootstrap(mean, np.arange(2000), 1000, rng).std()
    # The relative error of a standard deviation from B replicates is 1 / sqrt(2B) = 2.2 %; 3.5 of them.
    assert clustered == pytest.approx(closed, rel=0.08)
    assert naive < 0.5 * clustered


def coverage(replications: int, users: int, rows: int, *, ignore_users: bool = False) -> dict[str, float]:
    """Share of intervals that include the truth, by estimand and estimator."""
    world = World.make(CHANNEL, seed=3, user_sd=1.5)
    rng = np.random.default_rng(23)
    settings = EvaluationSettings(bootstrap_replicates=200)
    hits: dict[str, list[bool]] = {}
    for _ in range(replications):
        log, cell, rewards = world.draw(rng, users, rows)
        if ignore_users:
            log = LoggedDecisions(log.modules, log.actions, log.propensity, log.joint, np.arange(len(log)))
        result = evaluate(log, world.policy(cell), rewards, rng=rng, settings=settings, estimators=[IPS(), SNIPS()])
        truth, logged = world.truth(None), world.logged_truth()
        hits.setdefault("logged", []).append(result.logged.contains(logged))
        for name in ("ips", "snips"):
            e = result.get(name)
            hits.setdefault(name, []).append(e.value.contains(truth))
            hits.setdefault(f"{name} minus logged", []).append(e.difference.contains(truth - logged))
    return {name: float(np.mean(values)) for name, values in hits.items()}


def test_intervals_cover_roughly():
    """At a coverage of 95 %, fewer than 50 hits in 60 happen less than once in 2,000."""
    assert all(share >= 50 / 60 for share in coverage(60, users=150, rows=8).values())


def test_intervals_that_ignore_users_do_not_cover():
    assert coverage(60, users=150, rows=8, ignore_users=True)["logged"] < 50 / 60


@pytest.mark.slow
def test_intervals_cover_at_their_level():
    """With 1,000 logs the standard error of the coverage is 0.7 %: 93 to 97 % are three of them to either side."""
    found = coverage(1000, users=400, rows=5)
    assert all(0.93 <= share <= 0.97 for share in found.values()), found


def test_an_undefined_replicate_leaves_no_interval():
    replicates = np.append(np.linspace(0, 1, 99), np.nan)
    influence = np.linspace(-1, 1, 30)
    assert not t_interval(0.5, replicates, influence).is_defined
    assert t_interval(0.5, replicates[:-1], influence).is_defined
    assert not t_interval(np.nan, replicates[:-1], influence).is_defined


@pytest.mark.parametrize(
    ("replicates", "level", "message"),
    [(10, 0.95, "10 bootstrap replicates are too few: use 40 or more"), (400, 1.0, "not between")],
)
def test_too_few_replicates(replicates, level, message):
    with pytest.raises(ConfigError, match=message):
        t_interval(0.0, np.zeros(replicates), np.zeros(3), level)
    with pytest.raises(ConfigError, match=message):
        EvaluationSettings(bootstrap_replicates=replicates, confidence_level=level)
