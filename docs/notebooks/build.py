"""Make the notebooks from their sources, which are scripts in the percent format.

python docs/notebooks/build.py                 run all notebooks in full, and write each with its output
python docs/notebooks/build.py letters         one of them

A source is `NAME.py`: cells begin with `# %%`, text cells with `# %% [markdown]`, and the cell of parameters with
`# %% tags=["parameters"]`. Edit the source, never the notebook; a test compares them.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode, v4

HERE = Path(__file__).resolve().parent
NAMES = ("email_test", "letters", "market", "closed_loop")
MARKER = re.compile(r"^# %%(?P<text> \[markdown\])?(?: tags=\[\"(?P<tag>\w+)\"\])?\n", re.MULTILINE)
SECONDS = 1800


def read_source(name: str) -> NotebookNode:
    """Return the notebook of a source, without output."""
    source = (HERE / f"{name}.py").read_text(encoding="utf-8")
    found = list(MARKER.finditer(source))
    ends = [*(mark.start() for mark in found[1:]), len(source)]
    bodies = [source[mark.end() : end].strip("\n") for mark, end in zip(found, ends, strict=True)]
    cells = [_cell(mark, body, k) for k, (mark, body) in enumerate(zip(found, bodies, strict=True))]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def _cell(mark: re.Match[str], body: str, number: int) -> NotebookNode:
    if mark["text"]:
        cell = v4.new_markdown_cell("\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines()))
    else:
        cell = v4.new_code_cell(body, metadata={"tags": [mark["tag"]]} if mark["tag"] else {})
    cell["id"] = f"cell-{number}"
    return cell


def execute(notebook: NotebookNode, folder: Path, parameters: Mapping[str, Any] | None = None) -> NotebookNode:
    """Run a notebook in a folder, with other values of its parameters if they are given, and return it with output."""
    notebook = nbformat.from_dict(notebook)
    if parameters:
        (parameter_cell,) = [
            k for k, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())
        ]
        given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(parameter_cell + 1, v4.new_code_cell(given, id="given"))
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=place).execute()
    return notebook


def without_run_details(notebook: NotebookNode) -> NotebookNode:
    """Remove what differs from run to run: times, progress on the error stream, and versions."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main() -> None:
    """Run the notebooks that are named, or all."""
    for name in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            made = without_run_details(execute(read_source(name), Path(folder)))
        path = HERE / f"{name}.ipynb"
        nbformat.write(made, path)
        print(f"{path.name}: {len(made.cells)} cells, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
