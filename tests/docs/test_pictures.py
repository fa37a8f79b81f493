"""The pictures of the concepts are drawn again, and their pages quote the numbers that the drawing prints."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from tests import ROOT

#: What each page quotes: the number's name, its place in the sentence, and its digits.
QUOTED = {
    "funnel": [("opened", "{:.0%}"), ("gain", "{:.3f}"), ("direct", "{:.3f}"), ("ratio of errors", "{:.1f}")],
    "propensities": [("truth", "{:.3f}"), ("sent minus not sent", "{:.3f}"), ("weighted", "{:.3f}")],
    "identification": [("decisions", "{:,.0f}")],
    "ladder": [("ratio of widths", "{:.1f}")],
    "looks": [
        ("a plain test every day", "{:.0%}"),
        ("boundaries over all looks", "{:.0%}"),
        ("boundary at the end", "{:.1f}"),
    ],
}


@pytest.fixture(scope="module")
def concepts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("concepts", ROOT / "docs" / "pictures" / "concepts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_has_its_page(concepts: ModuleType):
    assert set(concepts.PICTURES) == set(QUOTED)
    for name in QUOTED:
        page = (ROOT / "docs" / "concepts" / f"{name}.md").read_text()
        assert f"../pictures/{name}.png" in page
        assert f"docs/pictures/concepts.py {name}" in page
        assert (ROOT / "docs" / "pictures" / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", QUOTED)
def test_a_picture_is_drawn_again_with_the_numbers_of_its_page(concepts: ModuleType, name: str, tmp_path):
    made, numbers = concepts.PICTURES[name]()
    made.savefig(tmp_path / f"{name}.png", dpi=concepts.DPI)
    if name == "ladder":
        widths = [numbers[f"parts add up, order {order}, half"] for order in (3, 1)]
        numbers["ratio of widths"] = widths[0] / widths[1]
    page = (ROOT / "docs" / "concepts" / f"{name}.md").read_text()
    for quoted, digits in QUOTED[name]:
        shown = digits.format(numbers[quoted]).replace("%", " %")
        shown = shown.removeprefix("0") if shown.startswith("0.") else shown
        assert re.search(rf"(?<![\d.]){re.escape(shown)}(?!\d)", page), f"{name}: {quoted} is {shown}"


def test_the_pictures_show_what_the_pages_say(concepts: ModuleType):
    _, found = concepts.identification()
    assert 0.5 <= found["last identified share"] < 1
    assert found["effective sample size"] < 200
    _, found = concepts.ladder()
    assert found["parts add up, headline"] == 1
    assert found["all three together earn more, headline"] == 3
    _, found = concepts.looks()
    assert found["boundaries over all looks"] < 0.06
    assert found["a plain test every day"] > 0.2
