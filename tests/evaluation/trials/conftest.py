"""Trials that several tests show: one that ends with a better arm, and one that is read after two days."""

from __future__ import annotations

import pytest

from crosschannel.core.times import DAY
from crosschannel.evaluation.trials import Trial, read_trial
from tests.evaluation.trials.test_readout import SETTINGS
from tests.evaluation.trials.worlds import GOALS, START, trial_history


@pytest.fixture(scope="session")
def better() -> Trial:
    return read_trial(trial_history(1, users=4000, lift=0.6), SETTINGS, GOALS)


@pytest.fixture(scope="session")
def early() -> Trial:
    return read_trial(trial_history(2), SETTINGS, GOALS, at=START + 2 * DAY)
