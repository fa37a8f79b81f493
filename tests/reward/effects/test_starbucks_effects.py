"""Effects on the Starbucks rewards files: the reference figures, and what randomised waves must satisfy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from crosschannel.histories.history import History
from crosschannel.histories.readers.datasets.starbucks import read_starbucks_rewards
from crosschannel.reward import DidReward, Goal, RewardSpec
from crosschannel.reward.effects import TreatmentEffects
from crosschannel.reward.effects.inference import joint_test
from tests import SHARED_DATA

FOLDER = SHARED_DATA / "starbucks_rewards"
SPEC = RewardSpec(goals=(Goal("transaction", measure="value", clip=100.0),), pre="72h", post="72h", time_bucket="1h")
BY_WAVE = {168: (5.244, 0.366), 336: (5.547, 0.369), 408: (3.840, 0.418), 504: (4.515, 0.425), 576: (3.375, 0.434)}
BY_OFFER = [5.516, 6.028, 2.759, 2.752, 1.514, 6.220, 7.274, 4.383, 5.691, 2.946]


@cache
def fitted() -> TreatmentEffects:
    return TreatmentEffects.fit(DidReward(SPEC), history())


@cache
def history() -> History:
    if not FOLDER.is_dir():
        pytest.skip("the Starbucks rewards files are not beside the checkout")
    return read_starbucks_rewards(FOLDER)


def test_effects_by_wave_are_the_reference():
    effects = fitted().by_time_bucket()
    first, waves = effects[0], effects[1:]
    assert np.isnan(first.value)  # the first wave has no window before it, so no effect
    assert first.n_without == 8921
    assert [(round(e.value, 3), round(e.se, 3)) for e in waves] == list(BY_WAVE.values())


def test_effects_by_offer_are_the_reference():
    log = history()
    effects = fitted().by_action(log, "variant")
    assert [e.label for e in effects] == list(log.modules["variant"].actions)
    assert [round(e.value, 3) for e in effects] == BY_OFFER


def test_did_agrees_with_the_difference_in_means_as_randomised_waves_must():
    """Both share the post window, so the error of their difference is that of the pre window's difference alone."""
    outcomes = fitted().outcomes
    after = TreatmentEffects.fit_outcomes(DidReward(SPEC), replace(outcomes, pre=np.zeros(len(outcomes))))
    differences, influences = [], []
    for cell in np.unique(outcomes.time_bucket)[1:]:
        did, one = fitted().effect_and_influence(outcomes.time_bucket == cell)
        means, other = after.effect_and_influence(outcomes.time_bucket == cell)
        se = np.sqrt(((one - other) ** 2).sum())
        assert se < 0.8 * np.hypot(did.se, means.se)  # a narrower gate than that of two independent estimates
        assert abs(did.value - means.value) < 2 * se, cell
        differences.append(did.value - means.value)
        influences.append(one - other)
    assert joint_test(np.array(differences), np.stack(influences, axis=1)).p_value > 0.05
