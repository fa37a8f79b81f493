"""Pictures of what a policy does: what they draw, what their captions name, and when there is none."""

from __future__ import annotations

import csv
import io
import math

import pandas as pd

from crosschannel.evaluation import CalibrationBin, CostEvent, Interval, WeightBin
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.pipeline.judgement.records import ActionShare, Calibration, EventBin
from crosschannel.pipeline.report.behaviour import (
    calibration_picture,
    cost_picture,
    event_picture,
    period_picture,
    segment_picture,
    share_picture,
    weight_picture,
    worth_picture,
)


def numbers(picture) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(picture.csv)))


SHARES = (
    ActionShare("", "channel", "none", 0.6, 0.9, 10),
    ActionShare("", "channel", "email", 0.4, 0.1, 10),
    ActionShare("", "tone", "plain", math.nan, 1.0, 10),
    ActionShare("2026-01-01", "channel", "none", 0.5, 0.8, 4),
    ActionShare("2026-01-01", "channel", "email", 0.5, 0.2, 4),
    ActionShare("2026-01-08", "channel", "none", 0.7, 1.0, 6),
    ActionShare("2026-01-08", "channel", "email", 0.3, 0.0, 6),
)


def test_choices_name_the_largest_change():
    picture = share_picture(SHARES)
    assert picture is not None
    assert "`channel` none: 60.0% in the log, 90.0% by the policy" in picture.caption
    assert [row["action"] for row in numbers(picture)] == ["none", "email", "plain"]
    assert numbers(picture)[2]["logged"] == ""
    assert share_picture(()) is None


def test_periods_are_drawn_as_messages_and_channels():
    picture = period_picture(SHARES)
    assert picture is not None
    assert "at 0.0% to 20.0% of the decisions, the log at 30.0% to 50.0%" in picture.caption
    assert picture.drawing.count('class="label"') == 2
    assert len(numbers(picture)) == 4
    assert period_picture(SHARES[:5]) is None


def table(*rows) -> pd.DataFrame:
    names = ("segment", "decisions", "module", "given", "action", "share", "reward", "low", "high")
    return pd.DataFrame(rows, columns=names)


TABLE = table(
    ("all decisions", 30, "channel", "any", "none", 0.8, 0.0, 0.0, 0.0),
    ("all decisions", 30, "channel", "any", "email", 0.2, 0.5, 0.1, 0.9),
    ("ios", 10, "channel", "any", "none", 0.6, 0.0, 0.0, 0.0),
    ("ios", 10, "channel", "any", "email", 0.4, 0.6, 0.1, 0.9),
    ("web", 20, "channel", "any", "none", 0.9, 0.0, 0.0, 0.0),
    ("web", 20, "channel", "any", "email", 0.1, 0.6, 0.1, 0.9),
)


def test_segments_name_the_most_and_the_least():
    picture = segment_picture(TABLE)
    assert picture is not None
    assert "most to ios (10): 40.0% of decisions, and least to web (20): 10.0%" in picture.caption
    assert picture.drawing.index("ios") < picture.drawing.index("web")
    assert "all decisions 20.0%" in picture.drawing
    assert segment_picture(TABLE[:2]) is None
    assert segment_picture(TABLE[:0]) is None


def test_the_agents_own_estimates_are_never_drawn_as_proven():
    picture = worth_picture(TABLE)
    assert picture is not None
    assert "better" not in picture.drawing
    assert picture.drawing.count('class="label"') == 1
    assert "do not show what the actions are worth" in picture.caption
    assert worth_picture(TABLE.assign(reward=math.nan)) is None


def test_what_the_agent_expects_given_a_channel_has_a_group_of_its_own():
    offers = table(
        ("all decisions", 30, "offer", "any", "discount", 0.5, 0.0, -0.1, 0.1),
        ("all decisions", 30, "offer", "email", "discount", 0.5, 0.4, 0.3, 0.5),
        ("all decisions", 30, "offer", "push", "discount", 0.5, -0.4, -0.5, -0.3),
    )
    picture = worth_picture(pd.concat([TABLE, offers]))
    assert picture is not None
    assert [f"offer given {channel}" in picture.drawing for channel in ("any", "email", "push")] == [False, True, True]
    assert [row["given"] for row in numbers(picture)][-3:] == ["any", "email", "push"]


def test_weights_name_the_bin_that_causes_the_error():
    bins = (
        WeightBin(math.nan, 0.0, 10, 0.1, 0.0),
        WeightBin(0.0, 0.5, 0, 0.0, 0.0),
        WeightBin(0.5, 1.0, 89, 0.89, 0.2),
        WeightBin(50.0, math.nan, 1, 0.01, 0.8),
    )
    picture = weight_picture(bins, 25.4)
    assert picture is not None
    assert "100 decisions are as precise as 25" in picture.caption
    assert "weight above 50 are 1.0% of the decisions and have 80% of the squared weights" in picture.caption
    assert picture.drawing.count('class="label"') == 3
    assert len(numbers(picture)) == 4
    assert "as precise as - equally" in weight_picture(bins, math.nan).caption  # type: ignore[union-attr]
    assert weight_picture((), 25.4) is None


def test_calibration_counts_the_groups_outside():
    bins = (CalibrationBin(0.1, 0.2, 0.0, 0.4, 20), CalibrationBin(0.9, 0.3, 0.1, 0.5, 20))
    picture = calibration_picture(bins, Calibration(0.7, 0.1, 0.0, 0.8, 0.1))
    assert picture is not None
    assert "In 1 of 2 groups" in picture.caption
    assert "0.70 +- 0.20" in picture.caption
    assert picture.drawing.count('class="marker"') == 2
    assert calibration_picture((), None) is None


def test_cost_events_show_rates_or_why_there_are_none():
    known = CostEvent("unsubscribed", 0.01, Interval(0.02, 0.01, 0.03, 0.005))
    unknown = CostEvent("blocked", 0.02, UNDEFINED, "ESS 3 < 5")
    picture = cost_picture((known, unknown))
    assert picture is not None
    assert "`unsubscribed` follows 2.000% [1.000%, 3.000%]" in picture.caption
    assert "blocked" not in picture.caption
    assert "not identified (ESS 3 &lt; 5), logged +0.02" in picture.drawing
    assert "does not identify" in cost_picture((unknown,)).caption  # type: ignore[union-attr]
    assert cost_picture(()) is None


def test_the_event_study_shows_what_is_tested_and_what_was_found():
    bins = (
        EventBin(-2.0, 0.1, 0.0, 0.2, True),
        EventBin(-1.0, 0.0, math.nan, math.nan, False),
        EventBin(0.0, 0.5, 0.4, 0.6, False),
    )
    picture = event_picture(bins, "Pre-trends failed: for a reason.")
    assert picture is not None
    assert picture.caption.endswith("Pre-trends failed: for a reason.")
    assert picture.drawing.count("tested: should be 0") == 1
    assert picture.drawing.count(">not identified<") == 1
    assert picture.drawing.count('class="group"') == 2
    assert [row["tested"] for row in numbers(picture)] == ["1", "0", "0"]
    assert event_picture((), "") is None
