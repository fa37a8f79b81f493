"""Divide one file of rows by the users' buckets: in memory if it is small, else out of core with DuckDB."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.histories.buckets.leaves import leaf_of
from crosschannel.histories.readers.formats.parquet import READ_ERRORS
from crosschannel.histories.readers.source_files import fail, find

#: Parquet files up to this size are read as a whole.
SMALL_FILE = 8 * 2**20
#: What DuckDB may take before it writes to the disk.
MEMORY_LIMIT = "1GB"
_BUCKET, _ROW = "bucket_of_user", "file_row_number"

#: Reads a file as a table in native columns.
ReadFile = Callable[[Path], pd.DataFrame]


class NotByUser(Exception):
    """A source whose rows cannot be divided by user before all of them are read; the text says why."""


def partition(
    path: Path, read: ReadFile, column: str, leaves: int, n: int, work: Path
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the buckets of a file's rows, ascending, with their rows in native columns and in the file's order.

    Args:
        path: The file.
        read: Reads it, or a part of its rows, in native columns.
        column: Name of the column of user ids in the file.
        leaves: Number of leaves.
        n: Number of buckets.
        work: A folder for what DuckDB writes meanwhile.

    Raises:
        InputError: If the file cannot be read.
        NotByUser: If its user ids are neither text nor whole numbers.
    """
    if path.suffix.lower() != ".parquet" or find(path).stat().st_size <= SMALL_FILE:
        frame = read(path)
        bucket = buckets_of(frame["user_id"], leaves, n)
        order = np.argsort(bucket, kind="stable")
        for b, rows in zip(*_groups(bucket, order), strict=True):
            yield b, frame.iloc[rows].reset_index(drop=True)
        return
    target = work / "partition"
    shutil.rmtree(target, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    duckdb = import_duckdb()
    if column not in parquet_columns(path):
        raise NotByUser(f"the user ids {column!r} of {path} are not a column of their own")
    with connect(work) as connection:
        user = f'"{column.replace(chr(34), chr(34) * 2)}"'
        source = "read_parquet($path, file_row_number=true, hive_partitioning=false)"
        try:
            kinds = connection.execute(f"select typeof({user}) from {source} limit 1", {"path": str(path)}).fetchone()
            if kinds is not None and not _is_id(kinds[0]):
                raise NotByUser(f"the user ids of {path} are of the type {kinds[0]}, neither text nor whole numbers")
            connection.execute(
                f"copy (select *, {bucket_sql(user, leaves, n)} as {_BUCKET} from {source}) to '{_quoted(target)}' "
                f"(format parquet, partition_by ({_BUCKET}), overwrite_or_ignore true)",
                {"path": str(path)},
            )
            for b in range(n):
                if (target / f"{_BUCKET}={b}").is_dir():
                    one = target / f"{b}.parquet"
                    connection.execute(
                        f"copy (select * exclude ({_ROW}) from read_parquet('{_quoted(target)}/{_BUCKET}={b}/*', "
                        f"hive_partitioning=false) order by {_ROW}) to '{_quoted(one)}' (format parquet)"
                    )
                    yield b, read(one)
                    one.unlink()
        except duckdb.Error as error:
            raise fail(path, f"this cannot be divided: {error}", "Check that the file is complete.") from error
        finally:
            shutil.rmtree(target, ignore_errors=True)


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file.

    Raises:
        InputError: If it cannot be read.
    """
    from pyarrow import parquet  # late, so that `--help` does not wait for it

    try:
        return list(parquet.ParquetFile(path).schema_arrow.names)
    except READ_ERRORS as error:
        raise fail(path, f"this cannot be read as Parquet: {error}", "Check that the file is complete.") from error


def buckets_of(ids: pd.Series[Any], leaves: int, n: int) -> IntArray:
    """Return the bucket of each row (r,) from its user id; rows without one are in the bucket 0.

    Raises:
        NotByUser: If ids are neither text nor whole numbers.
    """
    kind_of_ids(ids)
    code, names = pd.factorize(ids)
    leaf = np.append(leaf_of(np.asarray(names, dtype=object), leaves) % n, 0)  # the code of a missing id is -1
    return np.asarray(leaf[code], dtype=np.int64)


def kind_of_ids(ids: pd.Series[Any]) -> str:
    """Return whether a column has `text` or whole `numbers`, `none` if it has nothing.

    Raises:
        NotByUser: If it has anything else.
    """
    if not ids.notna().any():
        return "none"
    if pd.api.types.is_integer_dtype(ids):
        return "numbers"
    if pd.api.types.infer_dtype(ids, skipna=True) == "string":
        return "text"
    raise NotByUser(f"ids such as {ids.dropna().iloc[0]!r} are neither text nor whole numbers")


def bucket_sql(user: str, leaves: int, n: int) -> str:
    """Return the SQL of a user's bucket, 0 for rows without a user: that of `leaf_of`."""
    digits = f"('0x' || substr(md5(cast({user} as varchar)), 1, 3))::integer"
    return f"coalesce({digits} % {leaves} % {n}, 0)"


def import_duckdb() -> Any:
    """Return the module DuckDB.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ConfigError(f"DuckDB is not installed ({error}): pip install 'crosschannel[duckdb]'") from error
    return duckdb


def connect(work: Path) -> Any:
    """Return a connection of DuckDB that uses one thread, bounded memory, and a folder for the rest."""
    settings = {"threads": 1, "memory_limit": MEMORY_LIMIT, "temp_directory": str(work / "duckdb")}
    return import_duckdb().connect(config=settings)


def _groups(code: IntArray, order: IntArray) -> tuple[list[int], list[IntArray]]:
    values, first = np.unique(code[order], return_index=True)
    return values.tolist(), np.split(order, first[1:]) if len(values) else []


def _is_id(kind: str) -> bool:
    return kind == "VARCHAR" or kind.removeprefix("U") in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
