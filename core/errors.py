"""The package's exceptions; each message names the problem, its place and a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


class CrosschannelError(Exception):
    """Base class of every error that the package raises deliberately."""


class ConfigError(CrosschannelError, ValueError):
    """A setting that is unknown, has the wrong type, or contradicts other settings."""


class NewerFormat(ConfigError):
    """A file in a version of its format that this program does not know yet."""


class OutputError(CrosschannelError):
    """A file or a folder that cannot be written."""


class NotIdentified(CrosschannelError):
    """A value that the log cannot identify; raised instead of returning a misleading number."""


@dataclass(frozen=True)
class Fault:
    """One problem of an input, with its place and a remedy.

    Attributes:
        file: The file's path, or the table's name if the input came from memory.
        problem: What is wrong.
        remedy: What the user can do about it.
        column: The column's name, if the fault belongs to a column.
        row: The number of the row in the file, if the fault belongs to a row; 1 is the first row of data.
        value: The offending value, if there is one.
        count: How many rows share this fault; `row` and `value` are those of the first.
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
    """Input that cannot be read; `faults` holds every fault that was found, not only the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def nearest(name: object, known: Iterable[object]) -> str:
    """Return a hint such as `Did you mean 'push'?`, or the list of known names if none is similar."""
    names = [str(item) for item in known]
    longer = [item for item in names if len(str(name)) > 3 and item.startswith(str(name))]
    close = longer or difflib.get_close_matches(str(name), names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(repr(item) for item in names[:10]) + (", ..." if len(names) > 10 else "")
    return f"Available: {shown or 'none'}."


def raise_faults(faults: Sequence[Fault]) -> None:
    """Raise an `InputError` with the faults found so far, if there are any."""
    if faults:
        raise InputError(faults)
