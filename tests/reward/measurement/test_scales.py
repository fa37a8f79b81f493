"""Amounts of any size: currencies of millions, amounts of millionths, and sums that do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.reward import REWARDS, CovariateSpec, Goal, RewardSpec, make_reward, measure
from crosschannel.reward.effects import TreatmentEffects
from tests.samples import random_history

pytestmark = pytest.mark.numerics

# Covariates that do not depend on the currency.
SPEC = RewardSpec(
    goals=(Goal("order", measure="value"),),
    pre="1d",
    post="1d",
    min_controls=3,
    folds=2,
    covariates=CovariateSpec(windows=("3d",), events=()),
)


def scaled(seed: int, factor: float, **settings):
    history = random_history(seed, **settings)
    return replace(history, events=replace(history.events, value=history.events.value * factor))


@pytest.mark.parametrize("kind", REWARDS)
@pytest.mark.parametrize("power", [-60, -40, -12, 24, 40, 80])
def test_a_power_of_two_of_the_currency_is_the_same_power_of_every_reward(kind, power):
    """Up to 24 places the sums of the default currency are exact, so all of it is the same to rounding."""
    one, other = (make_reward(kind, SPEC).fit_transform(scaled(1, f, users=60)) for f in (1.0, 2.0**power))
    np.testing.assert_array_equal(one.reason, other.reason)
    ok = one.identified
    assert ok.mean() > 0.5
    for name in ("reward", "se", "pre", "post", "counterfactual"):
        np.testing.assert_allclose(getattr(other, name)[ok] / 2.0**power, getattr(one, name)[ok], rtol=1e-7, atol=1e-7)


def test_effects_of_amounts_in_millions_and_millionths_are_found():
    """Before, a window above 2^31 wrapped to a large negative amount, and 1e-12 became an effect of 0 [0, 0]."""
    for factor in (1e-12, 3e6):
        history = scaled(2, factor, users=300, effect=1.0)
        effect = TreatmentEffects.fit(make_reward("did", SPEC), history).effect()
        # Half of the extra events are orders, worth 25 on average.
        assert abs(effect.value / factor - 12.5) < 4 * effect.se / factor
        assert 0 < effect.se / factor < 3
        assert measure(history, SPEC).post.min() >= 0


def test_the_scale_of_a_run_is_used_for_later_logs_and_an_overflow_names_the_goal():
    train = random_history(3)
    fitted = make_reward("did", SPEC).fit(train)
    larger = scaled(3, 30.0)
    np.testing.assert_allclose(fitted.transform(larger).post, 30.0 * fitted.transform(train).post, rtol=1e-12)
    with pytest.raises(ConfigError, match=r"the values of 'order' of one user add up to .* units or currency"):
        fitted.transform(scaled(3, 1e9))
    features = ContextFeatures.fit(train, ContextSpec(windows=("3d",)))
    features.transform(larger)
    with pytest.raises(ConfigError, match="the values of 'order' of one user add up to"):
        features.transform(scaled(3, 1e9))
    again = ContextFeatures.from_state_dict(features.state_dict())
    np.testing.assert_array_equal(again.transform(larger), features.transform(larger))


def test_many_rewards_of_millions_are_averaged():
    """The controls of a large log add up to more than 64 bits hold in the smallest unit of 2^-16."""
    history = scaled(4, 1e12, users=400)
    frame = make_reward("did", SPEC).fit_transform(history)
    plain = make_reward("did", SPEC).fit_transform(scaled(4, 1.0, users=400))
    ok = plain.identified
    np.testing.assert_allclose(frame.counterfactual[ok] / 1e12, plain.counterfactual[ok], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["did_regression", "did_dr"])
def test_small_bootstrap_draws_are_refitted_or_not_identified(kind):
    """A draw may leave out every control of a cell, or every user of a fold; that is no error of linear algebra."""
    history = random_history(5, users=8)
    model = make_reward(kind, replace(SPEC, min_controls=2))
    outcomes, rng = model.measure(history), np.random.default_rng(0)
    fitted = 0
    for _ in range(60):
        counts = np.bincount(rng.integers(8, size=2), minlength=8).astype(float)
        try:
            model.fit_outcomes(outcomes, counts[outcomes.user]).transform_outcomes(outcomes)
            fitted += 1
        except NotIdentified:
            pass
    assert fitted > 5


@pytest.mark.parametrize("limit", [{}, {"clip": 60.0}, {"winsor": 0.99}], ids=["none", "clip", "winsor"])
def test_one_placeholder_among_amounts_does_not_round_the_others_away(limit):
    """With it the scale had units of 256, all other amounts were 0, and so was a limited effect: +.0003, se .001."""
    history = random_history(6, users=60)
    value = history.events.value.copy()
    value[np.flatnonzero(history.events.event == history.event_names.index("order"))[0]] = 1e18
    spoilt = replace(history, events=replace(history.events, value=value))
    with pytest.raises(ConfigError, match=r"the values of 'order' differ too much .* the largest is 1e\+18"):
        measure(spoilt, replace(SPEC, goals=(Goal("order", measure="value", **limit),)))


@pytest.mark.filterwarnings("error")
def test_values_near_the_largest_number_are_refused_without_a_warning():
    fitted = make_reward("did", SPEC).fit(random_history(3))
    with pytest.raises(ConfigError, match="the values of 'order' of one user add up to"):
        fitted.transform(scaled(3, 1e300))
