"""How often trials without an effect are significant, over many looks, and what looking costs in power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from crosschannel.core.times import DAY
from crosschannel.evaluation.trials import (
    ArmTable,
    TrialConfig,
    arm_means,
    contrast,
    critical_values,
    significant_outcomes,
)
from crosschannel.evaluation.trials.looks import critical_of, plan_looks
from tests.evaluation.trials.worlds import DAYS, GOALS, course_of, daily_amounts, trial_history

SETTINGS = TrialConfig(start="2024-01-01", days=DAYS)
LOOKS = plan_looks(SETTINGS, 0, DAYS * DAY, None, 1)


def crosses(course, looks=LOOKS, settings=SETTINGS) -> bool:
    """Whether a look reaches its boundary; none does that does not reach the quantile of what is spent up to it."""
    least = 1.959963984540054 / np.sqrt(looks.shares)
    if (np.abs(course.z) < least).all():
        return False
    return bool((np.abs(course.z) >= critical_of(course, looks, settings, 1, np.random.default_rng(0))).any())


def rejection_rates(trials, seed, users=1500, *, adjusted=False, joined=0.0, salts=50):
    """Shares of A/A trials that the boundaries and plain daily tests find significant.

    Each population of users is divided at random `salts` times. Returns both shares, and the standard error of the
    first by population.
    """
    by_population, plain = [], 0
    for k in range(trials // salts):
        rng = np.random.default_rng((seed, k))
        amounts, before, enters = daily_amounts(rng, users, joined=joined)
        found = 0
        for _ in range(salts):
            arm = (rng.random(users) < 0.5).astype(np.int64)
            course = course_of(amounts, arm, before if adjusted else None, enters if joined else None)
            found += crosses(course)
            plain += bool((np.abs(course.z) >= 1.959963984540054).any())
        by_population.append(found / salts)
    return np.mean(by_population), plain / trials, np.std(by_population) / np.sqrt(max(len(by_population) - 1, 1))


def test_daily_looks_at_trials_without_effect_quickly():
    """Of 150, significant by chance at .05: at most 17 with a probability of .998; plain daily tests far more."""
    found, plain, _ = rejection_rates(150, 100, users=600, adjusted=True, salts=50)
    assert found <= 17 / 150
    assert plain > 0.12
    assert plain > 2 * found


@pytest.mark.slow
@pytest.mark.parametrize(("adjusted", "joined"), [(False, 0.0), (True, 0.0), (True, 0.4)])
def test_daily_looks_at_trials_without_effect_are_rarely_significant(adjusted, joined):
    """2,000 trials, 28 daily looks: at most 6.5 %, where plain daily tests reject more than twice as many."""
    found, plain, error = rejection_rates(2000, 0, adjusted=adjusted, joined=joined)
    print(f"A/A, adjusted {adjusted}, joined {joined}: {found:.4f} (se by population {error:.4f}), plain {plain:.4f}")
    assert found <= 0.065
    assert plain > 2 * found


@pytest.mark.slow
def test_looking_every_day_costs_little_power():
    """600 trials with a lift that a single look at the end finds in about 80 %: within 5 points of it."""
    once = every = 0
    for k in range(600):
        rng = np.random.default_rng((1, k))
        amounts, before, _ = daily_amounts(rng, 1500)
        arm = (rng.random(1500) < 0.5).astype(np.int64)
        extra = np.cumsum(rng.poisson(0.0171, (1500, DAYS)), axis=1)
        course = course_of(amounts + extra * arm[:, None], arm, before)
        once += abs(course.z[-1]) >= 1.959963984540054
        every += crosses(course)
    print(f"power: one look {once / 600:.3f}, 28 looks {every / 600:.3f}")
    assert 0.7 < once / 600 < 0.9
    assert every / 600 > once / 600 - 0.05


def sequence_rejections(trials, seed, effect=0.0, users=8000, every=50, first=200):
    """Share of trials in which a confidence sequence, looked at after every 50 users, excludes zero at some look."""
    found = 0
    for k in range(trials):
        rng = np.random.default_rng((seed, k))
        arm = rng.random(users) < 0.5
        y = rng.poisson(5.6 * np.exp(rng.standard_normal(users) - 0.5)) + effect * arm
        looks = np.arange(first, users + 1, every) - 1
        sums = [
            [np.cumsum(np.where(side, power, 0.0))[looks] for power in (np.ones(users), y, y**2)]
            for side in (arm, ~arm)
        ]
        (n1, s1, q1), (n0, s0, q0) = sums
        variance = (q1 / n1 - (s1 / n1) ** 2) / (n1 - 1) + (q0 / n0 - (s0 / n0) ** 2) / (n0 - 1)
        z = (s1 / n1 - s0 / n0) / np.sqrt(variance)
        found += bool((np.abs(z) >= critical_values(looks + 1, 0.05, 4000)).any())
    return found / trials


def test_a_confidence_sequence_over_users_is_rarely_wrong_quickly():
    """Of 200 without an effect at most 18, with a probability of .99; with an effect it finds it."""
    assert sequence_rejections(200, 100) <= 18 / 200
    assert sequence_rejections(50, 101, effect=1.0) > 0.9


@pytest.mark.slow
def test_a_confidence_sequence_over_users_is_rarely_wrong():
    found = sequence_rejections(2000, 0)
    print(f"confidence sequence, A/A: {found:.4f}")
    assert found <= 0.065


def test_a_single_look_at_the_end_has_its_level():
    """600 trials: .05 +- 3 standard errors."""
    settings = TrialConfig(start="2024-01-01", days=DAYS, looks="once")
    looks = plan_looks(settings, 0, DAYS * DAY, None, 1)
    found = 0
    for k in range(600):
        rng = np.random.default_rng((102, k))
        amounts, _, _ = daily_amounts(rng, 300)
        arm = (rng.random(300) < 0.5).astype(np.int64)
        course = course_of(amounts[:, -1:], arm)
        found += abs(course.z[0]) >= critical_of(course, looks, settings, 1, rng)[0]
    assert found / 600 == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 600))
    early = plan_looks(settings, 0, 20 * DAY, None, 1)
    assert critical_of(course, early, settings, 1, rng)[0] == np.inf
    assert critical_of(course, looks, settings, 2, rng)[0] == pytest.approx(-ndtri(0.0125))


def any_significant(populations, salts, seed):
    """Share of A/A trials of a whole log in which any outcome is significant, over weekly looks, and its error."""
    settings = TrialConfig(start="2024-01-15", days=DAYS, every="7d", compare=("a:b",))
    by_population = []
    for k in range(populations):
        history = trial_history((seed, k), users=800, joined=0.2, arms_in="nowhere")
        rng = np.random.default_rng((seed, k, 1))
        names = np.array(["a", "b"], dtype=object)
        tables = (ArmTable(history.user_ids, names[rng.integers(0, 2, 800)]) for _ in range(salts))
        by_population.append(np.mean([bool(one) for one in significant_outcomes(history, settings, GOALS, tables)]))
    return float(np.mean(by_population))


def test_any_of_several_outcomes_is_rarely_significant_quickly():
    """Of 150 without an effect, significant by chance at .05: at most 17 with a probability of .998."""
    assert any_significant(3, 50, 105) <= 17 / 150


@pytest.mark.slow
def test_any_of_several_outcomes_is_rarely_significant():
    """2,000 trials of five outcomes with weekly looks and users who join."""
    found = any_significant(40, 50, 1)
    print(f"A/A of a log, any outcome: {found:.4f}")
    assert found <= 0.065


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_intervals_cover_the_true_lift(share):
    """400 trials with orders up by a fifth, in equal and unequal arms: .95 of the intervals, 3 standard errors.

    Rates are log-normal, so that a few users account for much of the error.
    """
    covered = np.zeros(2)
    for k in range(400):
        rng = np.random.default_rng((106, k))
        arm = (rng.random(800) < share).astype(np.int64)
        rate = 5.6 * np.exp(rng.standard_normal(800) - 0.5)
        total, before = rng.poisson(rate * (1 + 0.2 * arm)).astype(float), rng.poisson(rate).astype(float)
        one, _ = contrast(arm_means(total, arm, 2, before), 1, 0)
        covered += [one.interval(1.96).contains(0.2 * 5.6), one.relative_interval(1.96).contains(0.2)]
    low, high = 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400), 0.95 + 3 * np.sqrt(0.95 * 0.05 / 400)
    assert (covered / 400 >= low).all(), covered / 400
    assert (covered / 400 <= high).all(), covered / 400
