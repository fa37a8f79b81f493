"""List the files of a path: a file itself, or all files of data in a folder and the folders below it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote

import pandas as pd

from crosschannel.core.errors import Fault, InputError, raise_faults
from crosschannel.histories.readers.source_files import (
    READABLE,
    FileTable,
    fail,
    find,
    has_format,
    read_file,
    refuse_format,
    stem,
)

#: The value that Hive and Spark write into a folder's name for a missing value.
MISSING_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class DataFile:
    """One file of data.

    Attributes:
        path: The file.
        partition: Columns that the folders above it name, as in `date=2024-03-04/part-0.csv`, None where missing.
    """

    path: Path
    partition: Mapping[str, str | None]


@dataclass(frozen=True)
class OpenedFiles:
    """The files of a path with their content.

    Attributes:
        tables: Each file's path and content, with the columns of the folders above it.
        empty: How many files of 0 bytes were left out.
    """

    tables: tuple[tuple[Path, FileTable], ...] = ()
    empty: int = 0


def open_files(
    path: Path,
    faults: list[Fault],
    *,
    separator: str | None = None,
    encoding: str | None = None,
    named: str | None = None,
) -> OpenedFiles:
    """Read all files of a path; add the faults of those that cannot be read. See `data_files` and `read_file`."""
    try:
        files, empty = data_files(path, named)
    except InputError as error:
        faults += error.faults
        return OpenedFiles()
    tables: list[tuple[Path, FileTable]] = []
    for file in files:
        try:
            found = read_file(file.path, separator=separator, encoding=encoding)
        except InputError as error:
            faults += error.faults
            continue
        absent = {name: value for name, value in file.partition.items() if name not in found.frame.columns}
        columns = {name: pd.Series([value] * len(found.frame), dtype=object) for name, value in absent.items()}
        tables.append((file.path, FileTable(found.frame.assign(**columns), found.unreadable)))
    return OpenedFiles(tuple(tables), empty)


def data_files(path: Path, named: str | None = None) -> tuple[list[DataFile], int]:
    """Return the files of a path in the order of their names, and how many files of 0 bytes were left out.

    As for Spark and Hive, files and folders whose names begin with `.` or `_` are not data (`_SUCCESS`,
    `.part-0.csv.crc`), and folders such as `date=2024-03-04` are columns. In other folders (`2024/03/04`) only the
    files count. If `named` is given, only files of a folder that have this name do.

    Raises:
        InputError: If no file has data, another file is among them, or two files hold the same rows.
    """
    if not path.is_dir():
        if (fault := refuse_format(find(path))) is not None:
            raise InputError([fault])
        if not path.stat().st_size:
            raise fail(path, "the file is empty", "Check that the export is complete.")
        return [DataFile(path, {})], 0
    found = [file for file in _walk(path, {}, (path.resolve(),)) if named in (None, file.path.name)]
    faults = [fault for file in found if (fault := refuse_format(file.path)) is not None]
    full = [file for file in found if file.path.stat().st_size]
    raise_faults(faults or _copies(full))
    if not full:
        what = f"all its {len(found):,} files are empty" if found else "the folder has no file of data"
        raise fail(path, what, f"Give a folder of files that end in one of {READABLE}.")
    return full, len(found) - len(full)


def _walk(folder: Path, partition: Mapping[str, str | None], above: tuple[Path, ...]) -> list[DataFile]:
    out: list[DataFile] = []
    for entry in sorted(folder.iterdir()):
        column, is_partition, value = entry.name.partition("=")
        if entry.name.startswith(".") or entry.name.endswith("._COPYING_"):
            continue
        if entry.name.startswith("_") and not (is_partition and entry.is_dir()):
            continue
        if not entry.is_dir():
            out.append(DataFile(entry, partition))
            continue
        if entry.resolve() in above:
            raise fail(entry, "the link leads to a folder above itself", "Remove the link.")
        inner = partition
        if is_partition and column:
            inner = {**partition, unquote(column): None if value == MISSING_PARTITION else unquote(value)}
        out += _walk(entry, inner, (*above, entry.resolve()))
    return out


def _copies(files: list[DataFile]) -> list[Fault]:
    """Return a fault for each file whose rows another one has as well: they would count twice."""
    faults: list[Fault] = []
    same_name: dict[PurePath, list[DataFile]] = {}
    same_size: dict[tuple[int, str], list[DataFile]] = {}
    for file in files:
        same_name.setdefault(stem(file.path), []).append(file)
        same_size.setdefault((file.path.stat().st_size, str(file.partition)), []).append(file)
    for group in same_name.values():
        for later in group[1:]:
            problem = f"{group[0].path.name} has the same name in another format, so that rows would count twice"
            faults.append(Fault(str(later.path), problem, "Remove one of the two files."))
    for group in same_size.values():
        first: dict[bytes, Path] = {}
        for file in group if len(group) > 1 else ():
            # A part without rows may equal another one: it has its line of names only.
            if _has_rows(file.path) and first.setdefault(_digest(file.path), file.path) != file.path:
                problem = f"the file is a copy of {first[_digest(file.path)].name}, so that rows would count twice"
                faults.append(Fault(str(file.path), problem, "Remove one of the two files."))
    return faults


def _digest(path: Path) -> bytes:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "blake2b").digest()


def _has_rows(path: Path) -> bool:
    if not has_format(path, "text"):
        return path.stat().st_size > 10_000
    with path.open("rb") as lines:
        return len(list(zip(lines, range(2), strict=False))) > 1
