"""A history without propensities: they are estimated when a run is built, and the run says so."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from crosschannel.core.times import DAY
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import write_history
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import Config, HistoryConfig, RewardConfig
from crosschannel.pipeline.run_folder import classes_of
from crosschannel.reward import Goal
from tests.samples import random_history

LATER = 19_000 * DAY


def log_of_today() -> History:
    """A random history whose times a file may have, without propensities."""
    history = random_history(0, users=60)
    return replace(
        history,
        decisions=replace(history.decisions, time=history.decisions.time + LATER),
        events=replace(history.events, time=history.events.time + LATER),
        span=(history.span[0] + LATER, history.span[1] + LATER),
        observed_from=history.observed_from + LATER,
        observed_until=history.observed_until + LATER,
    )


class Shares:
    """A classifier of the shares of all, which remembers on how many decisions it was fitted."""

    fitted: ClassVar[list[int]] = []

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.classes_, counts = np.unique(y, return_counts=True)
        self.shares = counts / counts.sum()
        self.fitted.append(len(y))

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.tile(self.shares, (len(x), 1))


def test_a_classifier_of_ones_own_estimates_them(tmp_path):
    write_history(log_of_today(), tmp_path)
    config = Config(
        history=HistoryConfig(source="folder", path=tmp_path, propensity_model=f"{__name__}:Shares"),
        context=ContextSpec(windows=("3d",)),
        reward=RewardConfig(goals=(Goal("order"),), pre="1d", post="1d", min_controls=2),
    )
    Shares.fitted.clear()
    decisions = prepare(config).history.decisions
    # Two modules, five folds; each is fitted without the fold and that of its calibration.
    assert len(Shares.fitted) == 10
    assert max(Shares.fitted) < 480
    for code in range(3):
        found = decisions.propensity[decisions.actions[:, 0] == code, 0]
        assert len(np.unique(found)) <= 5
        assert found.mean() == pytest.approx((decisions.actions[:, 0] == code).mean(), abs=0.05)


def test_a_class_that_a_run_names_must_be_allowed():
    """As any other code that a run names; what scikit-learn has is an installed package's."""
    history = HistoryConfig(propensity_model="their.models:Trees")
    assert classes_of(Config(history=history)) == ("their.models:Trees",)
    assert classes_of(Config(history=HistoryConfig(propensity_model="sklearn.tree:DecisionTreeClassifier"))) == ()


def test_missing_propensities_are_estimated_and_labelled(tmp_path):
    write_history(log_of_today(), tmp_path)
    config = Config(
        history=HistoryConfig(source="folder", path=tmp_path),
        context=ContextSpec(windows=("3d",)),
        reward=RewardConfig(goals=(Goal("order"),), pre="1d", post="1d", min_controls=2),
    )
    prepared = prepare(config)
    decisions = prepared.history.decisions
    assert prepared.history.propensity_source == prepared.train.history.propensity_source == "estimated"
    assert ((decisions.propensity > 0) & (decisions.propensity <= 1)).all()
    assert "propensities of 480 decisions were not logged and are estimated" in prepared.history.summary()
