"""Read one CSV, Parquet, JSON-lines or Avro file, compressed or not; every problem is an `InputError`."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

import pandas as pd

from crosschannel.core.errors import Fault, InputError, nearest
from crosschannel.core.files import unescape
from crosschannel.histories.readers.formats import avro, parquet
from crosschannel.histories.readers.formats.json_lines import BadLine, objects_frame

FORMATS = {
    ".csv": "text",
    ".tsv": "text",
    ".txt": "text",
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".avro": "avro",
}
COMPRESSIONS: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
READABLE = f"{', '.join(FORMATS)} (each also as .gz, .bz2, .xz, or alone in a .zip)"
OTHER_FORMATS = {
    ".orc": "Convert it to Parquet, such as with PyArrow: pq.write_table(orc.read_table('rows.orc'), 'rows.parquet').",
    ".feather": "Convert it to Parquet, such as with pandas: read_feather('rows.feather').to_parquet('rows.parquet').",
    ".arrow": "Convert it to Parquet, such as with pandas: read_feather('rows.arrow').to_parquet('rows.parquet').",
    ".xlsx": "Save the sheet as CSV in UTF-8.",
    ".xls": "Save the sheet as CSV in UTF-8.",
    ".zst": "Decompress it first: zstd -d FILE.",
    ".tar": "Unpack it, and name the folder.",
    ".tgz": "Unpack it, and name the folder.",
}
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError)


@dataclass(frozen=True)
class FileTable:
    """The content of one file.

    Attributes:
        frame: Its columns, except those that cannot be read.
        unreadable: The types of those, by name, for messages: nobody need map them.
    """

    frame: pd.DataFrame
    unreadable: Mapping[str, str] = field(default_factory=dict)


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


def stem(path: PurePath) -> PurePath:
    """Return the path without the endings of its compression and of its format."""
    while path.suffix.lower() in (*COMPRESSIONS, ".zip", *FORMATS):
        path = path.with_suffix("")
    return path


def has_format(path: PurePath, form: str) -> bool:
    """Return whether a file's name ends as one of a form (`text`, `json`, ...) that is not compressed."""
    return FORMATS.get(path.suffix.lower()) == form


def refuse_format(path: Path) -> Fault | None:
    """Return the fault of a file that cannot be read, judged by its name; None if it can.

    A compressed file whose name does not say its format, as Segment writes them, is JSON if it begins as an object.
    """
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    if inner.suffix.lower() in FORMATS or path.suffix.lower() == ".zip":
        return None
    ending = next((one for one in (inner.suffix.lower(), path.suffix.lower()) if one in OTHER_FORMATS), "")
    if not ending and path.suffix.lower() in COMPRESSIONS and path.is_file() and _begins_as_object(path):
        return None
    what = f"files that end in {ending} are not read" if ending else "the file format is unknown"
    return Fault(str(path), what, OTHER_FORMATS.get(ending, f"Give a file that ends in one of {READABLE}."))


def read_file(
    path: Path, *, text: Sequence[str] | None = None, separator: str | None = None, encoding: str | None = None
) -> FileTable:
    """Read a file by the ending of its name.

    Args:
        path: A file with an ending of `FORMATS`, which may be compressed (`COMPRESSIONS`, or alone in a .zip).
        text: Columns of a CSV file that are read as text, so that the id 007 keeps its zeros; None for all columns.
            Only an empty field is missing: `NA` and `None` are ordinary text.
        separator: Separator between the fields of a text file; by default a tab for .tsv, and a comma for .csv.
        encoding: Encoding of a text file; by default UTF-8, or UTF-16 if the file begins with its mark.

    Raises:
        InputError: If the file does not exist, has another ending, or cannot be read.
    """
    find(path)
    if (fault := refuse_format(path)) is not None:
        raise InputError([fault])
    try:
        with _open(path) as (source, name):
            form = FORMATS.get(PurePath(name).suffix.lower(), "json")
            if form == "parquet":
                return _read_parquet(path, source)
            if form == "avro":
                return _read_avro(path, source)
            encoding = encoding or _encoding(path, source)
            if form == "json":
                return FileTable(_read_json(path, source, encoding))
            if separator is None and name.lower().endswith(".txt"):
                remedy = 'State it: `separator: "\\t"` (or ; or |).'
                raise fail(path, "the separator of a .txt file is not known", remedy)
            separator = separator or ("\t" if name.lower().endswith(".tsv") else ",")
            return FileTable(_unescaped(_read_csv(path, source, text, separator, encoding), path))
    except InputError:
        raise
    except UnicodeError as error:
        remedy = "State the `encoding` of the file (latin-1, cp1252, utf-16), or save it as UTF-8."
        raise fail(path, f"this is not text in {encoding}: {error}", remedy) from error
    except _DAMAGED as error:
        raise fail(path, f"the file cannot be read: {error}", "Check that the file is complete.") from error


def _begins_as_object(path: Path) -> bool:
    """Return whether the content of a compressed file begins as a JSON object."""
    try:
        with _open(path) as (source, _):
            return source.read(4096).lstrip(codecs.BOM_UTF8 + b" \t\r\n").startswith(b"{")
    except _DAMAGED:
        return False


def read_any(path: Path, *, text: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a file as `read_file` does; refuse columns that cannot be read.

    Raises:
        InputError: If the file does not exist, has another ending, or cannot be read.
    """
    found = read_file(path, text=text)
    for name, kind in found.unreadable.items():
        raise fail(path, f"the column is {kind}, which is not read", "Leave it out of the file.", column=name)
    return found.frame


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
    with find(path).open("rb") as source:
        return _read_parquet(path, source).frame


def read_json_lines(path: Path) -> pd.DataFrame:
    """Read a file with one JSON object per line, possibly compressed, as a table of unconverted values.

    Raises:
        InputError: If the file does not exist, is empty, or has a line that is not a JSON object; with its number.
    """
    frame = read_file(path).frame
    if frame.empty:
        raise fail(path, "the file is empty", "Check that the file is complete.")
    return frame


def _read_parquet(path: Path, source: BinaryIO) -> FileTable:
    try:
        return FileTable(*parquet.parquet_frame(source))
    except parquet.READ_ERRORS as error:
        raise fail(path, f"this cannot be read as Parquet: {error}", "Check that the file is complete.") from error


def _read_avro(path: Path, source: BinaryIO) -> FileTable:
    try:
        return FileTable(*avro.avro_frame(source))
    except ImportError as error:
        remedy = (
            "Install it: pip install 'crosschannel[avro]'. Or convert the file to Parquet, such as with DuckDB: COPY "
            "(SELECT * FROM read_avro('rows.avro')) TO 'rows.parquet'. (INSTALL avro; LOAD avro; comes first.)"
        )
        raise fail(path, f"Avro is not read without fastavro ({error})", remedy) from error
    except avro.READ_ERRORS as error:
        raise fail(path, f"this cannot be read as Avro: {error}", "Check that the file is complete.") from error


def _read_json(path: Path, source: BinaryIO, encoding: str) -> pd.DataFrame:
    try:
        # Other characters that end lines in Unicode may stand inside the text of JSON.
        with io.TextIOWrapper(source, encoding, newline="\n") as text:
            return objects_frame(text)
    except BadLine as error:
        remedy = "Write one object per line; the file may be incomplete."
        raise fail(path, str(error), remedy, row=error.row, value=error.text) from None


def _read_csv(path: Path, source: BinaryIO, text: Sequence[str] | None, separator: str, encoding: str) -> pd.DataFrame:
    try:
        _check_names(path, source, separator, encoding)
        with warnings.catch_warnings():
            # If a row has too many fields, pandas drops them with a mere warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                source,
                sep=separator,
                dtype=str if text is None else dict.fromkeys(text, str),
                keep_default_na=False,
                na_values=[""],
                index_col=False,
                # Blank lines count as rows, so that row numbers are those of the file.
                skip_blank_lines=False,
                low_memory=False,
                encoding=encoding,
            )
    except pd.errors.ParserWarning:
        problem = "a row has more fields than the first line has names"
        raise fail(path, problem, "Name every column, and quote fields that contain the separator.") from None
    except (InputError, UnicodeError):
        raise
    except (ValueError, csv.Error) as error:
        raise fail(path, f"this cannot be read as CSV: {error}", "Check that the file is complete.") from error
    return table


def _check_names(path: Path, source: BinaryIO, separator: str, encoding: str) -> None:
    """Refuse two columns of one name, which pandas would rename, and a line of names with another separator."""
    wrapper = io.TextIOWrapper(source, encoding, newline="")
    names = next(csv.reader(wrapper, delimiter=separator), [])
    wrapper.detach()
    source.seek(0)
    twice = [name for place, name in enumerate(names) if name and name in names[:place]]
    if twice:
        raise fail(path, "two columns have this name", "Rename or drop one of them.", column=twice[0])
    other = [one for one in ";\t|," if one != separator and names and one in names[0]]
    if len(names) == 1 and other:
        problem = f"the first line has one name only, {names[0][:80]!r}"
        raise fail(path, problem, f"If {other[0]!r} separates its fields, set `separator` in the mapping.")


def _encoding(path: Path, source: BinaryIO) -> str:
    begin = source.read(4096)
    source.seek(0)
    if b"\0" in begin and not begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        problem = "the file has bytes of 0: it is not text in UTF-8"
        raise fail(path, problem, "State its `encoding` (such as utf-16-le), or save it as UTF-8.")
    return next((name for mark, name in _MARKS.items() if begin.startswith(mark)), "utf-8")


@contextmanager
def _open(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Open a file, decompressed, with its name without the ending of the compression."""
    ending = path.suffix.lower()
    with path.open("rb") as source:
        if ending in COMPRESSIONS:
            with COMPRESSIONS[ending](source) as inner:
                yield inner, path.stem
        elif ending == ".zip":
            with zipfile.ZipFile(source) as archive, archive.open(_member(path, archive)) as inner:
                yield cast(BinaryIO, inner), inner.name
        else:
            yield source, path.name


def _member(path: Path, archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    names = [name for name in names if not PurePath(name).name.startswith((".", "_")) and "__MACOSX" not in name]
    if len(names) != 1:
        problem = f"the archive has {len(names):,} files, not one"
        raise fail(path, problem, "Unpack it, and name the folder or one of the files.")
    if PurePath(names[0]).suffix.lower() not in FORMATS:
        problem = f"the archive's file is {names[0]!r}, which is not read"
        raise fail(path, problem, f"Give one that ends in one of {', '.join(FORMATS)}; unpack it if it is compressed.")
    return names[0]
