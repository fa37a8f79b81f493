"""The forest plot: its ticks, and what it draws where there is nothing to draw."""

from __future__ import annotations

import pytest

from crosschannel.evaluation import Interval
from crosschannel.evaluation.report.forest_plot import forest_plot, round_ticks


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 0.003), (-12345.0, 5.0), (0.0, 1e-9), (-0.07, 0.03)])
def test_ticks_are_round_and_inside(low, high):
    found = round_ticks(low, high)
    assert 3 <= len(found) <= 11
    assert all(low <= tick <= high for tick in found)
    assert any(tick == 0 for tick in found)


def test_a_plot_of_nothing_is_a_sentence():
    assert "No estimate is identified" in forest_plot([], "difference")
    assert "<svg" in forest_plot([("a", "dr", Interval(0.0, 0.0, 0.0, 0.0))], "difference")


def test_texts_are_escaped():
    drawn = forest_plot([("<a>", "<b>", Interval(0.0, 0.0, 0.0, 0.0))], "<c>")
    assert all(f"&lt;{name}&gt;" in drawn and f"<{name}>" not in drawn for name in "abc")
