"""The report: every estimate is on it, in words that fit the numbers, and nothing unescaped."""

from __future__ import annotations

import json
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
from bandit_worlds import OFFERS, World

from evaluation import (
    EvaluationSettings,
    Interval,
    OutcomeModel,
    evaluate,
    findings,
    headline,
    html_page,
    text_table,
    to_dict,
    write_html,
)
from evaluation.report.forest_plot import forest_plot, ticks

NASTY = '<script>alert("x")</script> & co'


def evaluation(**changes: object):
    world = World.make(OFFERS, seed=1)
    log, cell, rewards = world.draw(np.random.default_rng(0), 400, 2)
    p = world.policy(cell)
    model = OutcomeModel.fit(OFFERS, world.one_hot(cell), log.actions, rewards, log.user)
    settings = {
        "settings": EvaluationSettings(replicates=60),
        "q_values": model.q_values(world.one_hot(cell), log.actions, p),
    }
    return evaluate(log, p, rewards, rng=np.random.default_rng(1), **{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def good():
    return evaluation(policy="agent")


@pytest.fixture(scope="module")
def poor():
    return evaluation(policy="agent", settings=EvaluationSettings(replicates=60, ess_floor=1e6))


def test_table_has_every_estimate(good):
    text = text_table(good)
    for e in good.estimates:
        place = e.module or "the whole action"
        row = next(line for line in text.splitlines() if line.startswith(f"{place}  ") and f" {e.estimator} " in line)
        for interval in (e.value, e.difference):
            assert f"{interval.point:+.4g} " in row
            assert f"[{interval.low:.4g}, {interval.high:.4g}]" in row
        assert f"{place}: {e.estimand}" in text
    assert "logged propensities" in text
    assert f"{good.logged.point:+.4g}" in text


def test_below_the_floor_the_table_says_so_and_gives_no_number(poor):
    text = text_table(poor)
    e = poor.get("snips")
    row = next(line for line in text.splitlines() if line.startswith("the whole action") and " snips " in line)
    assert row.endswith(f"not identified (ESS {e.support.ess:.0f} < 1e+06)")
    assert "nan" not in text


def test_plain_values_are_strict_json_and_complete(good, poor):
    first, second = (json.loads(json.dumps(to_dict(e), allow_nan=False)) for e in (good, poor))
    assert len(first["estimates"]) == len(good.estimates)
    for e, written in zip(good.estimates, first["estimates"], strict=True):
        assert written["value"]["point"] == e.value.point
        assert written["value"]["low"] == e.value.low
        assert written["support"]["ess"] == e.support.ess
        assert written["reason"] is None
    weighted = [e for e in second["estimates"] if e["estimator"] != "dm"]
    assert all(e["value"] is None and not e["identified"] and "ESS" in e["reason"] for e in weighted)


class Page(HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    VOID = ("meta", "line", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_data(self, data):
        self.text += data


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_page_has_every_estimate(good, poor, tmp_path):
    path = tmp_path / "report.html"
    write_html(path, [good, poor], {"reward": "did, 72h after minus 72h before"})
    page = parsed(path.read_text(encoding="utf-8"))
    for e in good.estimates:
        assert f"{e.value.point:+.4g}" in page.text
        assert e.estimand in page.text
        assert f"[{e.difference.low:.4g}, {e.difference.high:.4g}]" in page.text
    for e in poor.estimates:
        if not e.identified:
            assert f"not identified ({e.reason})" in page.text
    assert "did, 72h after minus 72h before" in page.text
    assert all(line in page.text for line in findings(good))
    assert page.seen.count("svg") == 2
    # Self-contained: nothing is fetched, nothing runs.
    assert page.links == []
    assert "script" not in page.seen


def test_page_escapes_what_it_is_given():
    result = replace(evaluation(policy=NASTY, reward_counts={NASTY: 3}), log=NASTY)
    named = tuple(replace(e, module=e.module and NASTY, estimand=NASTY + "\" onclick='x'") for e in result.estimates)
    text = html_page([replace(result, estimates=named)], {NASTY: NASTY}, title=NASTY)
    assert "<script" not in text
    assert escape(NASTY) in text
    assert '" onclick' not in text
    assert "script" not in parsed(text).seen


def difference(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, (high - low) / 4)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (difference(-0.1, 0.3), "The interval includes zero: the log does not show that agent is better or worse"),
        (difference(0.1, 0.3), "The log shows that agent is better than the logged policy"),
        (difference(-0.3, -0.1), "The log shows that agent is worse than the logged policy"),
    ],
)
def test_the_verdict_fits_the_interval(good, interval, words):
    changed = tuple(replace(e, difference=interval) for e in good.estimates)
    assert findings(replace(good, estimates=changed))[0].startswith(words)


def test_the_headline_is_doubly_robust_unless_it_is_not_identified(good, poor):
    assert headline(good).estimator == "dr"
    assert headline(good).module is None
    assert headline(poor).estimator == "dr"
    assert poor.get("dm").identified
    assert findings(poor)[0].startswith("The log does not identify the value of agent (ESS ")
    unmodelled = evaluation(q_values=None)
    assert headline(unmodelled).estimator == "snips"
    nothing = evaluation(q_values=None, settings=EvaluationSettings(replicates=60, ess_floor=1e6))
    assert findings(nothing)[0].startswith("The log does not identify the value of policy (ESS ")


def test_findings_name_what_the_numbers_rest_on(good):
    assert any("held fixed" in line for line in findings(good))
    estimated = replace(good, propensity_source="estimated")
    assert any("estimated propensities" in line for line in findings(estimated))
    assert "estimated propensities" in text_table(estimated)
    assert to_dict(estimated)["propensities"] == "estimated propensities"
    gaps = replace(good, reward_counts={"identified": good.decisions, "too few controls": 50})
    assert any("50 of 850 decisions have no reward" in line for line in findings(gaps))
    loss = replace(good, refitted=True, lost=0.2)
    assert any("20.0% of the rewards are not identified" in line for line in findings(loss))
    heavy = replace(
        good, estimates=tuple(replace(e, support=replace(e.support, largest_weight=100.0)) for e in good.estimates)
    )
    assert any("One decision carries" in line for line in findings(heavy))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 0.003), (-12345.0, 5.0), (0.0, 1e-9), (-0.07, 0.03)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 11
    assert all(low <= tick <= high for tick in found)
    assert any(tick == 0 for tick in found)


def test_a_plot_of_nothing_is_a_sentence():
    assert "No estimate is identified" in forest_plot([], "difference")
    assert "<svg" in forest_plot([("a", "dr", Interval(0.0, 0.0, 0.0, 0.0))], "difference")
