"""A history without propensities: they are estimated when a run is built, and the run says so."""

from __future__ import annotations

from dataclasses import replace

from crosschannel.core.times import DAY
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import write_history
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import Config, HistoryConfig, RewardConfig
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
