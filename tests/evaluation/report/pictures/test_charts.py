"""Charts: their ticks, positions and colours, and what they show where there is nothing to draw."""

from __future__ import annotations

import csv
import io
import math
import re
from urllib.parse import unquote

import pytest
from markupsafe import Markup

from crosschannel.evaluation import Interval
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.evaluation.report.pictures import Picture, Row, row_chart
from crosschannel.evaluation.report.pictures.charts import Scale, round_ticks


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 0.003), (-12345.0, 5.0), (0.0, 1e-9), (-0.07, 0.03)])
def test_ticks_are_round_and_inside(low, high):
    found = round_ticks(low, high)
    assert 2 <= len(found) <= 6
    assert all(low <= tick <= high for tick in found)
    assert any(tick == 0 for tick in found)


def test_positions_follow_the_values():
    scale = Scale.of_values([-1.0, 3.0, math.nan, math.inf])
    assert (scale.low, scale.high) == pytest.approx((-1.2, 3.2))
    assert scale.x(1.0) == "50.00%"
    assert scale.width(3.0, -1.0) == scale.width(-1.0, 3.0) == "90.91%"
    same = Scale.of_values([0.0])
    assert same.x(0.0) == "50.00%"


def test_a_bar_that_begins_elsewhere_carries_its_interval_along():
    drawn = row_chart([Row("adds", Interval(1.0, 0.5, 1.5, 0.2), start=2.0), Row("value", Interval(0.0, 0, 0, 0))], "x")
    # The axis holds 0 to 3.5 and 5 % on either side.
    scale = Scale.of_values([0.0, 3.5])
    assert f'x1="{scale.x(2.5)}" x2="{scale.x(3.5)}"' in drawn
    assert f'cx="{scale.x(3.0)}"' in drawn
    assert f'x="{scale.x(2.0)}" y="4" width="{scale.width(0, 1)}"' in drawn
    assert "bar: what the step adds" in drawn
    assert "bar: " not in row_chart([Row("value", Interval(1, 0, 2, 1))], "x")


@pytest.mark.parametrize(
    ("interval", "signed", "tone"),
    [
        (Interval(1, 0.5, 2, 1), True, "better"),
        (Interval(-1, -2, -0.5, 1), True, "worse"),
        (Interval(1, -0.5, 2, 1), True, None),
        (Interval(1, 0.5, 2, 1), False, None),
    ],
)
def test_only_differences_whose_interval_excludes_zero_have_a_colour(interval, signed, tone):
    drawn = row_chart([Row("a", interval, signed=signed)], "x")
    assert re.findall(r'class="dot ?(\w*)"', drawn) == [tone or ""]


def test_rows_without_a_value_are_texts():
    empty = Row("a", UNDEFINED, note="not identified (ESS 3 < 5)")
    drawn = row_chart([empty], "difference")
    assert "not identified (ESS 3 &lt; 5)" in drawn
    assert "<svg" not in drawn
    assert "nothing to draw" in row_chart([], "difference")
    beside = row_chart([empty, Row("b", Interval(0.0, 0.0, 0.0, 0.0))], "difference")
    assert beside.count('aria-hidden="true"><line') == 1
    assert "nan" not in beside


def test_a_true_value_is_drawn_where_the_log_identifies_none():
    rows = [Row("a", UNDEFINED, note="not identified", marker=4.0), Row("b", Interval(1, 0, 2, 1))]
    drawn = row_chart(rows, "x")
    assert f'<svg x="{Scale.of_values([4.0]).x(4.0)}"' in drawn
    assert drawn.count("<circle") == 1
    assert "not identified, true +4" in drawn


def test_reference_and_second_values_are_named():
    rows = [Row("a", Interval(1, 0, 2, 1), marker=5.0), Row("b", Interval(1, 0, 2, 1))]
    drawn = row_chart(rows, "x", reference=0.5, reference_name="the log's mean", marker="expected")
    assert "dashed line: the log&#39;s mean (+0.5)" in drawn
    assert "+1 [0, 2], expected +5" in drawn
    assert drawn.count('class="reference"') == 2
    assert drawn.count('class="marker"') == 1
    # The axis has room for the second value.
    assert f'<svg x="{Scale.of_values([5.0]).x(5.0)}"' in drawn


def test_texts_are_escaped():
    row = Row("<a>`<b>`", Interval(0.0, 0.0, 0.0, 0.0), note="<c>", group="<d>")
    drawn = row_chart([row], "<e>", 1.0, "<f>")
    assert all(f"&lt;{name}&gt;" in drawn and f"<{name}>" not in drawn for name in "abcdef")
    assert "<code>&lt;b&gt;</code>" in drawn


def test_numbers_of_a_picture_are_a_file_within_the_page():
    rows = (('a, "b"', 1.5, math.nan), ("ü", -2.0, 3))
    picture = Picture("t", Markup(""), "c", "n", ("name", "x", "y"), rows)
    assert picture.href.startswith("data:text/csv;charset=utf-8,")
    found = list(csv.reader(io.StringIO(unquote(picture.href.partition(",")[2]))))
    assert found == [["name", "x", "y"], ['a, "b"', "1.5", ""], ["ü", "-2.0", "3"]]
