"""`crosschannel effects` as a user runs it, and the picture it draws."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.plotting import AFTER, BEFORE
from crosschannel.pipeline.command_line import UsageError
from crosschannel.programs.effects import main
from crosschannel.reward import DidReward
from crosschannel.reward.effects import EventTimes, TreatmentEffects, event_study, event_study_figure, picture
from crosschannel.reward.effects.estimates import EFFECT_COLUMNS
from tests import ROOT
from tests.reward.simulated import SPEC, simulate


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "crosschannel", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_effects_from_a_configuration(tmp_path):
    done = run(
        *("effects", "--config", str(ROOT / "configs" / "market.yaml")),
        *("--history.market.users=400", "--history.market.days=10", "--reward.min-controls=10"),
        *("--by", "all", "module:channel", "goal", "--out", "out/picture.png", "out/table.csv"),
        *("--staggered", "channel=email", "--period", "4d"),
        *("--reward.matching.strata=2", "--reward.matching.activity=2d"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "Average effects on the treated",
        "Event study",
        "pre-trends:",
        "placebo in time:",
        "Verdict: ",
        "placebo on controls: ",
        "staggered adoption",
        "treated before a whole period of theirs was observed",
        "from cells of equal time bucket and strata",
        "Estimand: ",
        "Assumption: ",
        "Interval: ",
        "Identification: ",
    ):
        assert words in done.stdout, words
    assert (tmp_path / "out" / "picture.png").read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert list(table.columns) == list(EFFECT_COLUMNS)
    assert set(table.by) == {"all", "channel", "goal", "event time"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "none.yaml"], "none.yaml: there is no such configuration file"),
        (["--by", "channel", "--history.market.users=60", "--history.market.days=4"], "no grouping 'channel'"),
        (["--leads", "0"], "leads 0 must be at least 1"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    with pytest.raises(ConfigError, match=message):
        main([*arguments])


def test_help_names_every_option_of_its_own(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert len(text.partition("\nhistory (")[0].splitlines()) <= 45  # its own flags fit one screen
    for option in (
        "--by",
        "--bin",
        "--leads",
        "--lags",
        "--out",
        "--staggered",
        "--effects-of",
        "--windows",
        "--engine",
        "--whole",
    ):
        assert option in text
    with pytest.raises(UsageError, match="--by: expected at least one argument"):
        main(["--by"])


def test_the_picture_shows_every_interval_and_has_labelled_axes():
    history = simulate(0, "random").history
    events = event_study(TreatmentEffects.fit(DidReward(SPEC), history), history, EventTimes("1d", leads=3, lags=2))
    figure = event_study_figure(events, "title")
    axes = figure.axes[0]
    assert "[days]" in axes.get_xlabel()
    assert "95 % interval" in axes.get_ylabel()
    drawn = {container.lines[0].get_color(): container for container in axes.containers}
    for colour, rows in ((BEFORE, events.times.offsets < -1), (AFTER, events.times.offsets >= 0)):
        x, y = drawn[colour].lines[0].get_data()
        np.testing.assert_allclose(x, events.times.offsets[rows] + 0.5)
        np.testing.assert_allclose(y, events.value[rows])
        ends = np.array([segment[:, 1] for segment in drawn[colour].lines[2][0].get_segments()])
        effects = [e for e, chosen in zip(events.effects, rows, strict=True) if chosen]
        np.testing.assert_allclose(ends, [(e.low, e.high) for e in effects])


def test_a_picture_without_diagnostics_still_says_that_pre_trends_differ():
    """As at the start of training, where only the event study is made."""
    for assignment, differ in (("dip", True), ("random", False)):
        history = simulate(1, assignment).history
        figure = picture(history, event_study(TreatmentEffects.fit(DidReward(SPEC), history), history))
        assert ("do not read the effect as causal" in figure.axes[0].get_title()) == differ


@pytest.mark.parametrize("bins", [EventTimes("1d", leads=1, lags=0), EventTimes("30d", leads=3, lags=2)])
def test_a_picture_of_nothing_says_so(bins):
    history = simulate(0, "random").history
    figure = picture(history, event_study(TreatmentEffects.fit(DidReward(SPEC), history), history, bins))
    assert any("not identified" in text.get_text() for text in figure.axes[0].texts)
    assert "not tested" in figure.axes[0].get_title()
