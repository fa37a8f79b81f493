"""Divide a history into buckets of users on disk, so that no computation needs all users in memory."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np

from crosschannel.core.arrays import IntArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.files import read_yaml, write_yaml
from crosschannel.core.hashing import derive
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import write_history
from crosschannel.histories.readers.source_files import fail

FORMAT = "crosschannel buckets"
FORMAT_VERSION = 1
DESCRIPTION_FILE = "buckets.yaml"
_BUCKET = r"bucket-\d{5,9}"
_BUCKET_SALT = 0xB0C4E7


def bucket_of(user_keys: UIntArray, n: int) -> IntArray:
    """Return the bucket (U,) of each user, 0 to n - 1; it depends on the user's id only.

    Args:
        user_keys: Stable hashes of the user ids (U,), as in `History.user_keys`.
        n: Number of buckets.
    """
    return np.asarray(derive(user_keys, _BUCKET_SALT) % np.uint64(n), dtype=np.int64)


def write_buckets(history: History, folder: Path, n: int) -> None:
    """Write a history as n native folders, each with the same modules, events and observation period.

    Buckets without any decision are not written; their users are counted in `buckets.yaml`. That file is removed first
    and written last, atomically, so that `bucket_paths` refuses a folder whose writing was interrupted. Buckets that
    were written into the folder before are replaced.

    Raises:
        ConfigError: If n is below 1.
        InputError: If the history could not be read back: see `write_history`.
    """
    if n < 1:
        raise ConfigError(f"the number of buckets is {n}: give at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / DESCRIPTION_FILE
    description.unlink(missing_ok=True)
    bucket = bucket_of(history.user_keys, n)
    filled = np.unique(bucket[history.decisions.user])
    names = [f"bucket-{b:05d}" for b in filled]
    for old in _buckets_in(folder) - set(names):
        shutil.rmtree(folder / old)
    for b, name in zip(filled, names, strict=True):
        write_history(history.select_users(bucket == b), folder / name)
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "buckets": n,
        "folders": names,
        "users": int(np.isin(bucket, filled).sum()),
        "users_left_out": int((~np.isin(bucket, filled)).sum()),
    }
    write_yaml(content, description)


def bucket_paths(folder: Path) -> list[Path]:
    """Return the bucket folders that `write_buckets` wrote, in order; `read_history` reads each.

    Raises:
        InputError: If the folder was not written as buckets, its writing was interrupted, or a bucket is missing.
    """
    file = folder / DESCRIPTION_FILE
    if not file.is_file():
        raise fail(
            file,
            "the file does not exist",
            "Name a folder that `write_buckets` wrote. If it is one, its writing was interrupted: write it again.",
        )
    try:
        content = read_yaml(file)
    except ConfigError as error:
        problem = str(error).removeprefix(f"{file}:").removeprefix(" this is not YAML:").strip()
        raise fail(file, f"this is not YAML: {problem}", "Write the folder again.") from error
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, FORMAT_VERSION):
        raise fail(file, f"this is not {FORMAT!r}, version {FORMAT_VERSION}", "Write the folder again.")
    names, n = content.get("folders"), content.get("buckets")
    if not isinstance(names, list) or not all(re.fullmatch(_BUCKET, str(name)) for name in names):
        raise fail(file, "the list of `folders` is missing, or has what is not a name", "Write the folder again.")
    if missing := [name for name in names if not (folder / name).is_dir()]:
        raise fail(file, f"buckets are missing: {', '.join(missing)}", "Copy them too, or write the folder again.")
    found = sorted(_buckets_in(folder))
    last = max((int(name.removeprefix("bucket-")) for name in found), default=0)
    if sorted(names) != found or type(n) is not int or last >= n:
        problem = f"`folders` and `buckets` are not those of the folder, which holds {', '.join(found)}"
        raise fail(file, problem, "Write the folder again.")
    return [folder / name for name in names]


def _buckets_in(folder: Path) -> set[str]:
    """Return the names of the buckets that a folder holds."""
    return {path.name for path in folder.iterdir() if path.is_dir() and re.fullmatch(_BUCKET, path.name)}
