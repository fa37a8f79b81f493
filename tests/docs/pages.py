"""The pages of the documentation as blocks of code, and how each block is tested.

A block is run, unless a comment before it says why not: `<!-- not run: REASON -->`, or `<!-- run by: TEST FILE -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

PAGES = tuple(sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]))
BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
NOT_RUN, RUN_BY = "not run: ", "run by: "


@dataclass(frozen=True)
class Block:
    """One block of code of a page.

    Attributes:
        page: The page, from the root.
        line: Line of its fence.
        language: What it is written in.
        title: Its file, where it has one.
        text: The code.
        note: The comment before it; empty where there is none.
    """

    page: str
    line: int
    language: str
    title: str
    text: str
    note: str

    @property
    def name(self) -> str:
        """Page and line, for messages."""
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether the tests of this folder run it."""
        return not self.note.startswith((NOT_RUN, RUN_BY))


def read_blocks(path: Path) -> Iterator[Block]:
    """Yield the blocks of a page, in their order."""
    text = path.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        fence = text.index("```", found.start())
        yield Block(
            page=path.relative_to(ROOT).as_posix(),
            line=text.count("\n", 0, fence) + 1,
            language=found["language"],
            title=found["title"] or "",
            text=re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
            note=found["note"] or "",
        )


def all_blocks(*languages: str) -> list[Block]:
    """Return all blocks that are written in one of some languages."""
    return [block for path in PAGES for block in read_blocks(path) if block.language in languages]


def command_lines(text: str) -> list[str]:
    """Return the commands of a block: without comments and prompts, continued lines joined, `&&` and `|` divided."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip().removeprefix("$ ") for line in joined.splitlines())
    return [part.strip() for line in lines for part in re.split(r"&&|\|\|", line) if part.strip()]


def inline_commands(path: Path) -> list[str]:
    """Return the commands that stand in the text of a page."""
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    found = re.findall(r"`((?:python|pytest|crosschannel|make|tensorboard) [^`]*)`", text)
    return [re.sub(r"\s+", " ", command) for command in found]
