"""Search all files of a run for users: their ids, hashes of these, and the ids of their decisions.

How a file is read depends on its kind, because Parquet compresses its columns and a short id is found by chance in any
bytes. Tables: every cell of a text column and of `user_id`. JSON and YAML: every text. Files of PyTorch: every text,
and every 64-bit number against the hashes. Columns that a killed process has kept (`.npy`): the same, and ids that are
numbers. Besides, the bytes of every file against all that has `LONG` characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import BoolArray, ObjectArray, UIntArray
from crosschannel.core.errors import ConfigError, CrosschannelError
from crosschannel.core.files import read_yaml, unescape
from crosschannel.core.hashing import hexadecimal, keys, pseudonyms

#: Shorter texts are found in any bytes by chance; they are searched in tables and in structured texts alone.
LONG = 8
#: Name of the column of users' ids that `pipeline.buckets.columns` writes.
IDS_OF_USERS = "user_ids"
_WORD = re.compile(rb"[0-9A-Za-z_.@+\-]{%d,}" % LONG)
_PLAIN = re.compile(r"[0-9A-Za-z_.@+\-]+")


@dataclass(frozen=True)
class Traces:
    """What must not be found.

    Attributes:
        user_ids: Ids of the users, as text.
        derived: Pseudonyms and decision ids of the users.
    """

    user_ids: frozenset[str]
    derived: frozenset[str] = frozenset()

    @classmethod
    def of_users(cls, user_ids: ObjectArray, secrets: list[str], decision_ids: frozenset[str]) -> Traces:
        """Return the traces of users.

        Args:
            user_ids: Their ids (n,).
            secrets: The secrets of the pseudonyms in decision ids, one for each policy.
            decision_ids: Ids of their decisions, as far as they are known.
        """
        hashed = {name for secret in secrets for name in pseudonyms(user_ids, secret).tolist()}
        return cls(frozenset(user_ids.astype(str).tolist()), frozenset(hashed) | decision_ids)

    @property
    def texts(self) -> frozenset[str]:
        """All texts that must not be found."""
        return self.user_ids | self.derived

    def hashes(self) -> UIntArray:
        """Return the 64-bit keys of all of them, as buffers of agents hold them (k,)."""
        return keys(np.array(sorted(self.texts), dtype=object))

    def in_texts(self, texts: pd.Series[Any]) -> BoolArray:
        """Return which texts (n,) are one of them, or a decision id that has one as its user.

        Decision ids are a time and a user, or a user and a slot, with a hyphen between.
        """
        if not len(texts):
            return np.zeros(0, dtype=bool)
        found = texts.isin(self.texts).to_numpy(dtype=bool)
        for part in (texts.str.split("-", n=1).str[-1], texts.str.rsplit("-", n=1).str[0]):
            found = found | part.isin(self.texts).to_numpy(dtype=bool)
        return np.asarray(found)


@dataclass(frozen=True)
class Found:
    """A file that holds traces of users.

    Attributes:
        file: The file.
        what: What was found in it.
    """

    file: Path
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def scan(folders: list[Path], traces: Traces, ignored: frozenset[str] = frozenset()) -> tuple[list[Found], int]:
    """Search all files in folders, hidden ones as well.

    Args:
        folders: The folders.
        traces: What to search for.
        ignored: Names of files that are not searched.

    Returns:
        The files in which something was found, or that cannot be read; and the number of files searched.
    """
    files = sorted({path.resolve() for folder in folders for path in folder.rglob("*") if path.is_file()})
    files = [path for path in files if path.name not in ignored]
    return [one for path in files if (one := search(path, traces)) is not None], len(files)


def search(path: Path, traces: Traces) -> Found | None:
    """Return what a file holds of users; None for nothing."""
    try:
        what = _search(path, traces) or _in_bytes(path.read_bytes(), traces)
    except (OSError, ValueError, CrosschannelError) as error:
        what = f"it cannot be searched ({type(error).__name__}: {error})"
    return None if what is None else Found(path, what)


def _search(path: Path, traces: Traces) -> str | None:
    if path.suffix == ".parquet":
        return _in_table(pd.read_parquet(path), traces)
    if path.suffix == ".csv":
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        numbers = [name for name in table if pd.to_numeric(table[name], errors="coerce").notna().all()]
        named = [name for name in table if name not in numbers or str(name) in ("user_id", "decision_id")]
        return _in_table(table[named].apply(unescape), traces)
    if path.suffix in (".json", ".yaml"):
        return _in_values([_parsed(path)], traces)
    if path.suffix == ".npy":
        return _in_column(np.load(path, allow_pickle=False), path.stem, traces)
    if path.suffix == ".pt":
        import torch

        return _in_values([torch.load(path, weights_only=True, map_location="cpu")], traces)
    return None


def _parsed(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else read_yaml(path)


def _in_table(table: pd.DataFrame, traces: Traces) -> str | None:
    for name in table:
        column = table[name]
        if str(name) in ("user_id", "decision_id") or column.dtype.kind not in "biufcmM":
            rows = int(traces.in_texts(column.dropna().astype(str).astype(object)).sum())
            if rows:
                return f"{rows:,} rows in the column {str(name)!r}"
    return None


def _in_column(column: npt.NDArray[Any], name: str, traces: Traces) -> str | None:
    """Search a column of texts, or of ids that are numbers; other numbers are searched as bytes."""
    if column.dtype.kind == "U" or (name == IDS_OF_USERS and column.dtype.kind in "iu"):
        rows = int(traces.in_texts(pd.Series(column.astype(str).astype(object))).sum())
        return f"{rows:,} rows of {name}" if rows else None
    return None


def _in_values(values: list[Any], traces: Traces) -> str | None:
    texts, arrays = list[str](), list[Any]()
    for value in _leaves(values):
        (texts if isinstance(value, str) else arrays).append(value)
    named = int(traces.in_texts(pd.Series(texts, dtype=object)).sum())
    if named:
        return f"{named:,} texts"
    hashes = traces.hashes()
    rows = sum(int(np.isin(array.view(np.uint64), hashes).sum()) for array in arrays)
    return f"{rows:,} hashes of ids" if rows else None


def _leaves(values: Any) -> Iterator[Any]:
    """Yield the texts of plain values, keys included, and arrays of 64-bit integers."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(key)
            yield from _leaves(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _leaves(value)
    elif str(getattr(values, "dtype", "")) == "torch.int64":
        yield np.ascontiguousarray(values.numpy()).reshape(-1)


def _in_bytes(content: bytes, traces: Traces) -> str | None:
    """Search bytes for long texts, for hashes as hexadecimal digits, and for hashes as little-endian numbers."""
    hashes = traces.hashes()
    wanted = {text for text in traces.texts if len(text) >= LONG} | set(hexadecimal(hashes[:, None]).tolist())
    words = {word.decode() for word in _WORD.findall(content)}
    words |= {part for word in words for part in word.split("-") if len(part) >= LONG}
    if n := len(words & wanted):
        return f"{n:,} ids or hashes in its bytes"
    odd = [text for text in wanted if not _PLAIN.fullmatch(text)]
    if n := sum(text.encode() in content for text in odd):
        return f"{n:,} ids in its bytes"
    if n := sum(key.tobytes() in content for key in hashes.astype("<u8")):
        return f"{n:,} hashes of ids in its bytes"
    return None


def read_secrets(paths: list[Path]) -> list[str]:
    """Return the secrets of the pseudonyms that policies write into decision ids, without repetitions.

    Raises:
        ConfigError: If a file is damaged.
    """
    from crosschannel.agents.checkpoints import read_extra

    found = dict.fromkeys(str(read_extra(path, "policy").get("run", {}).get("history", "")) for path in paths)
    if wrong := [secret for secret in found if len(secret) != 32]:
        raise ConfigError(f"a policy does not name the log that it has learned from ({wrong[0]!r}): restore it")
    return list(found)
