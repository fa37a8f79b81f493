"""The HTML report: every estimate is on it, nothing is unescaped, and it needs no other file."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from markupsafe import escape

from crosschannel.evaluation import caveats, render_html, verdict, write_html
from crosschannel.evaluation.report.html_report import ReportSection, ReportTable
from tests.evaluation.report.samples import evaluated, identified, not_identified

NASTY = '<script>alert("x")</script> & co'


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
    assert all(line in page.text for line in [verdict(good), *caveats(good)])
    # Nothing of the second is identified: there is no picture.
    assert page.seen.count("svg") == 1
    # Self-contained: nothing is fetched, nothing runs.
    assert page.links == []
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
    assert page.seen.count("details") == page.seen.count("summary") == 1
    assert "<td>1\n[0, 2]</td>" in text
    assert '<tr class="first"><td>' in text
    assert "Shadow price" in page.text
    assert "Shadow price" not in render_html([evaluated()])
