"""The manifest of a bucketed folder: what all buckets share, and each file with its size and checksum."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import md5
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, Fault, InputError, OutputError, raise_faults
from crosschannel.core.files import lock, replacing
from crosschannel.core.times import parse_moment
from crosschannel.histories.buckets.leaves import check_division
from crosschannel.histories.observation.users import Ties
from crosschannel.histories.readers.formats.parquet import READ_ERRORS, parquet_frame
from crosschannel.histories.readers.source_files import fail
from crosschannel.histories.values.action_names import check_action_names

FORMAT, FORMAT_VERSION = "crosschannel buckets", 2
MANIFEST_FILE, LOCK_FILE = "buckets.json", ".lock"
USERS, DECISIONS, EVENTS = TABLES = ("users", "decisions", "events")
#: The part of decisions or events of a log that is not by day.
WHOLE = "all"
#: Optional columns of which a bucket must know that other buckets have them.
OPTIONAL = ("eligible", "policy", "arm", "message")
_BUCKET = re.compile(r"bucket-(\d{5})")
_FILE = re.compile(r"bucket-(\d{5})/(?:(users)|(decisions|events)/([A-Za-z0-9-]+))\.[0-9a-f]{12}\.parquet")
_AGAIN = "Write the folder again with `crosschannel bucket`."


@dataclass(frozen=True)
class FileRecord:
    """A file of a bucket.

    Attributes:
        bytes: Its size.
        rows: Its number of rows.
        md5: Its checksum, hexadecimal.
    """

    bytes: int
    rows: int
    md5: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What all buckets of a folder share.

    Attributes:
        leaves: Number of leaves.
        buckets: Number of buckets.
        name: The history's name.
        span: Start and end of the observation period, microseconds.
        modules: The action space.
        event_names: Names of the event codes.
        churn_events: Events after which nothing can be sent to a user.
        ties: Order of an event at the time of a decision.
        attributes: What each attribute of users holds, by name: `text`, or `typed` (numbers, dates, booleans); None if
            the history has no table of users.
        columns: The `OPTIONAL` columns that the history has.
        numbered: Whether all ids of users are whole numbers, and so in the order of their values.
        source: Fingerprint of what was read.
        files: The files of all buckets, by their paths below the folder.
        parts: The checksum of the file that each part was made of, by table and part.
        propensity_source: Source of the propensities of rows that do not name it; None for `logged`.
        notes: What a reader left out or estimated.
    """

    leaves: int
    buckets: int
    name: str
    span: tuple[int, int]
    modules: ActionSpace
    event_names: tuple[str, ...]
    churn_events: tuple[str, ...]
    ties: Ties | None
    attributes: Mapping[str, str] | None
    columns: tuple[str, ...]
    numbered: bool
    source: str
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    propensity_source: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def days(self) -> tuple[str, ...]:
        """Names of the parts of decisions and events, ascending."""
        return tuple(sorted({part for _, _, part in map(place_of, self.files) if part}))

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of users, decisions and events."""
        return {
            table: sum(one.rows for file, one in self.files.items() if place_of(file)[1] == table) for table in TABLES
        }

    def files_of(self, bucket: int, table: str) -> list[str]:
        """Return the files of a table of a bucket, in the order of the manifest, which is that of the rows."""
        begin = f"{bucket_name(bucket)}/{table}"
        return [file for file in self.files if file.startswith((f"{begin}/", f"{begin}."))]

    def write(self, folder: Path) -> None:
        """Replace the manifest of a folder.

        Raises:
            OutputError: If it cannot be written.
        """
        first, last = np.array(self.span, dtype="datetime64[us]")
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "days": list(self.days),
            "counts": self.counts,
            **{name: value for name, value in asdict_shallow(self).items() if name != "files"},
            "span": [f"{first}Z", f"{last}Z"],
            "modules": self.modules.to_dict(),
            "files": {file: asdict(one) for file, one in self.files.items()},
        }
        with replacing(folder / MANIFEST_FILE) as draft:
            draft.write_text(json.dumps(content, indent=1, ensure_ascii=True), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder.

        Raises:
            InputError: If there is none, or it is damaged or of another version.
        """
        file = folder / MANIFEST_FILE
        if not file.is_file():
            problem = "there is no such folder" if not folder.is_dir() else "there is no such file"
            remedy = (
                "Name a folder that `crosschannel bucket` wrote. If it is one, its writing was interrupted: run the "
            )
            raise fail(file, problem, remedy + "same command again, which resumes it.")
        try:
            content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once)
        except (ValueError, OSError, RecursionError) as error:
            raise fail(file, f"this is not a manifest: {error}", _AGAIN) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise fail(file, f"this is not {FORMAT!r}", _AGAIN)
        if content.get("version") != FORMAT_VERSION:
            problem = f"the version is {content.get('version')!r}, but only {FORMAT_VERSION} can be read"
            raise fail(file, problem, "Write the folder again with this version of the package.")
        try:
            return cls._parsed(content)
        except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise fail(file, f"the manifest is damaged: {what}", _AGAIN) from error

    @classmethod
    def _parsed(cls, content: Mapping[str, Any]) -> Manifest:
        modules = ActionSpace.from_dict(content["modules"])
        check_action_names(modules)
        check_division(_whole(content["leaves"]), _whole(content["buckets"]))
        first, last = (parse_moment(str(text)) for text in content["span"])
        if content["ties"] not in (None, "before", "after"):
            raise ConfigError(f"ties {content['ties']!r} is not before, after or null")
        if type(content["numbered"]) is not bool:
            raise ConfigError(f"numbered {content['numbered']!r} is not true or false")
        files = {}
        for file, one in content["files"].items():
            if (match := _FILE.fullmatch(file)) is None or int(match[1]) >= content["buckets"]:
                raise ConfigError(f"{file!r} is not a file of one of {content['buckets']} buckets")
            files[file] = FileRecord(_whole(one["bytes"]), _whole(one["rows"]), str(one["md5"]))
        attributes = content["attributes"]
        out = cls(
            leaves=content["leaves"],
            buckets=content["buckets"],
            name=str(content["name"]),
            span=(first, last),
            modules=modules,
            event_names=_texts(content["event_names"]),
            churn_events=_texts(content["churn_events"]),
            ties=cast("Ties | None", content["ties"]),
            attributes=None if attributes is None else {str(name): str(kind) for name, kind in attributes.items()},
            columns=_texts(content["columns"]),
            numbered=content["numbered"],
            source=str(content["source"]),
            files=files,
            parts={str(part): str(digest) for part, digest in content["parts"].items()},
            propensity_source=content["propensity_source"],
            notes=_texts(content["notes"]),
        )
        if out.counts != content["counts"]:
            raise ConfigError(f"`counts` are {content['counts']}, but those of `files` {out.counts}")
        return out

    def verify(self, folder: Path, *, checksums: bool = False) -> None:
        """Check that every file is there and has its size; with `checksums`, its content as well.

        Raises:
            InputError: With a fault for each bucket that lacks a file or has another one.
        """
        faults: dict[int, Fault] = {}
        for file, one in self.files.items():
            if (fault := _fault(folder / file, one)) is not None:
                faults.setdefault(place_of(file)[0], fault)
            elif checksums:
                read_bytes(folder / file, one)
        raise_faults(list(faults.values()))


def place_of(file: str) -> tuple[int, str, str]:
    """Return the bucket, the table and the part of a file of the manifest; a table of users has no part."""
    match = _FILE.fullmatch(file)
    assert match is not None  # files are named by `file_name`, and checked when a manifest is read
    return int(match[1]), match[2] or match[3], match[4] or ""


def file_name(bucket: int, table: str, part: str, digest: str) -> str:
    """Return the path of a file below the folder."""
    inner = USERS if table == USERS else f"{table}/{part}"
    return f"{bucket_name(bucket)}/{inner}.{digest[:12]}.parquet"


def bucket_name(bucket: int) -> str:
    """Return the name of a bucket's folder."""
    return f"bucket-{bucket:05d}"


def number_of(path: Path) -> int | None:
    """Return the number of a bucket from the name of its folder; None if it is none."""
    match = _BUCKET.fullmatch(path.name)
    return None if match is None else int(match[1])


def read_bytes(path: Path, record: FileRecord) -> bytes:
    """Return the content of a file.

    Raises:
        InputError: If it is missing, or not what the manifest says.
    """
    if (fault := _fault(path, record)) is not None:
        raise InputError([fault])
    content = path.read_bytes()
    if md5(content, usedforsecurity=False).hexdigest() != record.md5:
        raise fail(path, "the content is not what was written: its checksum differs", f"Copy it again. {_AGAIN}")
    return content


def read_part(path: Path, record: FileRecord) -> pd.DataFrame:
    """Return a file of a bucket as a table.

    Raises:
        InputError: If it is missing or not what the manifest says.
    """
    try:
        frame, _ = parquet_frame(BytesIO(read_bytes(path, record)))
    except InputError:
        raise
    except READ_ERRORS as error:
        raise fail(path, f"this is not a Parquet file: {error}", _AGAIN) from error
    return frame


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Let no other process write a folder meanwhile; the folder is made if it does not exist.

    Raises:
        OutputError: If the folder cannot be written.
        ConfigError: If another process writes it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = (folder / LOCK_FILE).open("ab")
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}. Name another folder, or see who may write it"
        ) from None
    with held:
        if not lock(held):
            raise ConfigError(f"{folder} is written by another process at this moment: name another folder, or wait")
        yield


def asdict_shallow(manifest: Manifest) -> dict[str, Any]:
    """Return the fields of a manifest by name."""
    return {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}


def _fault(path: Path, record: FileRecord) -> Fault | None:
    try:
        size = path.stat().st_size
    except OSError:
        missing = path if path.parents[0].is_dir() else next(one for one in path.parents if one.parent.is_dir())
        return Fault(str(missing), "this part of a bucket is missing", f"Copy it too. {_AGAIN}")
    if size != record.bytes:
        what = f"the file has {size:,} bytes, but {record.bytes:,} were written"
        return Fault(str(path), what, f"It was cut off or changed: copy it again. {_AGAIN}")
    return None


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None) if len(names) < 100 else None:
        raise ValueError(f"the key {twice!r} occurs twice")
    if len(set(names)) < len(names):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ConfigError(f"{value!r} is not a number of something")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"{values!r} is not a list of texts")
    return tuple(values)
