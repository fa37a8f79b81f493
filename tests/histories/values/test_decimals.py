"""Numbers with a decimal comma are read exactly, and others are refused instead of read with another value."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from crosschannel.core.errors import Fault, InputError
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.readers.source_files import read_file
from crosschannel.histories.readers.sources import TableSource, read_source
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.values.decimals import with_decimal_point

MODULES = ({"name": "channel", "actions": ["none", "email"]},)


@pytest.mark.parametrize(
    ("text", "number"),
    [("12,50", 12.5), ("-0,5", -0.5), ("7", 7.0), ("1.234,50", 1234.5), ("1.234", 1234.0), ("1 234 567,8", 1234567.8)],
)
def test_a_number_with_a_decimal_comma(text: str, number: float):
    faults: list[Fault] = []
    column = with_decimal_point(TableValidator(pd.DataFrame({"x": [text, None, 2.5]}), "a.csv", faults), "x")
    assert [float(column[0]), column[1], column[2]] == [number, None, 2.5]
    assert not faults


@pytest.mark.parametrize("text", ["12.5", "1.23,5", "1,234,567", "12,", ",5", "x", "12,5 EUR", "1.234.56"])
def test_another_text_is_a_fault(text: str):
    faults: list[Fault] = []
    with_decimal_point(TableValidator(pd.DataFrame({"x": ["1,5", text]}), "a.csv", faults), "x")
    assert [(fault.row, fault.value) for fault in faults] == [(2, text)]


def test_values_and_attributes_of_files_with_decimal_commas(tmp_path: Path):
    (tmp_path / "stream.csv").write_text(
        "user_id;time;event;total\n1;2024-05-01T08:00Z;Sent;\n1;2024-05-02T08:00Z;Order;1.012,50\n"
        "2;2024-05-03T08:00Z;Order;3,25\n"
    )
    (tmp_path / "users.csv").write_text("user_id;income;plan\n1;2.500,75;a,b\n2;;c\n")
    stream = TableSource(tmp_path / "stream.csv", separator=";", decimal=",")
    users = TableSource(tmp_path / "users.csv", separator=";", decimal=",")
    sends = (Sends(("Sent",), constants={"channel": "email"}),)
    mapping = StreamMapping(stream, MODULES, sends, "sends_only", values={"Order": "total"}, users=users)
    history = read_stream(mapping)
    assert history.events_frame()["value"].tolist() == [1012.5, 3.25]
    assert history.users is not None
    assert pd.to_numeric(history.users["income"])[0] == 2500.75
    assert history.users["plan"].tolist() == ["a,b", "c"]
    (tmp_path / "stream.csv").write_text((tmp_path / "stream.csv").read_text().replace("3,25", "3.25"))
    with pytest.raises(InputError, match=r"row 3, value '3.25': this is not a number with a decimal comma"):
        read_stream(mapping)


def test_propensities_of_tables_with_decimal_commas(tmp_path: Path):
    (tmp_path / "a.csv").write_text("user_id;time;p\n1;2024-05-01T08:00Z;0,25\n")
    source = TableSource(tmp_path / "a.csv", {"propensity": "p"}, separator=";", decimal=",")
    faults: list[Fault] = []
    rows = read_source(source, ("user_id", "time", "propensity"), ("user_id", "time"), faults)
    assert [float(one) for one in rows.frame["propensity"]] == [0.25]
    assert not faults


def test_a_compressed_file_without_a_format_is_json_if_it_begins_so(tmp_path: Path):
    (tmp_path / "1432684800000_x.gz").write_bytes(gzip.compress(b'\n{"a": 1}\n{"a": 2}\n'))
    assert read_file(tmp_path / "1432684800000_x.gz").frame["a"].tolist() == [1, 2]
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(InputError, match="the file format is unknown"):
        read_file(tmp_path / "text.gz")
