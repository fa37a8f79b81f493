"""The messages that docs/faq.md quotes are in the code, and its remedies name settings that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import crosschannel
from tests import ROOT

PAGE = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
FOLDERS = ("core", "histories", "reward", "agents", "envs", "evaluation", "pipeline", "programs")


@pytest.fixture(scope="module")
def texts() -> str:
    """Every text of the code, with the parts of one string or f-string joined; what is computed becomes `...`."""
    found = []
    for folder in FOLDERS:
        for path in (Path(crosschannel.__file__).parent / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_the_page_quotes_messages():
    assert len(QUOTED) >= 18
    assert len(set(QUOTED)) == len(QUOTED)


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_is_in_the_code(message: str, texts: str):
    assert message in texts


def test_the_page_is_found():
    assert "faq.md" in (ROOT / "mkdocs.yml").read_text()
    assert "faq.md" in (ROOT / "docs" / "index.md").read_text()
