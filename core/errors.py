"""The project's own exceptions; each message says what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


class CrosschannelError(Exception):
    """Base of every error that the project raises on purpose."""


class ConfigError(CrosschannelError, ValueError):
    """A setting that is unknown, of the wrong type, or does not fit the others."""


class NotIdentified(CrosschannelError):
    """A value that the log cannot identify; raised instead of returning a number that looks good."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an input, and where it stands.

    Attributes:
        file: The file's path, or the table's name where the input came from memory.
        problem: What is wrong, in words.
        remedy: What the reader can do about it.
        column: The column's name, if the fault has one.
        row: The row's number as the reader counts rows in the file: 1 is the first row of data.
        value: The offending value, if the fault has one.
        count: How many rows share this fault; `row` and `value` belong to the first of them.
    """

    file: str
    problem: str
    remedy: str
    column: str | None = None
    row: int | None = None
    value: Any = None
    count: int = 1

    def __str__(self) -> str:
        place = [self.file]
        if self.column is not None:
            place.append(f"column {self.column!r}")
        if self.row is not None:
            place.append(f"row {self.row}")
        if self.value is not None:
            place.append(f"value {self.value!r}")
        more = f" ({self.count:,} rows in all)" if self.count > 1 else ""
        return f"{', '.join(place)}: {self.problem}{more}. {self.remedy}"


class InputError(CrosschannelError, ValueError):
    """Input that cannot be read as it stands; carries every fault that was found, not only the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def nearest(name: object, known: Iterable[object]) -> str:
    """A hint such as `Did you mean 'push'?`, or the list of what is known where nothing is similar."""
    names = [str(item) for item in known]
    longer = [item for item in names if len(str(name)) > 3 and item.startswith(str(name))]
    close = longer or difflib.get_close_matches(str(name), names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(repr(item) for item in names[:10]) + (", ..." if len(names) > 10 else "")
    return f"Known are: {shown or 'none'}."
