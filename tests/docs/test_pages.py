"""Every command on every page exists, with the flags, files and tests that it names; every block says what it is."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from crosschannel.__main__ import COMMANDS
from tests import ROOT
from tests.docs.pages import NOT_RUN, PAGES, RUN_BY, all_blocks, command_lines, inline_commands, read_blocks

LANGUAGES = {"python", "yaml", "sh", "console", "text", "toml"}
BLOCKS = all_blocks(*LANGUAGES, "")
COMMAND = re.compile(r"^([A-Z_]+=\S* ?)?(\$\S* |crosschannel |python |pip |pytest |make )", re.MULTILINE)
#: Commands in prose that stand for several.
INCOMPLETE = ("crosschannel train, evaluate", "crosschannel decide ...")


def ids(block: object) -> str:
    return getattr(block, "name", str(block))


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_a_block_says_what_it_is(block):
    assert block.language in LANGUAGES, f"{block.name} has no language: sh, python, yaml, ... or text"
    if block.language == "text":
        assert not COMMAND.search(block.text), f"{block.name} is text, but has a command"
    if block.language == "yaml":
        yaml.safe_load(block.text)
    if block.language == "toml":
        tomllib.loads(block.text)
    if block.note:
        kind, _, rest = block.note.partition(": ")
        assert f"{kind}: " in (NOT_RUN, RUN_BY), f"{block.name}: {block.note}"
        assert len(rest) > 10
        if f"{kind}: " == RUN_BY:
            named = re.findall(r"examples/(\w+\.py)", block.text) or [Path(block.page).name]
            assert named[0] in (ROOT / rest).read_text(), f"{rest} does not name {named[0]}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_a_page_includes_is_found(path: Path):
    """A line that a formatter has changed is shown as it is, and no code with it."""
    text = path.read_text(encoding="utf-8")
    parts = re.findall(r'^--8<-- "([^":]+)(?::\w+)?"$', text, re.MULTILINE)
    parts += re.findall(r"^--8<--\n(\S+)\n--8<--$", text, re.MULTILINE)
    for part in parts:
        assert (ROOT / part).is_file(), part
    marks = len(re.findall(r"^-- *8", text, re.MULTILINE))
    assert marks == text.count('\n--8<-- "') + 2 * len(re.findall(r"^--8<--\n\S+\n--8<--$", text, re.MULTILINE))


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_files_that_a_map_names_are_there(page: str):
    tops = "core|histories|reward|envs|agents|evaluation|engines|pipeline|crosschannel|tests|docs|configs"
    named = re.findall(rf"`((?:{tops})/[\w/]*(?:\.py)?)`", (ROOT / page).read_text(encoding="utf-8"))
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists() and "NAME" not in name]


COMMANDS_OF_PAGES = [
    pytest.param(command, id=f"{block.name} {command[:60]}")
    for block in BLOCKS
    if block.language in ("sh", "console") and block.title != "daily.sh"
    for command in command_lines(block.text)
] + [
    pytest.param(command, id=f"{path.name} {command[:60]}")
    for path in PAGES
    for command in inline_commands(path)
    if not command.startswith(INCOMPLETE)
]


@pytest.mark.parametrize("command", COMMANDS_OF_PAGES)
def test_a_command_exists_with_its_flags(command: str, monkeypatch: pytest.MonkeyPatch):
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if not words:  # a variable of the shell
        return
    words = shlex.split(command.replace("$B", _variable_b())) if words[0] == "$B" else words
    if words[:3] == ["python", "-m", "pytest"]:
        words = words[2:]
    match words:
        case ["crosschannel", program, *rest]:
            assert program in COMMANDS or program.startswith("-")
            _check_flags(_help(f"crosschannel.programs.{program}"), rest)
        case ["python", ("train.py" | "evaluate.py" | "decide.py") as program, *rest]:
            _check_flags(_help(f"crosschannel.programs.{program.removesuffix('.py')}"), rest)
        case ["pytest", *rest]:
            _check_pytest(rest)
        case ["python", "-m", module, *rest]:
            _parse(module, rest, monkeypatch)
        case ["python", script, *rest]:
            written = {block.title for block in BLOCKS}
            assert (ROOT / script).is_file() or script in written, script
            if (ROOT / script).is_file():
                source = (ROOT / script).read_text()
                assert all(_is_named(flag, source) for flag in rest if flag.startswith("--")), rest
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["pip", "install", *what]:
            extras = re.findall(r"crosschannel\[(\w+)\]", " ".join(what))
            known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert set(extras) <= set(known)
        case ["tensorboard", "--logdir", *_] | ["mkdir", *_] | ["export"]:
            pass
        case _:
            pytest.fail(f"no rule says how to check {command!r}")


def _variable_b() -> str:
    """What market/funnel.md abbreviates as $B."""
    (found,) = re.findall(r'^B="(.*)"$', (ROOT / "docs/market/funnel.md").read_text(), re.MULTILINE)
    return str(found)


@functools.cache
def _help(module: str) -> str:
    """Everything that `--help-all`, or else `--help`, shows."""
    main = importlib.import_module(module).main
    for flag in ("--help-all", "--help"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit, Exception):
            main([flag])
        if out.getvalue():
            return out.getvalue()
    raise AssertionError(f"{module} has no help")


def _check_flags(known: str, words: Sequence[str]) -> None:
    for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{re.escape(flag)}(?![\w-])", known), f"there is no flag {flag}"


def _check_pytest(words: Sequence[str]) -> None:
    paths = [ROOT / word for word in words if word.startswith(("tests", "benchmarks"))]
    assert all(path.exists() for path in paths), words
    if "-k" in words:
        part = words[words.index("-k") + 1]
        assert any(re.search(rf"def test_\w*{part}", path.read_text()) for path in paths), f"no test has {part!r}"


def _is_named(flag: str, source: str) -> bool:
    """Whether a script has a flag, by itself or as the parameter of a function that tyro turns into a flag."""
    return flag in source or f"{flag.removeprefix('--').replace('-', '_')}:" in source


def _parse(module: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program parse its arguments, and no more."""

    class ParsedError(Exception):
        pass

    original = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, args: Sequence[str] | None = None, namespace: object = None) -> None:
        original(self, args, SimpleNamespace() if namespace is None else namespace)  # type: ignore[call-overload]
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises(ParsedError):
        importlib.import_module(module).main()


def test_the_pages_have_blocks_and_commands():
    assert len(BLOCKS) > 80
    assert len(COMMANDS_OF_PAGES) > 80
    assert sum(block.language == "sh" for path in PAGES for block in read_blocks(path)) > 30
