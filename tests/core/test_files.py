"""Files that are written whole or not at all, CSV that spreadsheets do not compute, and YAML within bounds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crosschannel.core import ConfigError, InputError, OutputError, pseudonyms, write_csv
from crosschannel.core.files import MAX_YAML_VALUES, output_fault, read_yaml, replacing, unescape, write_yaml
from crosschannel.histories.readers.source_files import read_any

COMPUTED = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\tx",
    "\r=x",
    "\n=x",
    "＝1",
    "-",
    "+",
    "=",
    "--1",
    "+1-800",
]
NUMBERS = ["-5", "+49123456", "-.5", "+1e5", "-1E-3", "-5."]
TEXTS = ["ann", "'ann", "", "a=b", " =1", "'", "''x", "7"]


def cells(path: Path) -> list[str]:
    return pd.read_csv(path, dtype=str, keep_default_na=False).iloc[:, 0].tolist()


def test_no_text_cell_begins_as_a_formula_and_every_one_is_read_back(tmp_path):
    texts = [*COMPUTED, *NUMBERS, *TEXTS, *("'" + text for text in COMPUTED + NUMBERS)]
    table = pd.DataFrame({"=id": texts, "number": -1.5, "time": pd.Timestamp("2026-01-01"), "flag": True})
    write_csv(table, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:  # an escaped line break must not be translated
        written = pd.read_csv(file, dtype=str, keep_default_na=False, lineterminator="\n")
    for before, after in zip(texts, written.iloc[:, 0], strict=True):
        assert after == (
            "'" + before if before.lstrip("'")[:1] in "=+-@\t\r\n＝" and before not in (*NUMBERS, *TEXTS) else before
        )
    assert written.columns[0] == "'=id"
    assert set(written.number) == {"-1.5"}
    again = read_any(tmp_path / "t.csv", text=None)
    assert again.columns[0] == "=id"
    assert again["=id"].fillna("").tolist() == texts


@given(st.lists(st.text("'=+-@\t1a.e", max_size=5), min_size=1))
def test_escaping_is_undone_whatever_the_text(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("cells") / "t.csv"
    write_csv(pd.DataFrame({"id": texts}), path)
    for cell in cells(path):
        assert not cell.startswith(("=", "@", "\t")), cell
        assert not cell.startswith(("+", "-")) or cell.lstrip("+-")[:1] in "1.", cell
    assert unescape(pd.Series(cells(path))).tolist() == texts


def test_columns_of_any_type_keep_their_values(tmp_path):
    table = pd.DataFrame({"a": pd.Series(["=x", None, "ok"], dtype="string"), "b": pd.Categorical(["-x", "y", "-x"])})
    table["c"] = pd.Series([-1, "=y", None], dtype=object)
    write_csv(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "a,b,c\n'=x,'-x,-1\n,y,'=y\nok,'-x,\n"


def test_two_ids_that_would_become_one_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("user_id\n'=x\nbob\n=x\n")
    with pytest.raises(InputError, match=r"column 'user_id', row 1, value \"'=x\": an apostrophe"):
        read_any(tmp_path / "t.csv", text=None)


def test_pseudonyms_are_stable_unique_and_need_the_secret():
    users = np.array([f"+4917{i:07d}" for i in range(2_000)], dtype=object)
    secret = "0123456789abcdef" * 2
    names = pseudonyms(users, secret)
    assert pd.Series(names).is_unique
    assert pd.Series(names).str.fullmatch("[0-9a-f]{32}").all()
    assert (pseudonyms(users[::-1], secret)[::-1] == names).all()
    assert not np.isin(pseudonyms(users, secret[::-1]), names).any()
    assert pseudonyms(np.array([17]), secret)[0] == pseudonyms(np.array(["17"]), secret)[0]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with replacing(path) as draft:
        draft.write_text("first")
    with pytest.raises(ZeroDivisionError), replacing(path) as draft:
        draft.write_text(f"half {1 / 0}")
    assert path.read_text() == "first"
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    """Also where somebody has planted a link at the temporary path."""
    (tmp_path / "precious").write_text("mine")
    for name in ("file.json", ".file.json.part"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    with replacing(tmp_path / "file.json") as draft:
        draft.write_text("new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "file.json").read_text() == "new"
    assert not (tmp_path / "file.json").is_symlink()


def test_what_cannot_be_written_is_known_before(tmp_path):
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    assert output_fault(tmp_path / "new.csv") is None
    assert output_fault(tmp_path / "a" / "b" / "new.csv") is None
    assert output_fault(tmp_path / "file") is None
    assert output_fault(tmp_path) == "it is a folder"
    assert output_fault(tmp_path / "pipe") == "it is not a regular file"
    assert output_fault(tmp_path / "file" / "new.csv") is not None
    assert output_fault(tmp_path / "file" / "a" / "new.csv") is not None
    assert output_fault(tmp_path / ("n" * 252)) == "File name too long"  # with the suffix of the temporary file
    assert output_fault(Path("/proc/new.csv")) is not None
    assert output_fault(tmp_path / "\0.csv") is not None
    assert {item.name for item in tmp_path.iterdir()} == {"file", "pipe"}
    with pytest.raises(OutputError, match=r"file/new\.csv cannot be written"), replacing(tmp_path / "file" / "new.csv"):
        pass


def test_text_that_looks_like_another_type_is_written_and_read_back(tmp_path):
    texts = ["1e3", "no", "007", "~", "null", "x: y", "1_000", "0x10", "+1e5", ".5e3", "2024-01-01", "12:30", "<<", "="]
    values = {"texts": texts, "numbers": [1e22, 1e-7, -3, float("inf")], "nothing": None, "on": True}
    write_yaml(values, tmp_path / "a.yaml")
    assert read_yaml(tmp_path / "a.yaml") == values
    assert yaml.safe_load((tmp_path / "a.yaml").read_text())["texts"] == texts


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 30_000,
        "- " * 200_000,
        "a: [" + "1," * 900_000 + "]",
        "-\n" * 900_000,
        "a: " + "9" * 1_900_000,
        "a: &a [x,x,x,x,x,x,x,x]\n"
        + "\n".join(f"{chr(98 + i)}: &{chr(98 + i)} [{f'*{chr(97 + i)},' * 9}]" for i in range(20)),
        "a: &a [*a]",
        "x" * 2_100_000,
        "a: !!python/object/apply:os.system [echo]",
        "a: \x00",
        "? " * 100_000,
    ],
    ids=lambda text: text[:12].encode().hex(),
)
def test_yaml_beyond_bounds_is_refused_in_seconds(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        read_yaml(tmp_path / "a.yaml")
    assert time.monotonic() - began < 10


def test_as_many_values_as_are_allowed_are_read(tmp_path):
    text = "\n".join(f"k{i}: {i}" for i in range(MAX_YAML_VALUES // 2 - 1))
    (tmp_path / "a.yaml").write_text(text)
    assert len(read_yaml(tmp_path / "a.yaml")) == MAX_YAML_VALUES // 2 - 1


def test_two_programs_that_write_one_file_do_not_mix(tmp_path):
    path = tmp_path / "file.txt"
    with replacing(path) as draft:
        draft.write_text("first")
        with pytest.raises(OutputError, match="written by another program at this moment"), replacing(path):
            pass
        assert draft.read_text() == "first"
    assert path.read_text() == "first"
    (tmp_path / ".file.txt.part").write_text("what a killed process has left, longer than what comes")
    with replacing(path) as draft:
        draft.write_text("second")
    assert path.read_text() == "second"
    assert [item.name for item in tmp_path.iterdir()] == ["file.txt"]
