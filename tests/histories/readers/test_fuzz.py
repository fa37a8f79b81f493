"""Damaged files of every form are read or refused by the package's own errors, never with a traceback or a hang."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crosschannel.core.errors import CrosschannelError
from crosschannel.histories.history import History
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.readers.tables import TableMapping, read_tables
from tests.histories.readers import test_decided, test_sent_tables
from tests.histories.readers.test_formats import as_lines, as_text, mapping, rows, zipped

TOKENS = [
    *(b"", b'"', b"\n", b",", b"\r", b"\0", b"\xff", b"null", b"NaN", b"1e999", b"-1", b"{}", b"[]", b"true"),
    *(b"2031-01-01T00:00Z", b"1970-01-01", b"0001-01-01", b"9999-12-31T23:59:59Z", b"2024-03-31 02:30", b"10:00"),
    *(b"2024-03-04T10:00:00+99:99", b"1709546400000", b"\\ud83d", b"anonymous", b"9" * 400, b'{"a":1}', b"Infinity"),
    *(b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"none", b"Email Sent", b"\\u0000"),
]
MAX_SECONDS = 10


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Content with one to ten mutations of bits, bytes, lines or tokens."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 10])):
        kind, begin = rng.random(), rng.randrange(len(out) + 1)
        end = min(len(out), begin + rng.choice([0, 1, 2, 5, 20, 200]))
        tokens = [match.span() for match in re.finditer(rb'[^,\n":{}\[\]]+', bytes(out))]
        if kind < 0.2:
            out[begin:end] = rng.choice(TOKENS)
        elif kind < 0.4 and begin < len(out):
            out[begin] ^= 1 << rng.randrange(8)
        elif kind < 0.5:
            del out[begin:end]
        elif kind < 0.6:
            out[begin:begin] = out[begin:end] * rng.choice([1, 2, 50])
        elif kind < 0.65:
            del out[begin:]
        elif tokens:
            first, last = rng.choice(tokens)
            out[first:last] = rng.choice(TOKENS)
    return bytes(out or b"x")


def parquet(frame: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out)
    return out.getvalue()


def streams() -> dict[str, bytes]:
    frame = rows(8, 6)
    flat = frame.assign(properties=frame["properties"].map(json.dumps))
    nested = [
        {"channel": p.get("channel"), "offer": {"size": p.get("offer", {}).get("size")}, "revenue": p.get("revenue")}
        for p in frame["properties"]
    ]
    return {
        "a.csv": as_text(frame),
        "a.tsv": as_text(frame, "\t"),
        "a.csv.gz": gzip.compress(as_text(frame)),
        "a.zip": zipped("x.csv", as_text(frame)),
        "a.jsonl": as_lines(frame),
        "a.jsonl.gz": gzip.compress(as_lines(frame)),
        "a.json": json.dumps(frame.to_dict("records")).encode(),
        "text.parquet": parquet(flat),
        "nested.parquet": parquet(frame.assign(properties=nested)),
    }


def stream_mapping(rng: random.Random, path: Path) -> StreamMapping:
    settings: dict[str, Any] = rng.choice([{}, {}, {}, {"time_zone": "Europe/Berlin"}, {"encoding": "latin-1"}])
    one = mapping(path, **settings)
    grid = SlotGrid("1d", "10:00", several=rng.choice(["error", "first"]))
    slots = rng.choice([grid, "sends_only"])
    return replace(one, slots=slots, anonymous=rng.choice(["error", "leave_out"]))


def table_mapping(rng: random.Random, folder: Path) -> TableMapping:
    orders = TableSource(folder / "orders.csv", {"user_id": "who", "time": "at", "value": "total"}, {"event": "order"})
    return TableMapping(
        TableSource(folder / "sends.csv", test_sent_tables.SENT),
        (orders, TableSource(folder / "visits.jsonl", {"user_id": "customer"})),
        test_sent_tables.MODULES,
        slots=rng.choice([test_sent_tables.GRID, "sends_only", None]),
        anonymous=rng.choice(["error", "leave_out"]),
    )


def attempts(rng: random.Random, folder: Path, n: int) -> Counter[str]:
    """Read n damaged logs; return how many were read and how many refused."""
    counts: Counter[str] = Counter()
    inputs = streams()
    test_sent_tables.write_log(folder, 20, 6)
    tables = {name: (folder / name).read_bytes() for name in ("sends.csv", "orders.csv", "visits.jsonl")}
    joined = folder / "joined"
    joined.mkdir()
    test_decided.write_log(joined, pd.Timedelta("1h"))
    parts = {name: (joined / name).read_bytes() for name in ("sends.csv", "visits.csv", "decided/8.csv")}

    def write_one_damaged(where: Path, contents: dict[str, bytes]) -> None:
        chosen = rng.choice(list(contents))
        for name, content in contents.items():
            (where / name).write_bytes(damaged(rng, content) if name == chosen else content)

    def read(kind: float) -> History:
        if kind < 0.6:
            name = rng.choice(list(inputs))
            (folder / name).write_bytes(damaged(rng, inputs[name]))
            return read_stream(stream_mapping(rng, folder / name))
        if kind < 0.9:
            write_one_damaged(folder, tables)
            return read_tables(table_mapping(rng, folder))
        write_one_damaged(joined, parts)
        return test_decided.read(rng.choice(["stream", "tables"]), joined)

    for _ in range(n):
        begin = time.process_time()
        outcome = "refused"
        with suppress(CrosschannelError):
            history = read(rng.random())
            assert history.summary()
            assert history.fingerprint()
            outcome = "read"
        counts[outcome] += 1
        assert time.process_time() - begin < MAX_SECONDS
    return counts


@pytest.mark.parametrize("n", [150, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(tmp_path: Path, n: int):
    counts = attempts(random.Random(17), tmp_path, n)
    assert min(counts["read"], counts["refused"]) > n / 50, counts
