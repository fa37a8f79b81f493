"""Words that were replaced do not come back: in documentation, help texts, messages, docstrings and names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

PACKAGES = ("core", "histories", "reward", "agents", "envs", "evaluation", "engines", "pipeline", "examples")
SOURCES = sorted(
    [
        *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")),
        *(ROOT / "crosschannel").glob("*.py"),
        ROOT / "crosschannel" / "programs" / "effects.py",
        *ROOT.glob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]
)
# docs/glossary.md defines the terms; this list is what a reader must not find any more, with what is written instead.
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").glob("*.yaml")])
REPLACED_IN_TEXT = {
    r"\banew\b": "again",
    r"\bobey(s|ed)?\b": "follow",
    r"\bopens? the envelope\b": "compare with the ground truth",
    r"\bstrays?\b": "deviate",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bhangs? on\b": "depends on",
    r"\bthe house\b": "the package",
    r"\brooms?\b": "package",
    r"\bis no (action|agent|array|class|control|file|folder|history|run|setting|step|text|time)\b": "is not a",
    r"\b(go|goes) on (with|after|from|to the same)\b": "resume",
    r"\bhalf learned\b": "not finished",
    r"\bspeaks? (for|against)\b": "supports, contradicts",
    r"\bthe log can(not)? (say|tell)\b": "the log can identify",
    r"\boutcome model's opinion\b": "relies on the outcome model alone",
    r"\b(end|ends|users are|was|who are) gone\b": "churned",
    r"\bpython -m reward\b": "crosschannel effects",
    r"\bexperiment/": "pipeline/",
}
REPLACED_NAMES = {
    *("Gauge", "gauge", "Study", "Sums", "Coordinates", "Sheet", "Modules", "Followers", "Happenings", "Opening"),
    *("from_plain", "to_plain", "imported", "gone", "gone_at", "gone_events", "GONE_EVENTS", "stake", "rivals"),
    *("trust", "TRUSTS", "CONVINCING", "composites", "known_columns", "html_page", "Prepared", "recipe", "recipe_of"),
    *("Assessment", "explained", "say", "ess_floor", "users_floor", "unsupported_limit", "elapsed"),
    *("updates", "final_steps", "rhythm", "widen", "embedded_log", "findings", "turns"),
}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of all that a person reads: a page's lines, or a module's string constants."""
    content = path.read_text()
    if path.suffix != ".py":
        yield from enumerate(content.splitlines(), start=1)
        return
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and identifier of what a module defines: classes, functions, arguments, attributes and settings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.lineno, node.target.id
        elif isinstance(node, ast.Assign):
            yield from ((node.lineno, target.id) for target in node.targets if isinstance(target, ast.Name))


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_replaced_word_in_what_people_read(path):
    if path == ROOT / "CHANGELOG.md":
        pytest.skip("names what was replaced")
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]!r}; write {instead!r}"
        for line, text in texts(path)
        for pattern, instead in REPLACED_IN_TEXT.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_replaced_name(path):
    found = [f"{path.relative_to(ROOT)}:{line}: {name}" for line, name in names(path) if name in REPLACED_NAMES]
    assert not found, "\n".join(found)
