"""The charts that all plots share: what they draw, what they say instead, and that pyplot does not notice."""

from __future__ import annotations

import math
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from crosschannel.core.plotting import Mark, draw_courses, draw_marks, draw_pairs
from tests import ROOT

MARKS = [
    Mark("value", 1.0, 0.5, 1.5, text="+1 [.5, 1.5]", side=1),
    Mark("cost", -1.0, -1.5, -0.5, side=-1, group="costs of $5 and $9"),
    Mark("unknown", math.nan, note="not identified (ESS 3 < 5)", group="costs of $5 and $9"),
]


def texts_of(ax) -> list[str]:
    return [text.get_text().replace(r"\$", "$") for text in ax.texts]


def test_a_row_without_a_value_has_its_reason_and_no_dot():
    ax = draw_marks(MARKS, "value [EUR]", title="Title", reference=0.25, reference_name="the log")
    labels = [tick.get_text().replace(r"\$", "$") for tick in ax.get_yticklabels()]
    assert labels == ["value", "costs of $5 and $9", "cost", "unknown"]
    assert "not identified (ESS 3 < 5)" in texts_of(ax)
    # Dots are at the rows 0 and 2 (the name of the group is row 1); the rest are the lines of zero and of the log.
    dots = {tuple(line.get_xydata()[0]) for line in ax.lines if len(line.get_xydata()) == 1}
    assert dots == {(1.0, 0.0), (-1.0, 2.0)}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "interval above zero",
        "interval below zero",
        "the log (0.25)",
    ]
    assert ax.get_xlabel() == "value [EUR]"
    assert ax.get_title(loc="left") == "Title"


def test_sides_of_zero_differ_in_shape_and_colour():
    ax = draw_marks(MARKS, "value")
    looks = {(line.get_color(), line.get_marker()) for line in ax.lines if line.get_marker() not in ("None", None)}
    assert len({colour for colour, _ in looks}) == len({shape for _, shape in looks}) == 2


def test_the_interval_is_drawn_where_the_bar_ends():
    ax = draw_marks([Mark("step", 0.5, 0.25, 0.75, start=2.0)], "value")
    (bar,) = ax.patches
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == (2.0, 2.5)
    ((low, high),) = [segment[:, 0] for segment in ax.collections[0].get_segments()]
    assert (low, high) == (2.25, 2.75)


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: draw_marks([], "value", ax=ax),
        lambda ax: draw_pairs([], [], [], ("a", "b"), "share", ax=ax),
        lambda ax: draw_pairs(["x"], [math.nan], [math.nan], ("a", "b"), "share", ax=ax),
        lambda ax: draw_courses([1.0], [("a", [math.nan])], "time", "amount", ax=ax),
    ],
)
def test_nothing_to_draw_is_said(draw):
    ax = draw(None)
    assert texts_of(ax) == ["There is nothing to draw."]
    assert not ax.patches
    assert not ax.lines


def test_a_pair_without_one_amount_says_so():
    ax = draw_pairs(["x", "y"], [0.1, math.nan], [0.2, 0.3], ("log", "policy"), "share", groups=["g", "g"])
    assert sorted(bar.get_width() for bar in ax.patches) == [0.1, 0.2, 0.3]
    assert texts_of(ax) == ["none"]


def test_gaps_of_a_course_stay_open():
    ax = draw_courses([1, 2, 3], [("a", [1.0, math.nan, 3.0]), ("b", [0.0, 1.0, 2.0])], "time", "amount")
    first, second = ax.lines
    np.testing.assert_array_equal(np.isnan(first.get_ydata()), [False, True, False])
    assert first.get_marker() != second.get_marker()
    assert first.get_linestyle() != second.get_linestyle()


def test_given_axes_are_used_and_pyplot_keeps_its_state():
    before, figures = dict(mpl.rcParams), plt.get_fignums()
    for draw in (
        lambda ax: draw_marks(MARKS, "value", ax=ax),
        lambda ax: draw_pairs(["x"], [0.1], [0.2], ("a", "b"), "share", ax=ax),
        lambda ax: draw_courses([1, 2], [("a", [1.0, 2.0])], "time", "amount", ax=ax),
    ):
        given = Figure().subplots()
        assert draw(given) is given
        own = draw(None)
        assert own.figure.canvas.get_renderer() is not None
        assert own.figure._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == figures
    assert dict(mpl.rcParams) == before


def test_matplotlib_is_loaded_where_a_plot_is_drawn():
    code = (
        "import sys; from crosschannel.core.plotting import Mark, draw_marks; "
        "from crosschannel.evaluation import plot_ladder; from crosschannel.reward.effects import plot_effects; "
        "assert 'matplotlib' not in sys.modules; draw_marks([Mark('a', 1.0)], 'value'); "
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
