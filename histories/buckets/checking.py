"""What only all buckets together show: ids that occur twice, values that some events lack, names, the period."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import Fault, InputError, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.buckets.manifest import DECISIONS, EVENTS, OPTIONAL, FileRecord, Manifest, place_of
from crosschannel.histories.buckets.partition import NotByUser
from crosschannel.histories.buckets.plans import Plan
from crosschannel.histories.observation.span import observe

Files = dict[str, FileRecord]


def check_rows(plan: Plan, files: Files) -> None:
    """Check that a log has as many rows as it says.

    Raises:
        InputError: If not.
    """
    faults = []
    for table, wanted in (plan.rows or {}).items():
        found = len(plan.users) if table == "users" and plan.users is not None else rows_of(files, table)
        if found != wanted:
            problem = f"the table has {found:,} rows, but its description has {wanted:,}"
            remedy = "The file was changed or cut off after it was written: write the folder again."
            faults.append(Fault(table, problem, remedy))
    raise_faults(faults)


def rows_of(files: Files, table: str) -> int:
    """Return the number of rows of a table in all buckets."""
    return sum(one.rows for name, one in files.items() if place_of(name)[1] == table)


def optional_columns(folder: Path, files: Files) -> tuple[str, ...]:
    """Return which of the columns `OPTIONAL` the parts have, and check that ids are of one kind in all of them.

    Raises:
        NotByUser: If ids are text in one file and numbers in another, or neither.
    """
    names: dict[str, set[str]] = {DECISIONS: set(), EVENTS: set()}
    kinds: dict[str, set[str]] = {"user_id": set(), "decision_id": set()}
    for name in files:
        table = place_of(name)[1]
        schema = _schema(folder / name)
        names[table] |= set(schema.names)
        for column in kinds:
            if column in schema.names and (column == "user_id" or table == DECISIONS):
                kinds[column].add(_kind(schema.field(column).type))
    for column, found in kinds.items():
        if len(found - {"none"}) > 1 or "other" in found:
            raise NotByUser(f"{column} is not text everywhere, or a whole number everywhere")
    has = {
        "eligible": any(name.startswith("eligible_") for name in names[DECISIONS]),
        "policy": "policy" in names[DECISIONS],
        "arm": "arm" in names[DECISIONS],
        "message": "decision_id" in names[EVENTS],
    }
    return tuple(name for name in OPTIONAL if has[name])


def span_of_rows(folder: Path, files: Files) -> tuple[int, int]:
    """Return the observation period of a log that declares none: see `observation.span`.

    Raises:
        ConfigError: If the rows leave open what it is.
        NotByUser: If rows are isolated, which are left out when the source is read as a whole.
    """
    decided, happened = (_times(folder, files, table) for table in (DECISIONS, EVENTS))
    time = np.append(decided, happened)
    event = np.arange(len(time)) >= len(decided)
    observed = observe(time, event, lambda _: "a row", None, event)
    if not observed.inside.all():
        raise NotByUser("rows are isolated in time, which the notes name")
    return observed.span


def event_names_of(folder: Path, files: Files) -> tuple[str, ...]:
    """Return the names of the events of all parts, sorted."""
    names: set[str] = set()
    for name in files:
        if place_of(name)[1] == EVENTS:
            column = pd.DataFrame({"event": read_columns(folder / name, ["event"])["event"].unique()})
            names |= set(TableValidator(column, name, []).texts("event"))
    return tuple(sorted(names))


def with_sources(error: InputError, folder: Path, files: Files, plan: Plan) -> InputError:
    """Return an error about the rows of a bucket that also says which file of the log each is from, and its id."""
    sources = {(file.table, file.part): file.path for file in plan.files}
    parts = {str(folder / name): place_of(name)[1:] for name in files}

    def placed(fault: Fault) -> Fault:
        if fault.file not in parts:
            return fault
        table, part = parts[fault.file]
        where = f"This is from {sources[table, part]}"
        if fault.row is not None:
            columns = ["decision_id"] if table == DECISIONS else ["user_id", "time"]
            row = read_columns(Path(fault.file), columns).iloc[fault.row - 1]
            where += ", the row with " + " and ".join(f"{name} {str(row[name])!r}" for name in row.index)
        return replace(fault, remedy=f"{fault.remedy} {where}.")

    return InputError([placed(fault) for fault in error.faults])


def check_across_buckets(connection: Any, folder: Path, manifest: Manifest) -> None:
    """Check what every bucket alone fulfils: ids of decisions that are unique, values, and events of their own user.

    Args:
        connection: A connection of DuckDB.
        folder: The bucketed folder.
        manifest: Its manifest.

    Raises:
        InputError: With a fault for each that does not hold.
    """
    faults = []
    parts = {
        table: [str(folder / name) for name in manifest.files if place_of(name)[1] == table]
        for table in (DECISIONS, EVENTS)
    }
    source = "read_parquet($files, union_by_name=true, hive_partitioning=false)"

    def first(query: str, table: str) -> Any:
        return connection.execute(query, {"files": parts[table]}).fetchone()

    if manifest.buckets > 1 and parts[DECISIONS]:
        query = f"select decision_id, count(*) from {source} group by 1 having count(*) > 1 order by 1 limit 1"
        if (found := first(query, DECISIONS)) is not None:
            remedy = "Drop the copy, or give every decision a unique id."
            problem = f"{found[1]:,} decisions of several users have this id"
            faults.append(Fault(DECISIONS, problem, remedy, column="decision_id", value=found[0]))
    if manifest.buckets > 1 and parts[EVENTS]:
        columns = {
            one[0]
            for one in connection.execute(f"describe select * from {source}", {"files": parts[EVENTS]}).fetchall()
        }
        if "value" in columns:
            has = "count(nullif(cast(value as varchar), ''))"
            query = f"select event, count(*), {has} from {source} group by 1 having {has} not in (0, count(*)) limit 1"
            if (found := first(query, EVENTS)) is not None:
                problem = f"the value is missing in {found[1] - found[2]:,} of {found[1]:,} rows of this event"
                remedy = "Add the value; leave it empty only for an event that never has one."
                faults.append(Fault(EVENTS, problem, remedy, column="value", value=found[0]))
        if "decision_id" in columns and parts[DECISIONS]:
            named = "cast(e.decision_id as varchar) = cast(d.decision_id as varchar)"
            other = "cast(e.user_id as varchar) <> cast(d.user_id as varchar)"
            query = (
                f"select any_value(e.decision_id), count(*) from {source} e "
                f"join {source.replace('$files', '$decisions')} d on {named} where {other}"
            )
            value, count = connection.execute(query, {"files": parts[EVENTS], "decisions": parts[DECISIONS]}).fetchone()
            if count:
                remedy = "Give the event the id of a decision of its own user, or leave it empty."
                problem = f"the decision is another user's ({count:,} rows)"
                faults.append(Fault(EVENTS, problem, remedy, column="decision_id", value=value))
    raise_faults(faults)


def read_columns(path: Path, columns: list[str]) -> pd.DataFrame:
    """Return some columns of a part."""
    from pyarrow import parquet  # late, so that `--help` does not wait for it

    table: pd.DataFrame = parquet.ParquetFile(path).read(columns=columns).to_pandas()
    return table


def _times(folder: Path, files: Files, table: str) -> IntArray:
    """Return the times of all rows of a table, microseconds."""
    found, faults = [np.zeros(0, dtype=np.int64)], list[Fault]()
    for name in files:
        if place_of(name)[1] == table:
            frame = read_columns(folder / name, ["time"])
            found.append(TableValidator(frame, name, faults).times("time")[0])
    raise_faults(faults)
    return np.concatenate(found)


def _schema(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_schema(path)


def _kind(kind: Any) -> str:
    if pa.types.is_integer(kind):
        return "numbers"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "none" if pa.types.is_null(kind) else "other"
