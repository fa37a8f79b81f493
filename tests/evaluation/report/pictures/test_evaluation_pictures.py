"""Pictures of an evaluation: a waterfall whose bars meet, the orders, and the modules."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest

from crosschannel.evaluation import Evaluation, Interval
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.evaluation.ladder.results import Ladder, WaterfallStep
from crosschannel.evaluation.report.pictures import module_picture, order_picture, waterfall_picture
from tests.evaluation.report.samples import identified, not_identified, refused


def numbers(picture) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(picture.csv)))


def with_steps(*steps: tuple[str, float | None]) -> Evaluation:
    """An evaluation whose waterfall has the given steps; None is one that is not identified."""
    evaluation = identified()
    ladder = evaluation.ladder or Ladder(
        factors=("offer",), independence="By design.", order=1, why="", orders=evaluation.estimates[:2]
    )
    kinds = {0: "logged", len(steps) - 1: "policy"}
    built = tuple(
        WaterfallStep(
            name,
            kinds.get(k, "channel" if k == 1 else "factor"),
            UNDEFINED if value is None else Interval(value, value - 1, value + 1, 0.5),
            "ESS 3 < 5" if value is None else "",
        )
        for k, (name, value) in enumerate(steps)
    )
    return replace(evaluation, ladder=replace(ladder, waterfall=built))


@pytest.mark.parametrize(
    ("steps", "begins"),
    [
        ([1.0, 2.0, -0.5, 2.5], ["0.0", "1.0", "3.0", "0.0"]),
        # A gap: what follows it ends at the policy's value.
        ([1.0, 2.0, None, 0.5, 4.0], ["0.0", "1.0", "", "3.5", "0.0"]),
        ([1.0, None, 2.0, None, 0.5, 4.0], ["0.0", "", "", "", "3.5", "0.0"]),
        ([1.0, None, 4.0], ["0.0", "", "0.0"]),
        ([1.0, 3.0, 4.0], ["0.0", "1.0", "0.0"]),
        # The policy's value is a gap: steps follow each other from the log's value on.
        ([1.0, 3.0, None], ["0.0", "1.0", "0.0"]),
        ([1.0, 3.0, None, 2.0, None], ["0.0", "1.0", "", "", "0.0"]),
    ],
)
def test_bars_of_the_waterfall_meet(steps, begins):
    picture = waterfall_picture(with_steps(*((f"step {k}", value) for k, value in enumerate(steps))))
    assert picture is not None
    assert [row["begins at"] for row in numbers(picture)] == begins
    assert picture.drawing.count('class="label"') == len(steps)
    unknown = steps.count(None)
    assert ("does not identify" in picture.caption) == (None in steps[:-1])
    assert ("add up exactly" in picture.caption) == (steps[-1] is not None)
    assert picture.drawing.count("not identified (ESS 3 &lt; 5)") == unknown
    assert [row["not identified"] for row in numbers(picture)].count("ESS 3 < 5") == unknown


def test_the_caption_of_the_waterfall_names_the_largest_step():
    picture = waterfall_picture(with_steps(("logged", 1.0), ("channel", 0.5), ("offer", -3.0), ("policy", -1.5)), 0.25)
    assert picture is not None
    assert "The largest is its `offer`, given its channel: -3 [-4, -2], which excludes zero." in picture.caption
    assert "true +0.25" in picture.drawing
    assert picture.drawing.count('class="dot worse"') == 1
    # The interval of the channel is [-.5, 1.5].
    assert "better" not in picture.drawing


def test_there_is_no_waterfall_without_steps():
    ladder = with_steps(("logged", 1.0), ("policy", 1.0)).ladder
    assert ladder is not None
    assert waterfall_picture(replace(identified(), ladder=None)) is None
    assert waterfall_picture(replace(identified(), ladder=replace(ladder, waterfall=()))) is None
    assert order_picture(replace(identified(), ladder=None)) is None


def test_orders_show_the_value_and_its_assumption_or_why_there_is_none():
    for evaluation in (identified(), not_identified(), refused()):
        picture = order_picture(evaluation, 0.5)
        assert (picture is None) == (evaluation.ladder is None)
        if picture is None or evaluation.ladder is None:
            continue
        assert picture.drawing.count("(headline)") == 1
        for row, e in zip(numbers(picture), evaluation.ladder.orders, strict=True):
            assert (row["value"] != "") == e.value.is_defined
            assert row["not identified"] == e.reason
        shown = sum(e.identified for e in evaluation.ladder.orders)
        assert picture.drawing.count('class="marker"') == shown


def test_modules_are_shown_by_one_estimator_that_is_not_the_diagnostic():
    picture = module_picture(identified())
    assert picture is not None
    assert {row["estimator"] for row in numbers(picture)} == {"dr"}
    poor = module_picture(not_identified())
    assert poor is not None
    assert "identifies none of them" in poor.caption
    assert all(math.isnan(float(row["value"] or "nan")) for row in numbers(poor))
    whole = replace(identified(), estimates=tuple(e for e in identified().estimates if e.module is None))
    assert module_picture(whole) is None
