"""Plots of an evaluation show the numbers of its records, or say why there is none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from crosschannel.evaluation import (
    Comparison,
    CostEvent,
    Interval,
    calibration_bins,
    plot_calibration,
    plot_comparisons,
    plot_costs,
    plot_estimates,
    plot_ladder,
    plot_modules,
    plot_slots,
    plot_trajectories,
    plot_waterfall,
    plot_weights,
    weight_bins,
)
from crosschannel.evaluation.bootstrap import UNDEFINED
from tests.evaluation.plots.samples import followed
from tests.evaluation.report.pictures.test_evaluation_pictures import with_steps
from tests.evaluation.report.samples import identified, not_identified


def dots_of(ax) -> dict[int, float]:
    """The values by row: single points of lines that are not markers of a second value."""
    points = [line for line in ax.lines if len(line.get_xydata()) == 1 and line.get_marker() != "D"]
    return {int(y): float(x) for line in points for x, y in line.get_xydata()}


def intervals_of(ax) -> dict[int, tuple[float, float]]:
    segments = [segment for collection in ax.collections for segment in collection.get_segments()]
    return {int(s[0, 1]): (float(s[0, 0]), float(s[1, 0])) for s in segments}


def texts_of(ax) -> str:
    return "\n".join(text.get_text() for text in ax.texts)


@pytest.mark.parametrize("module", [None, "type"])
def test_estimates_have_their_values_and_intervals(module):
    found = [e for e in identified().estimates if e.module == module]
    ax = plot_estimates(identified(), module=module)
    assert dots_of(ax) == pytest.approx({k: e.value.point for k, e in enumerate(found)})
    drawn = intervals_of(ax)
    for k, e in enumerate(found):
        assert drawn[k] == pytest.approx((e.value.low, e.value.high))
    assert [tick.get_text().split()[0] for tick in ax.get_yticklabels()] == [e.estimator for e in found]
    assert "95%" in ax.get_title(loc="left")


def test_what_is_not_identified_has_no_dot_but_its_reason():
    ax = plot_estimates(not_identified(), truth=0.3)
    shown = [k for k, e in enumerate(e for e in not_identified().estimates if e.module is None) if e.value.is_defined]
    assert sorted(dots_of(ax)) == shown
    assert "not identified (ESS" in texts_of(ax)
    assert any(tick.get_text() == "dm (a diagnostic)" for tick in ax.get_yticklabels())
    for plot in (plot_ladder, plot_modules):
        ax = plot(not_identified())
        assert not dots_of(ax)
        assert "not identified (ESS" in texts_of(ax)


def test_the_ladder_marks_the_headline_and_the_truth():
    ladder = identified().ladder
    ax = plot_ladder(identified(), truth=0.5)
    assert dots_of(ax) == pytest.approx({k: e.value.point for k, e in enumerate(ladder.orders)})
    bold = [k for k, tick in enumerate(ax.get_yticklabels()) if tick.get_fontweight() == "bold"]
    assert bold == [ladder.order]
    assert sum(line.get_marker() == "D" for line in ax.lines) == len(ladder.orders)
    assert "none of its own" in texts_of(plot_ladder(replace(identified(), ladder=None, no_ladder="none of its own")))


def test_bars_of_the_waterfall_meet_and_a_gap_has_none():
    steps = (("logged", 1.0), ("channel", 2.0), ("offer", None), ("tone", 0.5), ("policy", 4.0))
    ax = plot_waterfall(with_steps(*steps))
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    assert spans == [(0.0, 1.0), (1.0, 3.0), (3.5, 4.0), (0.0, 4.0)]
    assert "not identified (ESS 3 < 5)" in texts_of(ax)
    assert "no interaction ladder" in texts_of(plot_waterfall(replace(identified(), ladder=None)))


def test_policies_are_compared_by_their_difference():
    known = Comparison("A minus B", "", 1, Interval(0.2, 0.1, 0.3, 0.05), 100, 50, 80.0)
    unknown = replace(known, difference=UNDEFINED, reason="ESS 3 < 5")
    ax = plot_comparisons([known, unknown])
    assert dots_of(ax) == {0: 0.2}
    assert "not identified (ESS 3 < 5)" in texts_of(ax)


def test_weights_show_both_shares_of_each_bin():
    bins = weight_bins(np.array([0.2, 0.7, 0.7, 30.0]))
    ax = plot_weights(bins, ess=1.1)
    filled = [each for each in bins if each.decisions]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx([each.share for each in filled] + [each.squared_share for each in filled])
    assert ax.get_title(loc="left") == "Weights of 4 decisions, as precise as 1 equal ones"
    assert "nothing to draw" in texts_of(plot_weights(()))


def test_calibration_is_observed_over_expected():
    rng = np.random.default_rng(100)
    expected = rng.normal(size=400)
    bins = calibration_bins(expected, expected, np.ones(400), rng.integers(0, 50, 400))
    ax = plot_calibration(bins)
    x, y = ax.containers[0].lines[0].get_data()
    np.testing.assert_allclose(x, [each.expected for each in bins])
    np.testing.assert_allclose(y, [each.observed for each in bins])
    assert "no bins" in texts_of(plot_calibration(()))


def test_costs_show_the_policy_beside_the_log():
    known = CostEvent("unsubscribed", 0.01, Interval(0.02, 0.01, 0.03, 0.005))
    ax = plot_costs([known, CostEvent("blocked", 0.02, UNDEFINED, "ESS 3 < 5")])
    assert dots_of(ax) == {0: 0.02}
    assert [line.get_xydata()[0].tolist() for line in ax.lines if line.get_marker() == "D"] == [[0.01, 0], [0.02, 1]]


def test_slots_show_how_support_fades():
    found = followed()
    ax = plot_slots(found)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [slot.ess for slot in found.slots])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [slot.ess_users for slot in found.slots])
    assert set(ax.lines[2].get_ydata()) == {200.0}
    rare = replace(found, slots=tuple(replace(slot, kurtosis=30.0) for slot in found.slots))
    assert set(plot_slots(rare).lines[2].get_ydata()) == {2000.0}, "rewards this rare need ten times as much"
    values = plot_trajectories(found)
    known = {k: e.value.point for k, e in enumerate(found.estimates) if e.value.is_defined}
    assert dots_of(values) == pytest.approx(known)
    lost = replace(found, slots=tuple(replace(slot, ess=math.nan, ess_users=math.nan) for slot in found.slots))
    assert "nothing to draw" in texts_of(plot_slots(lost))
