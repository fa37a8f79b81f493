"""A history in buckets: each a whole history of its users on disk, so that no step needs all users in memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import yaml

from crosschannel.core.arrays import IntArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import derive
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import write_history
from crosschannel.histories.readers.source_files import fail

FORMAT = "crosschannel buckets"
VERSION = 1
DESCRIPTION = "buckets.yaml"
_SALT = 0xB0C4E7


def bucket_of(user_keys: UIntArray, n: int) -> IntArray:
    """The bucket of each user (U,), below n: a function of the user's id alone, the same in every history.

    Args:
        user_keys: Stable hashes of the user ids (U,), as in `History.user_keys`.
        n: Number of buckets.
    """
    return np.asarray(derive(user_keys, _SALT) % np.uint64(n), dtype=np.int64)


def write_buckets(history: History, folder: Path, n: int) -> None:
    """Writes a history as n native folders in a folder, with the same modules, events and observed time.

    A bucket that no user with a decision belongs to is not written: it has nothing to learn from or to decide, and its
    users are counted in `buckets.yaml`. That file is removed first and written last, in one step: a write that was
    interrupted leaves a folder that `bucket_paths` refuses.

    Raises:
        ConfigError: If n is below 1.
        InputError: If the history could not be read again: see `write_history`.
    """
    if n < 1:
        raise ConfigError(f"{n} buckets hold nothing: give at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / DESCRIPTION
    description.unlink(missing_ok=True)
    bucket = bucket_of(history.user_keys, n)
    filled = np.unique(bucket[history.decisions.user])
    names = [f"bucket-{b:05d}" for b in filled]
    for b, name in zip(filled, names, strict=True):
        write_history(history.select_users(bucket == b), folder / name)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "buckets": n,
        "folders": names,
        "users": int(np.isin(bucket, filled).sum()),
        "users_left_out": int((~np.isin(bucket, filled)).sum()),
    }
    draft = folder / f"{DESCRIPTION}.part"
    draft.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    os.replace(draft, description)


def bucket_paths(folder: Path) -> list[Path]:
    """The buckets of a folder that `write_buckets` wrote, in order; `read_history` reads each.

    Raises:
        InputError: If the folder was not written as buckets, or not to the end, or a bucket is absent.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        raise fail(
            file,
            "there is no such file",
            "Name a folder that was written as buckets. If it is one, its writing was interrupted: write it again.",
        )
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise fail(file, f"this is not {FORMAT!r}, version {VERSION}", "Write the folder again.")
    paths = [folder / str(name) for name in content["folders"]]
    if absent := [path.name for path in paths if not path.is_dir()]:
        raise fail(file, f"these buckets are absent: {', '.join(absent)}", "Copy them too, or write the folder again.")
    return paths
