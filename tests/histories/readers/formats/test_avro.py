"""Avro files: every type as JSON or Parquet has it, and one error for each damaged file, or without fastavro."""

from __future__ import annotations

import datetime as dt
import gzip
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crosschannel.core.errors import InputError
from crosschannel.histories.readers.source_files import read_file

RECORDS: list[dict[str, Any]] = [
    {
        "user": "007",
        "count": 2**60 + 1,
        "at": dt.datetime(2024, 5, 1, 8, 30, 0, 123456, tzinfo=dt.UTC),
        "wall": dt.datetime(2024, 5, 1, 8, 30),
        "day": dt.date(2024, 5, 1),
        "price": Decimal("12.50"),
        "whole": Decimal("7.00"),
        "text": b"caf\xc3\xa9",
        "raw": b"\xff\x00",
        "id": uuid.UUID(int=5),
        "kind": "OPEN",
        "nested": {"offer": "small", "paid": Decimal("1.50")},
        "tags": {"a": "b"},
        "parameters": [{"key": "page", "value": "/"}],
        "yes": True,
    },
]
RECORDS.append(RECORDS[0] | dict.fromkeys(("count", "at", "day", "price", "text", "nested")))


def logical(kind: str, name: str, **more: int) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


def decimal() -> dict[str, Any]:
    return logical("bytes", "decimal", precision=10, scale=2)


def record(name: str, **types: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": key, "type": kind} for key, kind in types.items()]}


SCHEMA = record(
    "Row",
    user="string",
    count=["null", "long"],
    at=["null", logical("long", "timestamp-micros")],
    wall=logical("long", "local-timestamp-millis"),
    day=["null", logical("int", "date")],
    price=["null", decimal()],
    whole=decimal(),
    text=["null", "bytes"],
    raw="bytes",
    id=logical("string", "uuid"),
    kind={"type": "enum", "name": "Kind", "symbols": ["OPEN", "CLICK"]},
    nested=["null", record("Nested", offer="string", paid=decimal())],
    tags={"type": "map", "values": "string"},
    parameters={"type": "array", "items": record("Parameter", key="string", value="string")},
    yes="boolean",
)


def write(path: Path, records: list[dict[str, Any]], codec: str = "null") -> bytes:
    fastavro = pytest.importorskip("fastavro", reason="fastavro (the extra avro) is not installed")
    with path.open("wb") as out:
        fastavro.writer(out, fastavro.parse_schema(SCHEMA), records, codec=codec)
    return path.read_bytes()


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_every_type_is_read_as_json_or_parquet_has_it(tmp_path: Path, codec: str):
    write(tmp_path / "a.avro", RECORDS, codec)
    found = read_file(tmp_path / "a.avro")
    assert found.unreadable == {"raw": "bytes that are not text"}
    frame = found.frame
    first, second = frame.iloc[0], frame.iloc[1]
    assert frame["user"].tolist() == ["007", "007"]
    assert frame["count"].tolist() == [2**60 + 1, None]
    assert first["at"] == pd.Timestamp("2024-05-01T08:30:00.123456Z")
    assert first["wall"] == pd.Timestamp("2024-05-01T08:30")
    assert first["day"] == pd.Timestamp("2024-05-01")
    assert frame["whole"].tolist() == [7, 7]
    assert frame["price"].tolist() == [12.5, None]
    assert (first["text"], first["id"], first["kind"]) == ("café", str(uuid.UUID(int=5)), "OPEN")
    assert first["nested"] == {"offer": "small", "paid": 1.5}
    assert (first["tags"], first["parameters"]) == ({"a": "b"}, [{"key": "page", "value": "/"}])
    assert frame["yes"].dtype == bool
    assert second[["at", "day", "text", "nested"]].isna().all()


def test_a_compressed_file_and_one_without_rows(tmp_path: Path):
    content = write(tmp_path / "a.avro", RECORDS)
    (tmp_path / "b.avro.gz").write_bytes(gzip.compress(content))
    assert len(read_file(tmp_path / "b.avro.gz").frame) == 2
    write(tmp_path / "none.avro", [])
    frame = read_file(tmp_path / "none.avro").frame
    assert (len(frame), "user" in frame) == (0, True)


def test_every_damage_is_one_error(tmp_path: Path):
    """A cut between two blocks cannot be seen: such a file is a shorter one."""
    content = write(tmp_path / "a.avro", RECORDS)
    path, read, messages = tmp_path / "cut.avro", 0, []
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        try:
            read_file(path)
            read += 1
        except InputError as error:
            messages.append(str(error))
    assert read <= 1
    assert messages
    assert all("this cannot be read as Avro" in message for message in messages)


def test_without_fastavro_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.avro").write_bytes(b"Obj\x01")
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(InputError, match=r"pip install 'crosschannel\[avro\]'.*COPY \(SELECT \* FROM read_avro\("):
        read_file(tmp_path / "a.avro")
