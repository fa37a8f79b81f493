"""Charts of two amounts: their scales, gaps and texts."""

from __future__ import annotations

import math
import re

from crosschannel.evaluation.report.pictures import Lines, Pair, line_chart, pair_chart


def test_bars_are_shares_of_the_longest():
    drawn = pair_chart([Pair("a", 0.5, 0.25, "g"), Pair("<b>", math.nan, 0.0, "g")], ("log", "policy"), "share")
    assert re.findall(r'width="([\d.]+)%"/>', drawn) == ["100.00", "50.00", "0.00"]
    assert "log 50.0%, policy 25.0%" in drawn
    assert "log -, policy 0.0%" in drawn
    assert drawn.count('class="group"') == 1
    assert "&lt;b&gt;" in drawn
    assert "nan" not in drawn


def test_bars_that_are_all_zero_and_no_bars():
    drawn = pair_chart([Pair("a", 0.0, 0.0)], ("log", "policy"), "share")
    assert re.findall(r'width="([\d.]+)%"/>', drawn) == ["0.00", "0.00"]
    assert "nothing to draw" in pair_chart([Pair("a", math.nan, math.nan)], ("log", "policy"), "share")


def test_lines_join_neighbours_and_leave_gaps():
    drawn = line_chart([Lines("a", [0.0, 0.5, math.nan, 1.0], [0.1] * 4)], list("wxyz"), ("log", "policy"), "share")
    # Of the first line two points are neighbours; the second has three joints.
    assert drawn.count('class="path second"') == 1
    assert drawn.count('class="path first"') == 3
    assert drawn.count("<circle") == 3
    assert drawn.count("<rect") == 4
    assert 'x1="2.00%" x2="34.00%" y1="49.0" y2="27.0"' in drawn
    assert "log 0.0% to 100.0%, policy 10.0% to 10.0%" in drawn
    assert ">w</text>" in drawn
    assert ">z</text>" in drawn


def test_one_period_and_none():
    assert line_chart([Lines("a", [0.2], [0.3])], ["w"], ("log", "policy"), "share").count("<circle") == 1
    assert "nothing to draw" in line_chart([Lines("a", [math.nan], [math.nan])], ["w"], ("log", "policy"), "share")
