"""A history of tables in memory equals that of a native folder with the same rows, whoever made the tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from crosschannel.core.errors import InputError
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories import History, from_frames, read_history, write_history
from tests import ROOT


def to_relation(frame: pd.DataFrame) -> Any:
    return duckdb.from_arrow(pa.Table.from_pandas(frame, preserve_index=False))


def with_dictionaries(frame: pd.DataFrame) -> pa.Table:
    """Text as dictionaries, in several chunks."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    columns = [
        c.dictionary_encode() if pa.types.is_large_string(c.type) or pa.types.is_string(c.type) else c
        for c in table.columns
    ]
    whole = pa.Table.from_arrays(columns, names=table.column_names)
    return pa.concat_tables([whole.slice(0, 7), whole.slice(7)])


def with_categories(kind: Callable[[pl.Series], Any]) -> Callable[[pd.DataFrame], pl.DataFrame]:
    """Text as categories of polars, in several chunks."""

    def convert(frame: pd.DataFrame) -> pl.DataFrame:
        whole = pl.from_pandas(frame)
        texts = [name for name, one in whole.schema.items() if one == pl.String]
        whole = whole.with_columns([pl.col(name).cast(kind(whole[name])) for name in texts])
        return pl.concat([whole[:7], whole[7:]], rechunk=False)

    return convert


def with_arrow_types(frame: pd.DataFrame) -> pd.DataFrame:
    return pa.Table.from_pandas(frame, preserve_index=False).to_pandas(types_mapper=pd.ArrowDtype)


def with_pandas_categories(frame: pd.DataFrame) -> pd.DataFrame:
    texts = [name for name in frame if pd.api.types.infer_dtype(frame[name], skipna=True) == "string"]
    return frame.astype(dict.fromkeys(texts, "category"))


KINDS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "pandas with an index": lambda frame: frame.set_index(frame.index[::-1] + 5),
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "reader of batches": lambda frame: pa.Table.from_pandas(frame, preserve_index=False).to_reader(50),
    "dictionaries": with_dictionaries,
    "polars categories": with_categories(lambda _: pl.Categorical),
    "polars enum": with_categories(lambda column: pl.Enum(column.drop_nulls().unique().sort())),
    "pandas categories": with_pandas_categories,
    "pandas nullable": lambda frame: frame.convert_dtypes(),
    "pandas on arrow": with_arrow_types,
    "duckdb": to_relation,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "log"
    market = simulate_history(Market(MarketConfig(users=60, days=5)))[0]
    rows = market.decisions_frame(), market.events_frame()
    assert market.users is not None
    # The market's own order of event names is not one that rows tell.
    write_history(History.from_tables(*rows, market.modules, market.users, span=market.span), path)
    return path


def tables(folder: Path) -> list[pd.DataFrame]:
    return [pd.read_parquet(folder / f"{name}.parquet") for name in ("decisions", "events", "users")]


def history_of(folder: Path, kind: str) -> tuple[History, History]:
    wanted = read_history(folder)
    decisions, events, users = map(KINDS[kind], tables(folder))
    first, last = (str(pd.Timestamp(moment, unit="us")) for moment in wanted.span)
    found = from_frames(
        *(decisions, events, wanted.modules, users),
        span=(first, last),
        name=wanted.name,
        churn_events=wanted.churn_events,
        ties=wanted.ties,
    )
    return found, wanted


@pytest.mark.parametrize("kind", KINDS)
def test_the_history_is_that_of_the_folder(folder: Path, kind: str) -> None:
    found, wanted = history_of(folder, kind)
    assert found.fingerprint() == wanted.fingerprint()
    assert found.n_users == wanted.n_users == 60


def test_modules_may_be_entries_and_users_may_be_left_out(folder: Path) -> None:
    decisions, events, _ = tables(folder)
    found = from_frames(decisions, events, read_history(folder).modules.to_dict())
    assert found.n_users == decisions["user_id"].nunique()


MODULES = [{"name": "channel", "actions": ["none", "push"]}]
DECISIONS = pd.DataFrame(
    {
        "decision_id": [f"d{k}" for k in range(6)],
        "user_id": ["u0", "u1", "u2"] * 2,
        "time": pd.date_range("2024-05-01", periods=6, freq="D", tz="UTC"),
        "channel": ["none", "push"] * 3,
    }
)
EVENTS = pd.DataFrame({"user_id": ["u0", "u1", "u2"], "time": DECISIONS["time"][:3], "event": "order", "value": 1.0})
USERS = pd.DataFrame({"user_id": ["u0", "u1", "u2"], "plan": ["a", "b", "a"], "age": [30, 40, 50]})
BASE = {"decisions": DECISIONS, "events": EVENTS, "users": USERS}


def read(**changed: Any) -> History:
    given = BASE | changed
    return from_frames(given["decisions"], given["events"], MODULES, given["users"])


def typed(table: str, **columns: Any) -> dict[str, Any]:
    """A table of pandas with other columns."""
    return {table: BASE[table].assign(**columns)}


def polars(table: str, *columns: Any) -> dict[str, Any]:
    return {table: pl.from_pandas(BASE[table]).with_columns(*columns)}


def sql(table: str, query: str) -> dict[str, Any]:
    given = to_relation(BASE[table])
    return {table: given.query("given", query)}


#: Columns that hold the same values in another type.
SAME: dict[str, Callable[[], dict[str, Any]]] = {
    "text of pandas": lambda: typed("users", plan=pd.array(["a", "b", "a"], dtype="string")),
    "text of pyarrow": lambda: typed("users", plan=pd.array(["a", "b", "a"], dtype="string[pyarrow]")),
    "nullable integers": lambda: typed("users", age=pd.array([30, 40, 50], dtype="Int16")),
    "decimals as objects": lambda: typed("events", value=[Decimal("1.00")] * 3),
    "bytes as objects": lambda: typed("users", plan=[b"a", "b", b"a"]),
    "another zone": lambda: typed("decisions", time=DECISIONS["time"].dt.tz_convert("Europe/Berlin")),
    "no zone": lambda: typed("decisions", time=DECISIONS["time"].dt.tz_localize(None)),
    "dates as objects": lambda: typed("decisions", time=DECISIONS["time"].dt.date),
    "times as objects, zones mixed": lambda: typed(
        "decisions",
        time=[t.tz_convert("Asia/Tokyo" if k % 2 else "UTC").to_pydatetime() for k, t in enumerate(DECISIONS["time"])],
    ),
    "categories of times": lambda: typed("decisions", time=pd.Categorical(DECISIONS["time"])),
    "half precision": lambda: typed("events", value=np.ones(3, np.float16)),
    "polars decimal": lambda: polars("events", pl.col("value").cast(pl.Decimal(10, 2))),
    "polars bytes": lambda: polars("users", pl.col("plan").cast(pl.Binary)),
    "polars milliseconds": lambda: polars("decisions", pl.col("time").cast(pl.Datetime("ms", "UTC"))),
    "polars nanoseconds": lambda: polars("decisions", pl.col("time").cast(pl.Datetime("ns", "UTC"))),
    "polars date": lambda: polars("decisions", pl.col("time").dt.date()),
    "duckdb enum": lambda: sql("users", "select * replace (plan::enum('b', 'a') as plan) from given"),
    "duckdb hugeint": lambda: sql("users", "select * replace (age::hugeint as age) from given"),
    "duckdb decimal": lambda: sql("events", "select * replace (value::decimal(38, 10) as value) from given"),
    "duckdb seconds": lambda: sql("decisions", "select * replace (time::timestamp::timestamp_s as time) from given"),
    "runs": lambda: {
        "users": pa.Table.from_pandas(USERS).set_column(
            1, "plan", pa.RunEndEncodedArray.from_arrays([1, 2, 3], ["a", "b", "a"])
        )
    },
}


@pytest.mark.parametrize("kind", SAME)
def test_the_type_of_a_column_changes_nothing(kind: str) -> None:
    assert read(**SAME[kind]()).fingerprint() == read().fingerprint()


#: Attributes with an entry that is missing.
MISSING: dict[str, Callable[[], dict[str, Any]]] = {
    "categories of pandas": lambda: typed("users", plan=pd.Categorical(["a", None, "a"])),
    "text of pandas": lambda: typed("users", plan=pd.array(["a", None, "a"], dtype="string")),
    "text of pyarrow": lambda: typed("users", plan=pd.array(["a", None, "a"], dtype=pd.ArrowDtype(pa.string()))),
    "categories of polars": lambda: {
        "users": pl.from_pandas(USERS.assign(plan=["a", None, "a"])).with_columns(pl.col("plan").cast(pl.Categorical))
    },
    "enum of duckdb": lambda: sql("users", "select * replace (nullif(plan, 'b')::enum('b', 'a') as plan) from given"),
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_category_is_missing(kind: str) -> None:
    found, wanted = read(**MISSING[kind]()), read(**typed("users", plan=["a", None, "a"]))
    assert found.fingerprint() == wanted.fingerprint() != read().fingerprint()


def test_ids_of_many_digits_keep_them() -> None:
    """DuckDB's sums of integers are `hugeint`, and 2^53 is the last integer before which a float has all."""
    replaced = "select * replace (9007199254740993::hugeint + right(user_id, 1)::hugeint as user_id) from given"
    found = read(**{name: value for table in BASE for name, value in sql(table, replaced).items()})
    assert [str(one) for one in found.user_ids] == [str(2**53 + 1 + k) for k in range(3)]


#: A column that cannot be read, its name, and words of the problem and of the remedy.
REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str, str]] = {
    "mixed ids": (
        lambda: typed("users", user_id=["u0", 1, "u2"]),
        "user_id",
        r"row 2, value 1: the column has values of several types: str, int.*astype\(str\)",
    ),
    "mixed values": (lambda: typed("events", value=[1, None, "2"]), "value", r"row 3, value '2'.*int, str"),
    "mixed numbers": (lambda: typed("events", value=[Decimal("1.5"), 1.5, 2]), "value", "Decimal, float, int"),
    "mixed times": (lambda: typed("decisions", time=["2024-05-01", *DECISIONS["time"][1:]]), "time", "str, Timestamp"),
    "objects": (lambda: typed("users", plan=[object()] * 3), "plan", "cannot be converted to Arrow"),
    "integers of 70 bits": (lambda: typed("events", value=[2**70] * 3), "value", "int too large"),
    "complex": (lambda: typed("events", value=[1j] * 3), "value", "cannot be converted to Arrow"),
    "sparse": (lambda: typed("events", value=pd.arrays.SparseArray([1.0] * 3)), "value", "Sparse"),
    "sets": (lambda: typed("users", plan=[{1}] * 3), "plan", "a list"),
    "periods": (lambda: typed("decisions", time=pd.period_range("2024-05", periods=6)), "time", "pandas.period"),
    "intervals": (lambda: typed("users", plan=pd.cut([1, 2, 3], 3)), "plan", "pandas.interval"),
    "durations": (lambda: typed("events", value=pd.to_timedelta([1, 2, 3], unit="h")), "value", "not a number"),
    "far in seconds": (
        lambda: typed("decisions", time=np.array(["3024-05-01"] * 6, "M8[s]")),
        "time",
        "outside the years",
    ),
    "the end of time": (lambda: typed("decisions", time=[dt.datetime.max] * 6), "time", "outside the years"),
    "the end of nanoseconds": (
        lambda: typed("users", observed_until=np.array(["9999-12-31"] * 3, "M8[us]")),
        "observed_until",
        "outside the years",
    ),
    "one name twice": (
        lambda: {"users": pd.concat([USERS, USERS[["plan"]]], axis=1)},
        "plan",
        "two columns have this name. Rename or drop one",
    ),
    "one name twice in Arrow": (
        lambda: {"users": pa.Table.from_pandas(USERS).append_column("plan", pa.array(["x"] * 3))},
        "plan",
        "two columns have this name. Rename or drop one",
    ),
    "polars duration": (
        lambda: polars("events", pl.duration(hours=pl.col("value").cast(pl.Int64)).alias("value")),
        "value",
        "not a number",
    ),
    "polars list": (lambda: polars("users", pl.col("plan").str.split("")), "plan", "a list"),
    "polars bytes": (lambda: polars("users", pl.Series("plan", [b"\xff"] * 3)), "plan", "bytes that are not text"),
    "polars clock": (lambda: polars("decisions", pl.lit(dt.time(9)).alias("time")), "time", "not a time"),
    "polars 128 bits": (lambda: polars("users", pl.col("age").cast(pl.Int128)), "age", "cannot be converted to Arrow"),
    "duckdb interval": (lambda: sql("users", "select *, interval 1 day as age from given"), "age", "interval"),
    "duckdb infinity": (
        lambda: sql("decisions", "select * replace ('infinity'::timestamp as time) from given"),
        "time",
        "outside the years",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_column_that_cannot_be_read_is_one_fault_with_its_name_and_a_remedy(kind: str) -> None:
    make, column, shown = REFUSED[kind]
    changed = make()
    with pytest.raises(InputError, match=shown) as error:
        read(**changed)
    (fault,) = error.value.faults
    assert (fault.file, fault.column) == (*changed, column)
    assert fault.remedy


def test_all_columns_of_all_tables_that_cannot_be_read_are_named() -> None:
    with pytest.raises(InputError) as error:
        read(**typed("events", value=[1, "a", 2], event=[1j] * 3), **typed("users", plan=[1, "b", 2]))
    assert [(one.file, one.column) for one in error.value.faults] == [
        ("events", "event"),
        ("events", "value"),
        ("users", "plan"),
    ]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (lambda: pl.from_pandas(EVENTS).lazy(), r"a LazyFrame is not a table.*`\.collect\(\)`"),
        (lambda: duckdb.connect(), r"a DuckDBPyConnection is not a table.*connection\.sql"),
        (lambda: EVENTS.to_dict("list"), "a dict is not a table.*Give a frame"),
        (lambda: None, "a NoneType is not a table.*Give a frame"),
        (lambda: pl.from_pandas(EVENTS)["event"], "cannot be read as a table.*Give a frame"),
        (lambda: EVENTS["event"], "table.*Give a frame"),
        (
            lambda: duckdb.sql("select cast(x as integer) as value from (values ('1'), ('y')) t(x)"),
            "cannot be read as a table: Conversion Error: Could not convert string 'y'.*Correct the query",
        ),
    ],
)
def test_what_is_nearly_a_table_is_refused_with_what_to_do(given: Callable[[], Any], shown: str) -> None:
    with pytest.raises(InputError, match=shown) as error:
        read(events=given())
    assert [one.file for one in error.value.faults] == ["events"]


@pytest.mark.parametrize("kind", ["pandas", "polars", "duckdb"])
def test_faults_name_table_row_and_column(folder: Path, kind: str) -> None:
    decisions, events, _ = tables(folder)
    decisions.loc[3, "channel"] = "fax"
    with pytest.raises(InputError, match=r"decisions, column 'channel', row 4, value 'fax'"):
        from_frames(KINDS[kind](decisions), KINDS[kind](events), read_history(folder).modules)


def test_columns_that_no_log_has_are_refused_all_at_once(folder: Path) -> None:
    decisions, events, _ = tables(folder)
    decisions["tags"], events["path"] = [["a"]] * len(decisions), [["b"]] * len(events)
    with pytest.raises(InputError, match="tags") as error:
        from_frames(decisions, events, read_history(folder).modules)
    assert [(fault.file, fault.column) for fault in error.value.faults] == [("decisions", "tags"), ("events", "path")]


def test_what_is_no_table_is_refused(folder: Path) -> None:
    _, events, _ = tables(folder)
    with pytest.raises(InputError, match="a list is not a table"):
        from_frames([1], events, read_history(folder).modules)  # type: ignore[arg-type]


def test_the_piece_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "histories.md").read_text().split("test_frames.py -->\n```python\n")[1].split("```")[0]
    exec(compile(text, "docs/histories.md", "exec"), {})
    assert "2 users, 2 decisions" in capsys.readouterr().out
