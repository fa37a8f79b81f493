"""The readout in words and as a page: what it says, that it is escaped, and how a browser shows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.evaluation.trials import ArmTable, TrialConfig, read_trial, trial_text, write_trial_html
from tests.browser import needs_chromium, render
from tests.evaluation.report.test_html_report import NASTY, parsed
from tests.evaluation.trials.test_readout import SETTINGS
from tests.evaluation.trials.worlds import GOALS, trial_history


def test_the_text_has_the_verdict_and_every_outcome(better):
    text = trial_text(better)
    assert "Verdict: better. agent against business_as_usual: value +" in text
    assert "interval over all looks [" in text
    for comparison in better.comparisons:
        assert f"{comparison.name}" in text
        for one in comparison.outcomes:
            assert f"{one.alone.point:+.4g}" in text
    assert "not in the log" in text  # messages of the arm that is decided elsewhere
    assert "Segments (exploratory" in text
    assert "sample ratio" in text
    assert "Note: looks count as taken every 7d" in text


def test_a_look_that_cannot_stop_the_trial_says_so(early):
    text = trial_text(early)
    assert "Verdict: not yet." in text
    assert "this look cannot stop the trial yet" in text
    assert "the log ends after 2 of the declared 28 days" in text
    assert "inf" not in text
    assert "nan" not in text


@pytest.mark.parametrize("alone", [True, False])
def test_a_value_that_is_not_significant_with_an_interval_above_zero_is_explained(better, alone):
    main = better.comparisons[0]
    value = replace(main.value, significant=False, since=None)
    outcomes = (value,) if alone else (value, *main.outcomes[1:])
    text = trial_text(replace(better, comparisons=(replace(main, outcomes=outcomes), *better.comparisons[1:])))
    assert value.lift.low > 0
    assert "no difference" not in text
    assert ("Its interval excludes zero, but is about this outcome alone: of the level of 0.05" in text) is not alone


def test_a_failed_check_of_shares_is_the_verdict():
    settings = replace(SETTINGS, shares={"agent": 0.1, "business_as_usual": 0.8, "holdout": 0.1})
    text = trial_text(read_trial(trial_history(3), settings, GOALS))
    assert "Verdict: not valid. The sample ratio is not as it must be" in text
    assert "Do not read the lifts" in text


def test_the_page_has_every_number_and_needs_no_other_file(tmp_path, better):
    write_trial_html(tmp_path / "trial.html", better)
    page = parsed((tmp_path / "trial.html").read_text(encoding="utf-8"))
    assert "script" not in page.seen
    assert all(link.startswith("data:text/csv") for link in page.links)
    assert page.seen.count("figure") == page.seen.count("figcaption") == len(page.links) == 7
    for comparison in better.comparisons:
        for one in comparison.outcomes:
            assert f"{one.alone.point:+.4g}" in page.text
    for check in better.checks:
        assert check.finding.replace("`", "") in page.text.replace("`", "")
    assert "Better" in page.text
    assert "nan" not in page.text


def test_the_page_escapes_names_of_arms_events_and_attributes(tmp_path):
    history = trial_history(4, users=400)
    arms = ArmTable(history.user_ids, np.array([NASTY, "other"], dtype=object)[np.arange(400) % 2])
    history = replace(history, event_names=(NASTY, *history.event_names[1:]), name=NASTY)
    users = history.users.assign(**{NASTY: np.array([NASTY, "x"], dtype=object)[np.arange(400) // 2 % 2]})
    pair = f"{NASTY}:other"
    settings = TrialConfig(start="2024-01-15", every="14d", compare=(pair,), segments=(NASTY,), strata=(NASTY,))
    goals = (replace(GOALS[0], event=NASTY), GOALS[1])
    trial = read_trial(replace(history, users=users), settings, goals, arms=arms)
    write_trial_html(tmp_path / "trial.html", trial)
    text = (tmp_path / "trial.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "script" not in parsed(text).seen


@needs_chromium
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser(tmp_path, better, early, width, dark):
    for trial in (better, early):
        write_trial_html(tmp_path / "trial.html", trial)
        found = render((tmp_path / "trial.html").read_text(encoding="utf-8"), tmp_path, width, dark=dark)
        assert found.console == []
        assert found.viewport == width
        assert found.width <= width
        assert found.beyond == []
        assert found.smallest >= 11, found.smallest_text
        assert found.contrast >= 4.5, found.faintest
