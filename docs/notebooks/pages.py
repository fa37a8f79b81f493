"""Make a page of the site from each notebook: a hook of MkDocs, which `mkdocs.yml` names.

The notebooks have their output, so that a build of the site runs none of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

DOWNLOAD = "[Download this notebook]({name}.ipynb){{ .md-button }}"


def page_of(name: str, notebook: Mapping[str, Any]) -> tuple[str, dict[str, bytes]]:
    """Return the text of a notebook's page, and its pictures by their file names."""
    pictures: dict[str, bytes] = {}
    blocks: list[str] = []
    title = name
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            title = source.splitlines()[0].lstrip("# ") if source.startswith("#") else title
            continue
        blocks.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            blocks.extend(_output(name, output, pictures, title))
    head, *rest = blocks
    return "\n\n".join([head, DOWNLOAD.format(name=name), *rest]) + "\n", pictures


def _output(name: str, output: Mapping[str, Any], pictures: dict[str, bytes], title: str) -> Iterator[str]:
    """Yield what a cell wrote as text of the page, and collect its pictures."""
    data = output.get("data", {})
    if "image/png" in data:
        picture = f"{name}_{len(pictures) + 1}.png"
        pictures[picture] = base64.b64decode("".join(data["image/png"]))
        yield f"![{title}]({picture})"
    else:
        text = "".join(output.get("text", data.get("text/plain", ""))).strip("\n")
        yield f'```text title="output"\n{text}\n```'


def on_files(files: Files, /, *, config: MkDocsConfig) -> Files:
    """Add the pages and pictures of all notebooks; the notebooks themselves stay, to be downloaded."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        path = PurePosixPath(file.src_uri)
        notebook = json.loads((Path(config.docs_dir) / path).read_text(encoding="utf-8"))
        text, pictures = page_of(path.stem, notebook)
        files.append(File.generated(config, str(path.with_suffix(".md")), content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, str(path.with_name(name)), content=content))
    return files
