"""Markdown from templates: texts of users are escaped, so that no name of an event or an action changes the layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from crosschannel.evaluation.report.formatting import format_bounds, format_number, format_point
from crosschannel.evaluation.report.html_report import TEMPLATES

#: What Markdown would read as HTML, emphasis, a link or an escape.
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])|[*\\]|(?<!\w)_|_(?!\w)|\](?=[(\[])")


def render_markdown(template: str, values: Mapping[str, object]) -> str:
    """Return a template of `evaluation/report/templates/` as Markdown.

    Args:
        template: Name of the template.
        values: What it shows; a text passes through the filter `text` (a line) or `code` (a name).
    """
    return _environment().get_template(template).render(**values)


def inline(text: object) -> str:
    """Return a text in one line, without HTML, links and cells of its own; what is between backquotes stays code."""
    parts = re.split(r"(`[^`]*`)", " ".join(str(text).split()))
    plain = [part if part.startswith("`") else _MARKUP.sub(r"\\\g<0>", part) for part in parts]
    return "".join(plain).replace("|", r"\|")


def code(text: object) -> str:
    """Return a name as code, in one line."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # not HTML: every text passes through `text` or `code`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "text": inline,
        "code": code,
        "point": format_point,
        "bounds": format_bounds,
        "number": format_number,
    }
    return environment
