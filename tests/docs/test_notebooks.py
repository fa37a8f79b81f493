"""The notebooks: they are what their sources say, run in their quick form, and find what is true."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat import NotebookNode, v4

from tests import ROOT, SHARED_DATA

FOLDER = ROOT / "docs" / "notebooks"
NAMES = ("email_test", "letters", "market", "closed_loop")
#: What a wheel brings, and what a notebook may import beside the standard library.
ALLOWED = {"crosschannel", "matplotlib", "numpy", "pandas"}
#: An estimate, its standard error and the truth, as JSON, from a notebook that has run.
FOUND = {
    "email_test": "values['personal'].point, values['personal'].se, truth['personal']",
    "letters": "chosen.value.point, chosen.value.se, truth",
    "market": "found.value.point, found.value.se, truth",
    "closed_loop": "lift.point, lift.se, truth",
}


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The program that makes the notebooks."""
    sys.path.insert(0, str(FOLDER))
    try:
        import build

        return build
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel finds this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def stored(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_of(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def run(build: ModuleType, name: str, folder: Path, parameters: Mapping[str, Any]) -> tuple[str, list[float]]:
    """Run a notebook, and return what it printed, and its estimate, standard error and truth."""
    notebook = build.read_source(name)
    notebook.cells.append(v4.new_code_cell(f"import json; print(json.dumps([float(x) for x in ({FOUND[name]},)]))"))
    done = build.execute(notebook, folder, parameters)
    texts = [out["text"] for cell in done.cells for out in cell.get("outputs", ()) if out.get("name") == "stdout"]
    return "\n".join(texts[:-1]), json.loads(texts[-1])


def test_all_notebooks_are_named(build: ModuleType):
    assert set(NAMES) == set(build.NAMES) == {path.stem for path in FOLDER.glob("*.ipynb")}
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert all(f"notebooks/{name}.md" in navigation for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_what_its_source_says(build: ModuleType, name: str):
    made, source = stored(name), build.read_source(name)
    assert [(c.cell_type, c.source, c.metadata.get("tags")) for c in made.cells] == [
        (c.cell_type, c.source, c.metadata.get("tags")) for c in source.cells
    ], f"run: python docs/notebooks/build.py {name}"
    outputs = [out for cell in made.cells for out in cell.get("outputs", ())]
    assert outputs
    assert not [out for out in outputs if out.output_type == "error"]
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 2
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 300_000


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_asks_and_answers(name: str):
    texts = [cell.source for cell in stored(name).cells if cell.cell_type == "markdown"]
    assert texts[0].splitlines()[0].endswith("?")
    assert "**The question:**" in texts[0]
    assert texts[-1].startswith("## The answer")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_needs_the_wheel_alone(build: ModuleType, name: str):
    tree = ast.parse("\n".join(code_of(build.read_source(name))))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in imported} - set(sys.stdlib_module_names) <= ALLOWED


@pytest.mark.parametrize("name", ["email_test", "letters", "closed_loop"])
def test_a_notebook_runs_in_its_quick_form_and_finds_the_truth(build: ModuleType, name: str, tmp_path: Path):
    """Within four standard errors, as one estimate of a fixed seed."""
    shown, (point, se, truth) = run(build, name, tmp_path, {"QUICK": True})
    assert "The truth" in shown.splitlines()[-1]
    assert abs(point - truth) < 4 * se


def test_the_market_runs_in_its_quick_form(build: ModuleType, tmp_path: Path):
    """400 users do not identify a policy's value: the notebook says so, and what would."""
    shown, (point, se, _) = run(build, "market", tmp_path, {"QUICK": True})
    assert np.isnan([point, se]).all()
    assert "Verdict: not identified" in shown
    assert "would be identified with at least" in shown
    assert (tmp_path / "runs" / "market" / "report.html").is_file()


def run_cells(build: ModuleType, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Run a notebook's code without a kernel, and return its variables."""
    import matplotlib

    matplotlib.use("Agg")
    variables: dict[str, Any] = {}
    for cell in build.read_source(name).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{name}.py", "exec"), variables)
        if "parameters" in cell.metadata.get("tags", ()):
            variables.update(parameters)
    return variables


def letters_file(path: Path, n: int = 20_000) -> Path:
    """Write a table of Karlan & List's columns in which only the example amount matters."""
    rng = np.random.default_rng(5)
    offered, parts = (rng.random(n) < 2 / 3) * 1, np.stack([rng.integers(k, size=n) for k in (3, 4, 3)])
    table = {"person": np.arange(n), "treatment": offered}
    names = (("", "ratio2", "ratio3"), ("size25", "size50", "size100", "sizeno"), ("askd1", "askd2", "askd3"))
    for part, group in zip(parts, names, strict=True):
        table |= {f"treat_{name}": offered * (part == k) for k, name in enumerate(group) if name}
    chance = np.where(offered, 0.02 + 0.1 * (parts[2] == 1), 0.02)
    table |= {"out_gavedum": (rng.random(n) < chance) * 1, "hpa": rng.gamma(2, 30, n)}
    pd.DataFrame(table).to_csv(path, index=False)
    return path


def test_letters_of_a_file_are_read(build: ModuleType, tmp_path: Path):
    found = run_cells(build, "letters", {"QUICK": True, "PATH": str(letters_file(tmp_path / "letters.csv.gz"))})
    assert found["form"][2] == 1
    assert abs(found["chosen"].value.point - 0.12) < 4 * found["chosen"].value.se
    assert found["low"] > 0


def test_a_test_of_e_mails_of_a_file_is_read(build: ModuleType, tmp_path: Path):
    """Hillstrom's columns, where the women's e-mail is worth .3 visits and the men's nothing."""
    rng, n = np.random.default_rng(6), 6_000
    segment = rng.choice(["Mens E-Mail", "Womens E-Mail", "No E-Mail"], n)
    table = pd.DataFrame({"recency": rng.integers(1, 13, n), "history_segment": "1) $0 - $100", "history": 50.0})
    table["history"] += rng.random(n)
    table["mens"], table["womens"], table["newbie"] = rng.integers(0, 2, (3, n))
    table = table.assign(zip_code="Rural", channel="Web", segment=segment)
    table["visit"] = (rng.random(n) < 0.1 + 0.3 * (segment == "Womens E-Mail")) * 1
    table.assign(conversion=0, spend=0.0).to_csv(tmp_path / "emails.csv", index=False)
    found = run_cells(build, "email_test", {"QUICK": True, "PATH": str(tmp_path / "emails.csv")})
    assert found["personal"][:, 2].mean() > 0.99
    assert abs(found["values"]["personal"].point - 0.27) < 4 * found["values"]["personal"].se
    assert found["truth"] == {}


def test_the_letters_of_karlan_and_list(build: ModuleType):
    """Published: .01786 gave without the offer, .02204 with it."""
    path = SHARED_DATA / "karlan_list" / "charitable.csv.gz"
    if not path.is_file():
        pytest.skip("the file of the experiment is not there: its terms do not allow to commit it")
    found = run_cells(build, "letters", {"QUICK": True, "PATH": str(path)})
    assert found["lift"].control == pytest.approx(0.01786, abs=5e-6)
    assert found["lift"].difference == pytest.approx(0.02204 - 0.01786, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_in_full_and_finds_the_truth(build: ModuleType, name: str, tmp_path: Path):
    _, (point, se, truth) = run(build, name, tmp_path, {})
    assert abs(point - truth) < 4 * se
