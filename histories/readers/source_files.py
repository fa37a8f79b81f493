"""Read CSV, Parquet and JSON-lines files; every problem is an `InputError`."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from crosschannel.core.errors import Fault, InputError, nearest
from crosschannel.core.files import unescape

CSV_ENDINGS = (".csv", ".csv.gz")
PARQUET_ENDINGS = (".parquet",)


def fail(path: Path, problem: str, remedy: str, **place: Any) -> InputError:
    """Return an InputError with one fault of one file; `place` may have its column, row and value."""
    return InputError([Fault(file=str(path), problem=problem, remedy=remedy, **place)])


def find(path: Path) -> Path:
    """Return the path of a file that exists.

    Raises:
        InputError: If there is no such file; the message names the file of the folder with the most similar name.
    """
    if path.is_file():
        return path
    if path.is_dir():
        raise fail(path, "this is a folder, not a file", "Name the file itself.")
    if not path.parent.is_dir():
        raise fail(path, f"the folder {path.parent} does not exist", "Check the path.")
    hint = nearest(path.name, sorted(item.name for item in path.parent.iterdir()))
    raise fail(path, "there is no such file", f"Check the path. {hint}")


def read_any(path: Path, *, text: Sequence[str] | None = None, separator: str = ",") -> pd.DataFrame:
    """Read a CSV or Parquet file as a table.

    Args:
        path: A file that ends in .csv, .csv.gz or .parquet.
        text: Columns of a CSV file that are read as text, so that the id 007 keeps its zeros; None for all columns.
            Only an empty field is missing: `NA` and `None` are ordinary text.
        separator: Separator between the fields of a CSV file.

    Raises:
        InputError: If the file does not exist, has another ending, or cannot be read.
    """
    find(path)
    if path.name.endswith(PARQUET_ENDINGS):
        return read_parquet(path)
    if not path.name.endswith(CSV_ENDINGS):
        endings = ", ".join((*CSV_ENDINGS, *PARQUET_ENDINGS))
        raise fail(path, "the file format is unknown", f"Give a file that ends in one of {endings}.")
    try:
        with warnings.catch_warnings():
            # If a row has too many fields, pandas drops them with a mere warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep=separator,
                dtype=str if text is None else dict.fromkeys(text, str),
                keep_default_na=False,
                na_values=[""],
                index_col=False,
                # Blank lines count as rows, so that row numbers are those of the file.
                skip_blank_lines=False,
                low_memory=False,
                encoding="utf-8-sig",
            )
    except pd.errors.ParserWarning:
        problem = "a row has more fields than the first line has names"
        raise fail(path, problem, "Name every column, and quote fields that contain the separator.") from None
    except (ValueError, OSError, EOFError) as error:
        raise fail(path, f"this cannot be read as CSV: {error}", "Check that the file is complete.") from error
    return _unescaped(table, path)


def _unescaped(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a table without the apostrophes that `write_csv` sets before what a spreadsheet would compute.

    Raises:
        InputError: If two values of a column would become one.
    """
    for j, column in enumerate(table.columns):
        if table.dtypes.iloc[j].kind != "O":
            continue
        before = table.iloc[:, j]
        after = unescape(before)
        changed = after.ne(before) & after.notna()
        if changed.any():
            table.isetitem(j, after.array)
            both = changed & after.isin(before[~changed].unique())
            if both.any():
                row = int(both.to_numpy().argmax())
                problem = (
                    "an apostrophe before a text that a spreadsheet would compute is not read, but the column has "
                )
                problem += "the text without the apostrophe as well"
                remedy = "Write both alike, without the apostrophe."
                raise fail(path, problem, remedy, column=str(column), row=row + 1, value=before.iloc[row])
    table.columns = pd.Index(unescape(pd.Series(table.columns, dtype=object)))
    return table


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file as a table.

    Raises:
        InputError: If the file does not exist or cannot be read.
    """
    find(path)
    try:
        return pd.read_parquet(path)
    except (ValueError, OSError, NotImplementedError) as error:
        raise fail(path, f"this cannot be read as Parquet: {error}", "Check that the file is complete.") from error


def read_json_lines(path: Path) -> pd.DataFrame:
    """Read a file with one JSON object per line, possibly compressed as .gz, as a table of unconverted values.

    Raises:
        InputError: If the file does not exist, is empty, or has a line that is not a JSON object; with its number.
    """
    find(path)
    try:
        table = pd.read_json(path, lines=True, dtype=False, convert_axes=False, precise_float=True)
    except (ValueError, OSError, EOFError) as error:
        raise _bad_line(path, error) from error
    if table.empty:
        raise fail(path, "the file is empty", "Check that the file is complete.")
    return table


def _bad_line(path: Path, error: Exception) -> InputError:
    """Return the fault of the first line that cannot be read, found by parsing each line."""
    number = 0
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            for number, line in enumerate(lines, start=1):
                if not isinstance(json.loads(line), dict):
                    problem = "this line is not a JSON object"
                    return fail(path, problem, "Write one object per line.", row=number, value=line.strip()[:80])
    except json.JSONDecodeError as broken:
        remedy = "Correct or remove the line; the file may be incomplete."
        return fail(path, f"this line is not JSON: {broken}", remedy, row=number, value=line.strip()[:80])
    except (ValueError, OSError, EOFError) as broken:
        return fail(path, f"the file cannot be read: {broken}", "Check that the file is complete.", row=number + 1)
    return fail(path, f"the file cannot be read: {error}", "Write one JSON object per line.")
