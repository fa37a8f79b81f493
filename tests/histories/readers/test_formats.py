"""Files of every form: the same rows from all of them, or one error that names the file and the remedy."""

from __future__ import annotations

import bz2
import datetime as dt
import decimal
import gzip
import io
import json
import lzma
import uuid
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.histories.history import History
from crosschannel.histories.readers.data_files import data_files
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.source_files import read_file
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.readers.tables import TableMapping, read_tables

MODULES = ({"name": "channel", "actions": ["none", "email"]}, {"name": "offer", "actions": ["small", "large"]})


def rows(users: int = 12, days: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    out: list[dict[str, Any]] = []
    for day in range(days):
        for user in range(users):
            base = pd.Timestamp("2024-03-04T06:00Z") + pd.Timedelta(days=day, minutes=user)
            one = {"userId": f"kät{user:02d}", "properties": {}}
            out.append(one | {"timestamp": base, "event": "App Opened"})
            if rng.random() < 0.4:
                properties = {"channel": "email", "offer": {"size": str(rng.choice(["small", "large"]))}}
                out.append(
                    one | {"timestamp": base + pd.Timedelta("5h"), "event": "Email Sent", "properties": properties}
                )
            if rng.random() < 0.3:
                properties = {"revenue": round(float(rng.gamma(2, 10)), 2), "items": [{"sku": 1}, {"sku": 2}]}
                out.append(one | {"timestamp": base + pd.Timedelta("9h"), "event": "Order", "properties": properties})
    frame = pd.DataFrame(out)
    return frame.assign(
        timestamp=frame["timestamp"].map(pd.Timestamp.isoformat), date=frame["timestamp"].dt.date.map(str)
    )


def mapping(path: Path, **settings: Any) -> StreamMapping:
    return StreamMapping(
        TableSource(path, {"user_id": "userId", "time": "timestamp"}, **settings),
        MODULES,
        (Sends(("Email Sent",), {"channel": "properties.channel", "offer": "properties.offer.size"}),),
        SlotGrid("1d", "10:00"),
        values={"Order": "properties.revenue"},
    )


def as_text(frame: pd.DataFrame, separator: str = ",", encoding: str = "utf-8") -> bytes:
    flat = frame.assign(properties=frame["properties"].map(json.dumps)).drop(columns="date")
    return flat.to_csv(index=False, sep=separator).encode(encoding)


def as_lines(frame: pd.DataFrame) -> bytes:
    return "\n".join(json.dumps(one, ensure_ascii=False) for one in frame.to_dict("records")).encode()


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("__MACOSX/._x", "x")
        archive.writestr(name, content)
    return out.getvalue()


FORMS: dict[str, tuple[Callable[[pd.DataFrame], bytes], dict[str, Any]]] = {
    "a.CSV": (as_text, {}),
    "a.tsv": (lambda f: as_text(f, "\t"), {}),
    "a.txt": (lambda f: as_text(f, "|"), {"separator": "|"}),
    "semicolon.csv": (lambda f: as_text(f, ";"), {"separator": ";"}),
    "a.csv.gz": (lambda f: gzip.compress(as_text(f)), {}),
    "a.csv.bz2": (lambda f: bz2.compress(as_text(f)), {}),
    "a.csv.xz": (lambda f: lzma.compress(as_text(f)), {}),
    "a.csv.zip": (lambda f: zipped("export/a.csv", as_text(f)), {}),
    "b.zip": (lambda f: zipped("rows.jsonl", as_lines(f)), {}),
    "mark.csv": (lambda f: as_text(f, encoding="utf-8-sig"), {}),
    "utf16.csv": (lambda f: as_text(f, encoding="utf-16"), {}),
    "latin.csv": (lambda f: as_text(f, encoding="latin-1"), {"encoding": "latin-1"}),
    "a.json": (as_lines, {}),
    "a.jsonl": (as_lines, {}),
    "a.ndjson.gz": (lambda f: gzip.compress(as_lines(f)), {}),
    "blank.jsonl": (lambda f: b"\n" + as_lines(f).replace(b"\n", b"\r\n\r\n") + b"\n\n", {}),
    "array.json": (lambda f: json.dumps(f.to_dict("records"), indent=1).encode(), {}),
}


def assert_equal(found: History, expected: History) -> None:
    pd.testing.assert_frame_equal(found.decisions_frame(), expected.decisions_frame())
    pd.testing.assert_frame_equal(found.events_frame(), expected.events_frame())
    assert found.span == expected.span


@pytest.fixture
def expected(tmp_path: Path) -> History:
    (tmp_path / "plain.csv").write_bytes(as_text(rows()))
    history = read_stream(mapping(tmp_path / "plain.csv"))
    assert history.modules.sends(history.decisions.actions).sum() > 10
    return history


def problem_of(read: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        read()
    return str(caught.value)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_history(expected: History, tmp_path: Path, name: str):
    write, settings = FORMS[name]
    (tmp_path / name).write_bytes(write(rows()))
    assert_equal(read_stream(mapping(tmp_path / name, **settings)), expected)
    # And in a folder, beside files that are not data.
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(write(rows()))
    for other in ("_SUCCESS", ".part-0.csv.crc", "_committed_17", "x.csv._COPYING_"):
        (folder / other).write_text("x")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "part.csv").write_text("x")
    assert_equal(read_stream(mapping(folder, **settings)), expected)


@pytest.mark.parametrize("kind", ["struct", "map", "text"])
def test_nested_columns_of_parquet_are_read_by_their_keys(expected: History, tmp_path: Path, kind: str):
    frame = rows().drop(columns="date")
    plain = [{"channel": p.get("channel"), "revenue": p.get("revenue")} for p in frame["properties"]]
    offers = [p.get("offer", {}).get("size") for p in frame["properties"]]
    columns: dict[str, Any] = {name: pa.array(frame[name]) for name in ("userId", "timestamp", "event")}
    path = mapping(tmp_path / "nested.parquet")
    if kind == "struct":
        nested = [p | {"offer": {"size": size}} for p, size in zip(plain, offers, strict=True)]
        columns["properties"] = pa.array(nested)
    elif kind == "map":
        texts = [
            [(k, str(v)) for k, v in (p | {"size": size}).items() if v is not None]
            for p, size in zip(plain, offers, strict=True)
        ]
        columns["properties"] = pa.array(texts, pa.map_(pa.string(), pa.string()))
        sends = (Sends(("Email Sent",), {"channel": "properties.channel", "offer": "properties.size"}),)
        path = replace(path, sends=sends)
    else:
        columns["properties"] = pa.array([json.dumps(p) for p in frame["properties"]], pa.large_string())
        columns["properties"] = columns["properties"].dictionary_encode()
    pq.write_table(pa.table(columns), tmp_path / "nested.parquet")
    assert_equal(read_stream(path), expected)


def typed(value: Any) -> dict[str, Any]:
    """Return a value as Google Analytics 4 exports it: in the field of its type, the others are null."""
    kind = {str: "string_value", float: "double_value"}[type(value)]
    return {name: value if name == kind else None for name in ("string_value", "int_value", "double_value")}


def flat(properties: dict[str, Any]) -> dict[str, Any]:
    scalars = {key: value for key, value in properties.items() if isinstance(value, str | float)}
    return scalars | ({"size": properties["offer"]["size"]} if "offer" in properties else {})


def of_keys(path: Path) -> StreamMapping:
    sends = (Sends(("Email Sent",), {"channel": "properties.channel", "offer": "properties.size"}),)
    return replace(mapping(path), sends=sends)


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv", "plain values"])
def test_a_list_of_keys_and_values_is_read_like_an_object(expected: History, tmp_path: Path, form: str):
    """Google Analytics 4 exports properties so."""
    frame = rows().drop(columns="date")
    write = str if form == "plain values" else typed
    pairs = [[{"key": k, "value": write(v)} for k, v in flat(p).items()] for p in frame["properties"]]
    path = tmp_path / f"list.{'parquet' if form == 'plain values' else form}"
    if form == "jsonl":
        path.write_bytes(as_lines(frame.assign(properties=pairs)))
    elif form == "csv":
        path.write_bytes(as_text(frame.assign(properties=pairs, date="")))
    else:
        pq.write_table(pa.Table.from_pandas(frame.assign(properties=pairs)), path)
    assert_equal(read_stream(of_keys(path)), expected)


def test_a_key_that_a_list_has_twice_is_a_fault(tmp_path: Path):
    frame = rows()
    sent = int(np.flatnonzero(frame["event"] == "Email Sent")[1])
    frame["properties"] = [[{"key": k, "value": typed(v)} for k, v in flat(p).items()] for p in frame["properties"]]
    frame.loc[sent, "properties"].append({"key": "channel", "value": typed("email")})
    (tmp_path / "a.jsonl").write_bytes(as_lines(frame))
    with pytest.raises(InputError) as caught:
        read_stream(of_keys(tmp_path / "a.jsonl"))
    assert [(f.column, f.row) for f in caught.value.faults] == [("properties", sent + 1)]
    assert caught.value.faults[0].problem == "this list is not one of keys, each once, and values"


def test_a_list_without_keys_names_what_to_do(tmp_path: Path):
    frame = rows().drop(columns="date")
    path = tmp_path / "list.parquet"
    values = [list(map(str, p)) for p in frame["properties"]]
    pq.write_table(pa.Table.from_pandas(frame.assign(properties=values)), path)
    text = problem_of(lambda: read_stream(mapping(path)))
    assert "column 'properties': the column is a list (list<" in text
    assert "UNNEST" in text
    assert text.count("\n") == 0, "one fault for one column"
    # A list that nobody maps is nobody's fault.
    frame = frame.assign(items=values, properties=frame["properties"].map(json.dumps))
    frame.to_parquet(path)
    assert read_stream(mapping(path)).n_users == 12


@pytest.mark.parametrize("value", [["email"], {"name": "email"}, []])
def test_a_list_or_object_where_one_value_should_be_is_a_fault(tmp_path: Path, value: Any):
    frame = rows()
    sent = np.flatnonzero(frame["event"] == "Email Sent")
    frame.loc[sent[2], "properties"]["channel"] = value
    (tmp_path / "a.jsonl").write_bytes(as_lines(frame))
    with pytest.raises(InputError) as caught:
        read_stream(mapping(tmp_path / "a.jsonl"))
    fault = caught.value.faults[0]
    assert (fault.column, fault.row) == ("properties.channel", int(sent[2]) + 1)
    assert fault.problem == "this is a list or an object, not one value"


ARROW: dict[str, Any] = {
    "null": pa.nulls(3),
    "dictionary": pa.array(["x", None, "y"]).dictionary_encode(),
    "binary": pa.array([b"\xff", None, b"x"]),
    "fixed binary": pa.array([uuid.UUID(int=k).bytes for k in range(3)], pa.binary(16)),
    "binary text": pa.array([b"a", None, b"b"], pa.large_binary()),
    "time32": pa.array([dt.time(10), None, dt.time(11)], pa.time32("s")),
    "time64": pa.array([dt.time(10), None, dt.time(11)], pa.time64("ns")),
    "duration": pa.array([1, None, 2], pa.duration("ms")),
    "date32": pa.array([dt.date(2024, 3, 4), None, dt.date(2024, 3, 5)]),
    "date64": pa.array([dt.date(2024, 3, 4), None, dt.date(2024, 3, 5)], pa.date64()),
    "decimal128": pa.array([decimal.Decimal("1.5"), None, decimal.Decimal(2)], pa.decimal128(20, 2)),
    "decimal256": pa.array([decimal.Decimal("1.5"), None, decimal.Decimal(2)], pa.decimal256(60, 2)),
    "list": pa.array([[1], None, []]),
    "large list": pa.array([[1], None, []], pa.large_list(pa.int8())),
    "fixed list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2)),
    "list of structs": pa.array([[{"a": 1}], None, []]),
    "struct": pa.array([{"a": {"b": 1}}, None, {"a": None}]),
    "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "half": pa.array(np.array([1, 2, 3], np.float16)),
    "bool": pa.array([True, None, False]),
    "large string": pa.array(["a", None, "b"], pa.large_string()),
    "string view": pa.array(["a", None, "b"], pa.string_view()),
    "zone": pa.array([1, None, 2], pa.timestamp("ns", tz="Europe/Athens")),
    "offset": pa.array([1, None, 2], pa.timestamp("s", tz="+05:30")),
    "no zone": pa.array([1, None, 2], pa.timestamp("us")),
    "year 9999": pa.array([dt.datetime(9999, 1, 1), None, dt.datetime(1, 1, 1)], pa.timestamp("us")),
}


@pytest.mark.parametrize("kind", ARROW)
@pytest.mark.parametrize(
    "native", ["user_id", "time", "event", "value", "channel", "offer", "message_id", "properties"]
)
def test_a_column_of_any_arrow_type_is_read_or_a_fault(tmp_path: Path, kind: str, native: str):
    """Whatever is mapped to whatever: no error but the package's own."""
    frame = pd.DataFrame(
        {
            "user_id": ["u", "v", "u"],
            "time": ["2024-03-04T10:00", "2024-03-05T09:00", "2024-03-08T10:00"],
            "event": ["Sent", "Order", "Order"],
            "value": [None, 1.0, 2.0],
            "channel": ["email", None, None],
            "offer": ["small", None, None],
            "message_id": ["a", "b", "c"],
            "properties": ['{"a": 1}', "{}", None],
        }
    )
    table = pa.Table.from_pandas(frame)
    table = table.set_column(table.column_names.index(native), native, ARROW[kind])
    pq.write_table(table, tmp_path / "x.parquet")
    source = TableSource(tmp_path / "x.parquet", {"message_id": "message_id", "value": "value"})
    one = StreamMapping(
        source, MODULES, (Sends(("Sent",), {"channel": "channel", "offer": "offer"}),), SlotGrid("1d", "09:00")
    )
    two = replace(one, rows=replace(source, columns={"message_id": "message_id"}), values={"Order": "properties.a"})
    sends = TableSource(tmp_path / "x.parquet", {"decision_id": "message_id"})
    events = (TableSource(tmp_path / "x.parquet", {"value": "value"}),)
    users = TableSource(tmp_path / "x.parquet")
    three = TableMapping(sends, events, MODULES, users)
    for read, what in ((read_stream, one), (read_stream, two), (read_tables, three)):
        with suppress(InputError, ConfigError):
            assert read(what).n_users  # type: ignore[arg-type]


def test_integers_of_parquet_stay_exact_beside_missing_ones(tmp_path: Path):
    path = tmp_path / "x.parquet"
    numbers = [2**53 + 1, None, 2**53]
    pq.write_table(pa.table({"i": pa.array(numbers), "d": pa.array(numbers).cast(pa.decimal128(38, 0))}), path)
    frame = read_file(path).frame
    for name in ("i", "d"):
        assert frame[name].dropna().tolist() == [2**53 + 1, 2**53]


def test_integers_of_json_stay_exact_beside_missing_ones(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"i": 9007199254740993}\n{}\n{"i": 1.5}\n{"i": 123456789012345678901234567890}\n')
    assert read_file(path).frame["i"].tolist() == [2**53 + 1, None, 1.5, 123456789012345678901234567890]


def part(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = frame.assign(properties=frame["properties"].map(json.dumps))
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


@pytest.mark.parametrize("layout", ["date={0}/part-0.csv", "event_type=x/date={0}/p.parquet", "{1}/{2}/{3}/00.csv.gz"])
def test_folders_below_a_folder_are_read(expected: History, tmp_path: Path, layout: str):
    folder = tmp_path / "log"
    for day, one in rows().groupby("date"):
        part(one.drop(columns="date"), folder / layout.format(day, *str(day).split("-")))
    for name in ("date=2024-03-05", "2024"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "empty.csv").write_text("")
    found = read_stream(mapping(folder))
    assert_equal(found, expected)
    assert "2 files of 0 bytes" in found.summary()


def test_columns_that_folders_name_are_read_as_columns(expected: History, tmp_path: Path):
    folder = tmp_path / "log"
    for (event, user), one in rows().groupby(["event", "userId"]):
        name = str(user).replace("ä", "%C3%A4")
        part(one.drop(columns=["event", "userId"]), folder / f"event={event}" / f"userId={name}" / "part.parquet")
    assert_equal(read_stream(mapping(folder)), expected)
    anonymous = folder / "event=Order" / "userId=__HIVE_DEFAULT_PARTITION__" / "part.parquet"
    part(rows()[:3].drop(columns=["event", "userId"]), anonymous)
    text = problem_of(lambda: read_stream(mapping(folder)))
    assert f"{anonymous}, column 'userId', row 1: the user id is missing" in text


def test_tables_have_the_same_forms(tmp_path: Path):
    """JSON lines with paths, several files in a folder, and rows named in their own file."""
    frame = rows()
    users = sorted(frame["userId"].unique())
    decisions = [
        {"id": f"{user}-{day}", "user": {"id": user}, "time": f"2024-03-{day:02d}T10:00Z", "what": {"channel": "email"}}
        for user in users
        for day in (5, 6, 7)
    ]
    for k, one in enumerate(decisions):
        one["what"] |= {"offer": "small"} if k % 3 else {"channel": "none"}
    for k, begin in enumerate((0, 10)):
        path = tmp_path / "decisions" / f"day={k}" / "part.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(map(json.dumps, decisions[begin : 10 if k == 0 else None])))
    (tmp_path / "decisions" / "day=2.json").write_text("")
    part(frame[frame["event"] == "Order"], tmp_path / "events" / "2024" / "03" / "orders.csv")
    (tmp_path / "people.ndjson").write_text("\n".join(json.dumps({"user_id": user, "age": 3}) for user in users))
    columns = {"decision_id": "id", "user_id": "user.id", "channel": "what.channel", "offer": "what.offer"}
    events = {"user_id": "userId", "time": "timestamp", "value": "properties.revenue"}
    files = TableMapping(
        TableSource(tmp_path / "decisions", columns),
        (TableSource(tmp_path / "events", events),),
        MODULES,
        TableSource(tmp_path / "people.ndjson"),
    )
    history = read_tables(files)
    assert len(history.decisions) == 36
    assert history.events.value.sum() == pytest.approx(sum(p.get("revenue", 0) for p in frame["properties"]))
    assert "left out: 1 file of 0 bytes" in history.summary()
    decisions[14]["what"] = {"channel": "fax"}
    (tmp_path / "decisions" / "day=1" / "part.jsonl").write_text("\n".join(map(json.dumps, decisions[10:])))
    text = problem_of(lambda: read_tables(files))
    assert f"{tmp_path / 'decisions' / 'day=1' / 'part.jsonl'}, column 'what.channel', row 5, value 'fax'" in text
    (tmp_path / "people.ndjson").write_text(json.dumps({"user_id": users[0], "traits": {"age": [3]}}))
    assert "this is a list or an object, not one value" in problem_of(lambda: read_tables(files))


REFUSED: dict[str, tuple[bytes, str]] = {
    "a.avro": (b"Obj\x01", "Avro"),
    "a.orc": (b"ORC", "pq.write_table(orc.read_table("),
    "a.xlsx": (b"PK", "Save the sheet as CSV"),
    "a.csv.zst": (b"(\xb5/\xfd", "zstd -d"),
    "a.tar.gz": (b"x", "Unpack it"),
    "a.dat": (b"x", "the file format is unknown. Give a file that ends in one of .csv, "),
    "a.txt": (b"userId|event\n", "the separator of a .txt file is not known"),
    "tab.csv": (b"userId\tevent\n1\t2\n", "set `separator`"),
    "latin.csv": ("userId,event\nkät,x\n".encode("latin-1"), "State the `encoding`"),
    "utf16.csv": ("userId,event\n1,x\n".encode("utf-16-le"), "State its `encoding` (such as utf-16-le)"),
    "twice.csv": (b"userId,event,userId\n1,x,2\n", "two columns have this name"),
    "empty.csv": (b"", "the file is empty"),
    "cut.csv.gz": (gzip.compress(b"a,b\n" * 1000)[:40], "Check that the file is complete"),
    "not.csv.gz": (b"a,b\n1,2\n", "Check that the file is complete"),
    "not.zip": (b"a,b\n1,2\n", "Check that the file is complete"),
    "not.parquet": (b"a,b\n1,2\n", "this cannot be read as Parquet"),
    "two.jsonl": (b'{"userId": 1}\n{"userId": 1, "userId": 2}\n', "the key 'userId' occurs twice"),
    "half.jsonl": (b'{"userId": "\\ud83d"}\n', "half of a character"),
    "cut.jsonl": (b'{"userId": "u"}\n{"userId": "v', 'row 2, value \'{"userId": "v\': this line is not JSON'),
    "number.jsonl": (b"1\n", "this line is not a JSON object"),
    "deep.jsonl": (b'{"a": ' + b"[" * 100_000 + b"\n", "this line is not"),
    "array.json": (b'[{"userId": 1}, 3]', "this entry of the array is not a JSON object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_names_the_remedy(tmp_path: Path, name: str):
    content, message = REFUSED[name]
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / name, tmp_path / "folder" / name):
        path.write_bytes(content)
    assert message in problem_of(lambda: read_stream(mapping(tmp_path / name)))
    if name != "empty.csv":
        assert message in problem_of(lambda: read_stream(mapping(tmp_path / "folder")))


def test_an_archive_of_several_files_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    assert "the archive has 2 files, not one" in problem_of(lambda: read_file(tmp_path / "a.zip"))


def test_rows_do_not_count_twice_because_a_file_was_copied(tmp_path: Path):
    part(rows(), tmp_path / "a.csv")
    part(rows(), tmp_path / "a.csv.gz")
    assert "the same name in another format" in problem_of(lambda: data_files(tmp_path))
    (tmp_path / "a.csv.gz").unlink()
    part(rows(), tmp_path / "a (1).csv")
    assert "is a copy of a (1).csv" in problem_of(lambda: data_files(tmp_path))
    (tmp_path / "a (1).csv").unlink()
    # Parts without rows are equal, and so may be those of different partitions.
    for name in ("b.csv", "c.csv"):
        part(rows()[:0], tmp_path / name)
    for name in ("kind=x", "kind=y"):
        part(rows()[:5], tmp_path / name / "part.csv")
    files, empty = data_files(tmp_path)
    assert [str(file.path.relative_to(tmp_path)) for file in files] == [
        *("a.csv", "b.csv", "c.csv", "kind=x/part.csv", "kind=y/part.csv")
    ]
    assert (files[-1].partition, empty) == ({"kind": "y"}, 0)


def test_folders_without_data_and_links_in_a_circle_are_refused(tmp_path: Path):
    assert "the folder has no file of data" in problem_of(lambda: data_files(tmp_path))
    (tmp_path / "a.csv").write_text("")
    assert "all its 1 files are empty" in problem_of(lambda: data_files(tmp_path))
    (tmp_path / "again").symlink_to(tmp_path)
    assert "the link leads to a folder above itself" in problem_of(lambda: data_files(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"), [({"separator": "::"}, "not one character"), ({"encoding": "x"}, "unknown encoding")]
)
def test_settings_of_a_source_are_checked(settings: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        TableSource(Path("a.csv"), **settings)  # type: ignore[arg-type]
