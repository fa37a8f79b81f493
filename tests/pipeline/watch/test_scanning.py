"""The search finds ids and their hashes in each kind of file, and does not take other numbers for short ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from crosschannel.core.files import write_csv
from crosschannel.core.hashing import hexadecimal, keys, pseudonyms
from crosschannel.pipeline.watch.scanning import Traces, scan, search

SECRET = "0123456789abcdef" * 2
IDS = np.array(["17", "user-000042", "Zoë Ångström", "=SUM(A1)"], dtype=object)
TRACES = Traces.of_users(IDS, [SECRET], frozenset({"d-00000099"}))


def found(path: Path) -> bool:
    return search(path, TRACES) is not None


@pytest.mark.parametrize("text", [*IDS, "d-00000099", *pseudonyms(IDS, SECRET)])
def test_texts_in_tables_and_structured_files(tmp_path: Path, text: str) -> None:
    table = pd.DataFrame({"name": ["other", text], "n": [1, 2]})
    table.to_parquet(tmp_path / "a.parquet")
    write_csv(table, tmp_path / "a.csv")
    (tmp_path / "a.json").write_text(json.dumps({"x": [{"y": text}]}))
    (tmp_path / "b.json").write_text(json.dumps({text: 1}))
    torch.save({"x": [text]}, tmp_path / "a.pt")
    assert {one.file.name for one in scan([tmp_path], TRACES)[0]} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("text", ["20240105T060000-17", "17-004", f"20240105T060000-{pseudonyms(IDS, SECRET)[1]}"])
def test_decision_ids_of_users_are_found_by_their_users(tmp_path: Path, text: str) -> None:
    pd.DataFrame({"decision_id": [text]}).to_parquet(tmp_path / "a.parquet")
    assert found(tmp_path / "a.parquet")


def test_numbers_as_ids(tmp_path: Path) -> None:
    pd.DataFrame({"user_id": [16, 17], "n": [0, 0]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"user_id": [16, 18], "n": [17, 17]}).to_parquet(tmp_path / "b.parquet")
    pd.DataFrame({"user_id": [16, 17]}).to_csv(tmp_path / "a.csv")
    pd.DataFrame({"count": [16, 17]}).to_csv(tmp_path / "b.csv")
    (tmp_path / "b.json").write_text('{"n": 17, "text": "1738"}')
    (tmp_path / "b.yaml").write_text("n: 17\n")
    (tmp_path / "b.bin").write_bytes(b" 17 \x0017")
    assert {one.file.name for one in scan([tmp_path], TRACES)[0]} == {"a.parquet", "a.csv"}


def test_columns_that_a_killed_process_has_kept(tmp_path: Path) -> None:
    for name, column in {
        "user_ids": np.array([16, 17]),
        "texts": np.array(["16", "17"]),
        "long": np.array(["none", "Zoë Ångström"]),
        "other": np.array([16, 17]),
        "float": np.array([16.0, 17.0]),
        "word": np.array(["16", "18"]),
    }.items():
        np.save(tmp_path / f"{name}.npy", column)
    assert {one.file.stem for one in scan([tmp_path], TRACES)[0]} == {"user_ids", "texts", "long"}


def test_hashes_in_files_of_torch_and_in_bytes(tmp_path: Path) -> None:
    others = keys(np.array(["16", "user-000041"], dtype=object)).view(np.int64)
    mine = keys(IDS).view(np.int64)
    decision = keys(np.array(["d-00000099"], dtype=object)).view(np.int64)
    for name, values in (("other", others), ("mine", mine[:1]), ("decision", decision)):
        torch.save({"buffer": {"key": torch.from_numpy(np.append(others, values))}}, tmp_path / f"{name}.pt")
    (tmp_path / "raw.bin").write_bytes(b"x" + keys(IDS)[2].astype("<u8").tobytes())
    (tmp_path / "hex.log").write_text(f"context {hexadecimal(keys(IDS)[:1, None])[0]}")
    wanted = {"mine.pt", "decision.pt", "raw.bin", "hex.log"}
    assert {one.file.name for one in scan([tmp_path], TRACES)[0]} == wanted


def test_long_ids_in_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<td>user-000042</td>")
    (tmp_path / "b.html").write_text("<td>user-0000421</td>")
    (tmp_path / "c.html").write_text("<td>Zoë Ångström</td>")
    assert [found(tmp_path / f"{name}.html") for name in "abc"] == [True, False, True]


def test_hidden_files_are_searched_and_unreadable_ones_count_as_found(tmp_path: Path) -> None:
    (tmp_path / ".draft").mkdir()
    pd.DataFrame({"user_id": ["17"]}).to_parquet(tmp_path / ".draft" / "a.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "broken.json").write_text("{")
    faults, searched = scan([tmp_path], TRACES)
    assert searched == 3
    assert {one.file.name for one in faults} == {"a.parquet", "broken.parquet", "broken.json"}
    assert "cannot be searched" in next(str(one) for one in faults if one.file.name == "broken.json")
