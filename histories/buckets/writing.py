"""Write a history into buckets: files named by their checksums, and the manifest at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import md5
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.errors import OutputError
from crosschannel.core.times import timestamps
from crosschannel.histories.buckets.leaves import DEFAULT_LEAVES, check_division, leaf_of
from crosschannel.histories.buckets.manifest import (
    DECISIONS,
    EVENTS,
    USERS,
    WHOLE,
    FileRecord,
    Manifest,
    file_name,
    number_of,
    one_writer,
)
from crosschannel.histories.history import History
from crosschannel.histories.observation.users import OBSERVATION_COLUMNS
from crosschannel.histories.values.identifiers import are_numbers
from crosschannel.histories.values.validation import check_tables


def write_buckets(history: History, folder: Path, n: int, leaves: int = DEFAULT_LEAVES) -> None:
    """Write a history that is in memory as n buckets, with one part of decisions and one of events in each.

    What was in the folder stays as it is until the manifest is replaced, and is removed afterwards. Buckets without
    users have no files.

    Args:
        history: The history.
        folder: Where to write; it is made if it does not exist.
        n: Number of buckets; it divides that of the leaves.
        leaves: Number of leaves, a power of two.

    Raises:
        ConfigError: If n does not divide the number of leaves, or another process writes the folder.
        InputError: If the history could not be read back, such as one of a simulator with times in 1970; then nothing
            is written.
        OutputError: If the folder cannot be written.
    """
    check_division(leaves, n)
    users = users_frame(history)
    check_tables(
        history.decisions_frame(),
        history.events_frame(),
        history.modules,
        users[["user_id", *OBSERVATION_COLUMNS]],
        {},
    )
    bucket = leaf_of(history.user_ids, leaves) % n
    files: dict[str, FileRecord] = {}
    with one_writer(folder):
        for b in np.unique(bucket):
            files |= write_bucket(history.select_users(bucket == b), folder, int(b))
        manifest_of(history, n, leaves, files=files).write(folder)
        remove_others(folder, files)


def write_bucket(history: History, folder: Path, bucket: int) -> dict[str, FileRecord]:
    """Write the files of a bucket, and return them."""
    files = dict([write_table(folder, bucket, USERS, "", users_frame(history))])
    for table, frame in ((DECISIONS, history.decisions_frame()), (EVENTS, history.events_frame())):
        if len(frame):
            files |= dict([write_table(folder, bucket, table, WHOLE, frame)])
    return files


def write_table(folder: Path, bucket: int, table: str, part: str, frame: pd.DataFrame) -> tuple[str, FileRecord]:
    """Write one file of a bucket, unless it is there already, and return its name and its record.

    Raises:
        OutputError: If it cannot be written.
    """
    buffer = BytesIO()
    frame.to_parquet(buffer, index=False)
    content = buffer.getvalue()
    record = FileRecord(len(content), len(frame), md5(content, usedforsecurity=False).hexdigest())
    file = file_name(bucket, table, part, record.md5)
    path = folder / file
    write_file(path, content)
    return file, record


def write_file(path: Path, content: bytes) -> None:
    """Write a file under its name as a whole or not at all, unless it is there already.

    The system is not asked to write it through to the disk: what a power cut leaves is found by the checksum.

    Raises:
        OutputError: If it cannot be written.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        remedy = "what was written before stays as it was; free space or name another folder, and run it again"
        raise OutputError(f"{path} cannot be written: {error.strerror or error}: {remedy}") from None


def manifest_of(history: History, n: int, leaves: int, *, files: dict[str, FileRecord]) -> Manifest:
    """Return the manifest of a history in buckets, or of one of which a bucket's history has all that they share."""
    contents = "".join(files[name].md5 for name in sorted(files))
    attributes = attributes_frame(history)
    columns = {
        "eligible": history.decisions.eligible,
        "policy": history.decisions.policy,
        "arm": history.decisions.arm,
        "message": history.events.message,
    }
    return Manifest(
        leaves=leaves,
        buckets=n,
        name=history.name,
        span=history.span,
        modules=history.modules,
        event_names=history.event_names,
        churn_events=history.churn_events,
        ties=history.ties,
        attributes=None if attributes is None else {name: str(attributes[name].dtype) for name in attributes.columns},
        columns=tuple(name for name, values in columns.items() if values is not None),
        numbered=are_numbers(history.user_ids),
        source=md5(contents.encode(), usedforsecurity=False).hexdigest(),
        files=files,
        notes=history.notes,
    )


def users_frame(history: History) -> pd.DataFrame:
    """Return the users of a history with their times of observation and attributes."""
    observed = (timestamps(history.observed_from), timestamps(history.observed_until))
    users = pd.DataFrame({"user_id": history.user_ids, **dict(zip(OBSERVATION_COLUMNS, observed, strict=True))})
    attributes = attributes_frame(history)
    return users if attributes is None else pd.concat([users, attributes], axis=1)


def attributes_frame(history: History) -> pd.DataFrame | None:
    """Return the attributes of the users, categories as the values that they stand for; None if there is no table."""
    if history.users is None:
        return None
    out = history.users.drop(columns="user_id", errors="ignore").reset_index(drop=True)
    plain = {name: out[name].astype(object) for name in out.columns if out[name].dtype == "category"}
    return out.assign(**plain)


def remove_others(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Remove what a manifest does not name from the buckets of a folder."""
    named = {folder / file for file in files}
    for bucket in folder.iterdir():
        if bucket.is_dir() and number_of(bucket) is not None:
            for path in sorted(bucket.rglob("*"), reverse=True):  # files before the folders that hold them
                if path.is_file() and path not in named:
                    path.unlink()
                elif path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
            if not any(bucket.iterdir()):
                bucket.rmdir()
