"""Damage the values inside of a file whose format stays whole: a column, a cell, an entry, a sealed state."""

from __future__ import annotations

import copy
import decimal
import hashlib
import io
import json
import random
import struct
import tempfile
from collections.abc import Iterator, MutableMapping, MutableSequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
import yaml
from pyarrow import parquet as pq

from crosschannel.pipeline.run_files import write_json

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63 - 1, 10**30, 0.5, 1e300, 1e-300),
    *(float("nan"), float("inf"), float("-inf")),
    *("", " ", "none", "NaN", "null", "1", "1.5", "-1", "2024-03-04", "1709546400000", "Europe", "a|b", "7d", "0d"),
    *([], [1], ["a"], {}, {"a": 1}, [[1]]),
)
CELLS: tuple[Any, ...] = (
    *VALUES,
    *(b"\xff", decimal.Decimal("1.5"), decimal.Decimal("1e30"), np.datetime64("2024-03-04", "D")),
    *(pd.Timestamp("2024-03-05"), pd.Timestamp("2031-01-01", tz="UTC"), pd.Timestamp("1970-01-01"), pd.Timedelta("1D")),
)


def damaged_parquet(rng: random.Random, content: bytes) -> bytes:
    """Return a Parquet file with other values, types, names or rows."""
    table = pq.read_table(io.BytesIO(content))
    for _ in range(rng.choice([1, 1, 2, 3])):
        table = _damaged_table(rng, table)
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _damaged_table(rng: random.Random, table: pa.Table) -> pa.Table:
    if not table.num_columns:
        return table
    k, kind = rng.randrange(table.num_columns), rng.random()
    name = table.column_names[k]
    if kind < 0.1:
        return table.rename_columns(
            [f"{n}{rng.choice(['', ' ', '2'])}" if n == name else n for n in table.column_names]
        )
    if kind < 0.15:
        return table.remove_column(k)
    if kind < 0.2:
        return table.append_column(rng.choice(table.column_names), table.column(k))
    if kind < 0.35:
        count = rng.choice([0, 1, table.num_rows]) if table.num_rows else 0
        rows = pa.array([rng.randrange(table.num_rows) for _ in range(count)], pa.int64())
        return table.take(rows) if rng.random() < 0.5 else pa.concat_tables([table, table.take(rows)])
    try:
        values = table.column(k).to_pylist()
    except OverflowError:  # a time that Python does not have, of an earlier damage
        return table
    if kind < 0.8:
        new = copy.deepcopy(rng.choice(CELLS) if rng.random() < 0.7 or not values else rng.choice(values))
        for row in range(len(values)) if rng.random() < 0.2 else [rng.randrange(max(1, len(values)))]:
            values[row : row + 1] = [new]
        values = values[: table.num_rows]
    else:
        values = _converted(rng, values)
    return table.set_column(k, name, _array(values, table.column(k).type))


def _converted(rng: random.Random, values: list[Any]) -> list[Any]:
    """Return all values as another type, where they can be converted."""
    convert = rng.choice((str, float, int, bool, decimal.Decimal, lambda value: [value], lambda value: {"a": value}))
    try:
        return [None if value is None else convert(value) for value in values]
    except (TypeError, ValueError, ArithmeticError):
        return [str(value) for value in values]


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return an array of a type where the values are such, of any type where they agree on one, or of texts."""
    for choices in ({"type": kind}, {}):
        try:
            array = pa.array(values, **choices, from_pandas=True)
            pq.write_table(pa.table({"values": array}), io.BytesIO())
            return array
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue
    return pa.array([None if value is None else str(value) for value in values])


def damaged_json(rng: random.Random, content: bytes) -> bytes:
    """Return JSON, or lines of JSON, in which one to three entries are others."""
    lines = content.split(b"\n")
    k = rng.randrange(len(lines))
    whole = content if len(lines) == 1 or content.startswith((b"{\n", b"[\n")) else lines[k]
    new = json.dumps(_with_other_entries(rng, json.loads(whole or b"{}")), ensure_ascii=rng.random() < 0.5).encode()
    return new if whole is content else b"\n".join([*lines[:k], new, *lines[k + 1 :]])


def damaged_sealed_json(rng: random.Random, content: bytes) -> bytes:
    """Return JSON of a run with other entries and the checksum that fits them."""
    data = json.loads(content)
    del data["checksum"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sealed.json"
        try:
            write_json(_with_other_entries(rng, data), path)
        except ValueError:  # strict JSON has no infinite numbers
            return content[: len(content) // 2]
        return path.read_bytes()


def damaged_yaml(rng: random.Random, content: bytes) -> bytes:
    """Return YAML in which one to three entries are others."""
    return yaml.safe_dump(_with_other_entries(rng, yaml.safe_load(content)), sort_keys=False).encode()


def damaged_checkpoint(rng: random.Random, content: bytes) -> bytes:
    """Return a checkpoint or policy in which entries are others, with the checksum that fits them."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    out = io.BytesIO()
    torch.save(_with_other_entries(rng, state), out)
    return sealed(out.getvalue())


def sealed(archive: bytes) -> bytes:
    """Return an archive with its checksum as comment, as checkpoints have it."""
    body = archive[:-2] + struct.pack("<H", len(b"sha256:") + 64)
    return body + b"sha256:" + hashlib.sha256(body).hexdigest().encode()


def _with_other_entries(rng: random.Random, data: Any) -> Any:
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = list(_places(data))
        if not places:
            return copy.deepcopy(rng.choice(VALUES))
        # Deep entries are many and alike: choose the depth first.
        depth = rng.choice(sorted({depth for _, _, depth in places}))
        holder, key, _ = rng.choice([place for place in places if place[2] == depth])
        kind = rng.random()
        if kind < 0.15:
            del holder[key]
        elif kind < 0.25 and isinstance(holder, MutableMapping):
            holder[rng.choice([f"{key}2", "name", 1, None, True])] = copy.deepcopy(holder[key])
        elif kind < 0.35:
            other, there, _ = rng.choice(places)
            holder[key] = copy.deepcopy(other[there])
        elif isinstance(holder[key], torch.Tensor):
            holder[key] = _other_tensor(rng, holder[key])
        else:
            # A copy: later damage must not reach the list of values, or put one into itself.
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return data


def _other_tensor(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    kind = rng.randrange(4)
    if kind == 0:
        return tensor.reshape(-1)[: rng.randrange(3)]
    if kind == 1:
        return tensor.to(rng.choice([torch.float64, torch.int64, torch.bool]))
    if kind == 2:
        return torch.full_like(tensor, rng.choice([0, 1, 7]))
    return tensor * rng.choice([float("nan"), float("inf"), -1.0, 1e30])


def _places(data: Any, depth: int = 0) -> Iterator[tuple[Any, Any, int]]:
    """Yield every entry of nested mappings and lists: what holds it, its key or number, and how deep it lies."""
    if isinstance(data, MutableMapping):
        items: Any = list(data.items())
    elif isinstance(data, MutableSequence):
        items = list(enumerate(data))
    else:
        return
    for key, value in items:
        yield data, key, depth
        yield from _places(value, depth + 1)
