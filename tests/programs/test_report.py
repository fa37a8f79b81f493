"""The report of a real run: in a browser, and its numbers beside those of the evaluation."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from crosschannel import agents, evaluation
from crosschannel.reward import effects
from tests import ROOT
from tests.browser import needs_chromium, render
from tests.programs.samples import run_program


@pytest.fixture(scope="module")
def report(funnel_run) -> tuple[str, dict]:
    """The page of a run with a funnel and a constraint, and what `evaluation.json` holds."""
    run_program("evaluate.py", str(funnel_run), cwd=funnel_run.parent)
    return (funnel_run / "report.html").read_text(), json.loads(Path(funnel_run / "evaluation.json").read_text())


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1200, False)])
def test_report_of_a_real_run_in_a_browser(report, tmp_path, width, dark):
    found = render(report[0], tmp_path, width, dark=dark)
    assert found.console == []
    assert found.width <= found.viewport == width
    assert found.beyond == []
    assert found.smallest >= 11, found.smallest_text
    assert found.contrast >= 4.5, found.faintest


def test_numbers_in_the_report_are_those_of_the_evaluation(report):
    """The files within the page: the waterfall adds up, and every comparator is there."""
    page, stored = report
    files = {
        name: list(csv.DictReader(io.StringIO(unquote(html.unescape(text)))))
        for name, text in re.findall(r'download="([\w-]+).csv" href="data:text/csv;charset=utf-8,([^"]*)"', page)
    }
    assert files.keys() >= {"orders", "modules", "comparators", "choices", "periods", "segments", "weights"}
    assert files.keys() >= {"calibration", "cost-events", "expected", "event-study"}
    steps = files.get("waterfall", [])
    if steps and not any(row["not identified"] for row in steps):
        *parts, whole = [float(row["value"]) for row in steps]
        assert sum(parts) == pytest.approx(whole, abs=1e-9)
    names = [row["policy"] for row in files["comparators"]]
    assert names[1:] == [row["policy"] for row in stored["comparators"]]
    chosen = [row for row in files["choices"] if row["module"] == "channel"]
    assert sum(float(row["policy"]) for row in chosen) == pytest.approx(1)
    assert sum(float(row["logged"]) for row in chosen) == pytest.approx(1)
    assert sum(int(row["decisions"]) for row in files["weights"]) == stored["evaluation"]["decisions"]


def test_the_plots_of_a_finished_run_are_drawn_as_documented(report, funnel_run, tmp_path, monkeypatch):
    """The last snippet of docs/plots.md, with the run's own path."""
    (*_, snippet) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "plots.md").read_text(encoding="utf-8"), re.S)
    assert '"runs/first"' in snippet
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet.replace("runs/first", str(funnel_run)), "plots.md", "exec"), {})
    drawn = sorted(path.name for path in tmp_path.glob("*.png"))
    assert drawn == ["calibration.png", "costs.png", "policy.png", "waterfall.png", "weights.png"]


def test_every_plot_is_documented():
    page = (ROOT / "docs" / "plots.md").read_text(encoding="utf-8")
    names = {name for package in (agents, effects, evaluation) for name in package.__all__ if name.startswith("plot_")}
    assert len(names) >= 20
    assert not [name for name in names if f"{name}`" not in page]


def test_the_model_card_of_a_real_run_has_the_numbers_of_its_evaluation(report, funnel_run):
    page = (funnel_run / "MODEL_CARD.md").read_text(encoding="utf-8")
    stored = report[1]
    best = stored["evaluation"]["ladder"]["orders"][stored["evaluation"]["ladder"]["order"]]
    value = best["value"]
    assert f"Value: {value['point']:.6g} [{value['low']:.6g}, {value['high']:.6g}]" in page
    assert f"**{stored['gate']['verdict']}.**" in page
    for row in stored["constraints"]:
        assert f"| `{row['name']}` |" in page
        assert f"| {row['price']:.4g} | {row['use']:.4g} | {row['budget']:.4g} |" in page
    for cost in stored["gate"]["costs"]:
        assert f"| `{cost['event']}` | {cost['logged']:.3g} |" in page
    assert stored["judged"]["policy"][:12] in page
    assert stored["judged"]["history"] in page
    assert stored["history"].splitlines()[0] in page
    assert str(funnel_run) not in page  # the same card wherever the folder lies
