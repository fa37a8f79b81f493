"""The HTML report: every estimate is on it, nothing is unescaped, and it needs no other file."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from crosschannel.evaluation import caveats, render_html, verdict, write_html
from crosschannel.evaluation.report.page import Card, ReportSection, ReportTable
from tests.browser import needs_chromium, render
from tests.evaluation.report.samples import evaluated, identified, not_identified

NASTY = '<script>alert("x")</script> & co'


class Page(HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    VOID = ("meta",)

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


def test_page_has_every_estimate(tmp_path):
    good, poor = identified(), not_identified()
    path = tmp_path / "report.html"
    write_html(path, [good, poor], {"reward": "did, 72h after minus 72h before"})
    page = parsed(path.read_text(encoding="utf-8"))
    for e in (e for e in good.estimates if e.estimator != "dm"):
        assert f"{e.value.point:+.4g}" in page.text
        assert e.estimand in page.text
        assert f"[{e.difference.low:.4g}, {e.difference.high:.4g}]" in page.text
    for e in poor.estimates:
        if not e.identified:
            assert f"not identified ({e.reason})" in page.text
    assert "did, 72h after minus 72h before" in page.text
    assert all(line.replace("`", "") in page.text for line in [verdict(good), *caveats(good)])
    # Every picture has its text and its numbers.
    assert page.seen.count("figure") == page.seen.count("figcaption") == len(page.links) > 1
    # Self-contained: nothing is fetched, nothing runs.
    assert all(link.startswith("data:text/csv") for link in page.links)
    assert "script" not in page.seen


def test_page_escapes_what_it_is_given():
    result = replace(evaluated(policy=NASTY, reward_counts={NASTY: 3}), log=NASTY)
    named = tuple(replace(e, module=e.module and NASTY, estimand=NASTY + "\" onclick='x'") for e in result.estimates)
    text = render_html([replace(result, estimates=named)], {NASTY: NASTY}, title=NASTY)
    assert "<script" not in text
    assert escape(NASTY) in text
    assert '" onclick' not in text
    assert "script" not in parsed(text).seen


def test_sections_beside_the_evaluations_are_escaped_and_folded_where_asked():
    tables = (
        ReportTable("first", ("module", NASTY), (("channel", "1\n[0, 2]"), (NASTY, "-")), frozenset({1})),
        ReportTable(NASTY, ("a",), (("x",),), folded=True),
    )
    text = render_html([evaluated()], more=[ReportSection("What it sends", (NASTY,), tables)])
    page = Page()
    page.feed(text)
    assert not page.open
    assert "script" not in page.seen
    assert text.count(str(escape(NASTY))) == 4
    assert text.index("What it sends") < text.index("<td>1\n[0, 2]</td>")
    assert page.seen.count("details") == page.seen.count("summary") == 3
    assert "<td>1\n[0, 2]</td>" in text
    assert '<tr class="first"><td>' in text
    assert "shadow price" in page.text
    assert "shadow price" not in render_html([evaluated()])


CARD = Card(
    verdict="not identified",
    reason=f"Because of {NASTY}.",
    facts={"value": NASTY, "x" * 200: "y" * 300},
    caveats=("One `caveat`.",),
    next_steps=("Collect more.", NASTY),
)


def test_the_card_comes_first_and_takes_the_place_of_the_verdicts():
    text = render_html([identified()], card=CARD, title="run")
    page = parsed(text)
    assert "script" not in page.seen
    assert '<section class="card not-identified">' in text
    first, card, where = (text.index(each) for each in ("<h1>", "Not identified", "Where the value comes from"))
    assert first < card < where
    assert "One <code>caveat</code>." in text
    assert all(part in page.text for part in ("Collect more.", "What to do next", "What limits this answer"))
    assert verdict(identified()) not in page.text
    bare = render_html([identified()], card=Card("hold", "Why.", {}))
    assert "What to do next" not in bare
    assert "What limits this answer" not in bare


def test_the_true_value_stands_beside_the_estimate_of_its_policy_only():
    good = identified()
    assert "diamond: true value" in render_html([good], truth={good.policy: 0.0123})
    assert "true +0.0123" in render_html([good], truth={good.policy: 0.0123})
    assert "diamond" not in render_html([good], truth={"another": 0.0123})
    assert "diamond" not in render_html([good])


@needs_chromium
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_page_in_a_browser(tmp_path, width, dark):
    long_name = "an_action_whose_name_never_ends_" * 8
    wide = ReportTable("wide", ("a",) * 12, (("0.123456789 [0.1, 0.2]",) * 12,))
    more = [ReportSection(long_name, (long_name,), (wide,))]
    text = render_html([identified(), not_identified()], {long_name: long_name}, "run", more, card=CARD)
    found = render(text, tmp_path, width, dark=dark)
    assert found.console == []
    assert found.viewport == width
    assert found.width <= width
    assert found.beyond == []
    assert found.smallest >= 11, found.smallest_text
    assert found.contrast >= 4.5, found.faintest
    assert found.background == ("rgb(28, 34, 42)" if dark else "rgb(245, 247, 250)")


@needs_chromium
def test_the_browser_finds_what_is_wrong(tmp_path):
    page = (
        '<p style="font-size:9px">x</p><div style="width:600px">wide</div><svg viewBox="0 0 100 10" width="50">'
        '<text font-size="18">y</text></svg><p style="color:#bbb">z</p><script>console.error("failed")</script>'
    )
    found = render(page, tmp_path, 390)
    assert (found.smallest, found.smallest_text) == (9, "x")
    assert found.width > 390
    assert found.faintest == "z"
    assert len(found.console) == 1
    scaled = render('<svg viewBox="0 0 100 10" width="50"><text y="9" font-size="18">y</text></svg>', tmp_path, 391)
    assert scaled.smallest == 9
