"""Plots of a trial show its readout, and no lift where the trial is not valid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY
from crosschannel.evaluation.trials import (
    plot_arm_costs,
    plot_lifts,
    plot_looks,
    plot_segments,
    plot_time_course,
    read_trial,
)
from tests.evaluation.plots.test_plots import dots_of, intervals_of, texts_of
from tests.evaluation.trials.test_readout import SETTINGS
from tests.evaluation.trials.worlds import GOALS, START, trial_history


@pytest.fixture(scope="module")
def not_valid():
    shares = {"agent": 0.1, "business_as_usual": 0.8, "holdout": 0.1}
    return read_trial(trial_history(3), replace(SETTINGS, shares=shares), GOALS)


def test_lifts_are_relative_and_bold_where_significant(better):
    ax = plot_lifts(better)
    outcomes = better.comparisons[0].outcomes
    assert dots_of(ax) == pytest.approx({k: 100 * one.relative.point for k, one in enumerate(outcomes)})
    drawn = intervals_of(ax)
    for k, one in enumerate(outcomes):
        assert drawn[k] == pytest.approx((100 * one.relative.low, 100 * one.relative.high))
    bold = [tick.get_fontweight() == "bold" for tick in ax.get_yticklabels()]
    assert bold == [one.significant for one in outcomes]
    assert ", better" in texts_of(ax)
    assert ax.get_title(loc="left") == "agent against business_as_usual: better"
    second = plot_lifts(better, comparison=1)
    assert second.get_title(loc="left").startswith(better.comparisons[1].name)


def test_a_look_that_cannot_stop_has_numbers_in_words_and_no_boundary(early):
    assert not dots_of(plot_lifts(early))
    assert "per user, this look" in texts_of(plot_lifts(early))
    for plot in (plot_time_course, plot_looks):
        ax = plot(early)
        assert "no look so far can stop the trial" in texts_of(ax)
        assert len(ax.get_legend().get_texts()) == 1


@pytest.mark.parametrize("name", [None, "order:food"])
def test_the_time_course_has_every_look_with_its_boundary(better, name):
    one = next(o for o in better.comparisons[0].outcomes if name in (None, o.name))
    ax = plot_time_course(better, outcome=name)
    days, points = ax.containers[0].lines[0].get_data()
    np.testing.assert_allclose(days, [(each.at - START) / DAY for each in one.course])
    np.testing.assert_allclose(points, [each.difference.point for each in one.course])
    upper, lower = (line.get_ydata() for line in ax.lines if line.get_linestyle() == "--")
    edge = [each.critical * each.difference.se for each in one.course]
    np.testing.assert_allclose(upper, edge)
    np.testing.assert_allclose(lower, [-size for size in edge])
    assert ax.get_xlim()[1] > SETTINGS.days  # so that what is still to come is seen


def test_looks_are_standardised(better):
    one = better.comparisons[0].value
    ax = plot_looks(better)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [each.z for each in one.course])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [each.critical for each in one.course])


def test_a_trial_that_is_not_valid_shows_no_lift(not_valid):
    for plot in (plot_lifts, plot_time_course, plot_looks, plot_segments):
        ax = plot(not_valid)
        assert "Not valid, so no lift is shown. sample ratio" in texts_of(ax).replace("\n", " ")
        assert not ax.lines
        assert not ax.collections


def test_segments_and_costs_have_a_row_each(better):
    ax = plot_segments(better)
    segments = better.comparisons[0].segments
    assert sorted(dots_of(ax).values()) == pytest.approx(sorted(one.lift.point for one in segments))
    ax = plot_arm_costs(better)
    costs = [arm.costs[event].point for event in better.arms[0].costs for arm in better.arms]
    assert sorted(dots_of(ax).values()) == pytest.approx(sorted(costs))


def test_an_unknown_outcome_is_named(better):
    with pytest.raises(ConfigError, match=r"no outcome 'order:fod'\. Did you mean 'order:food'"):
        plot_looks(better, outcome="order:fod")
