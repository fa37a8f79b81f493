"""Divide a log into buckets file by file, so that no step needs all users; a killed run is resumed where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from hashlib import md5
from pathlib import Path

from crosschannel.core.errors import InputError
from crosschannel.histories.buckets.checking import (
    check_across_buckets,
    check_rows,
    event_names_of,
    optional_columns,
    span_of_rows,
    with_sources,
)
from crosschannel.histories.buckets.leaves import check_division
from crosschannel.histories.buckets.manifest import FileRecord, Manifest, one_writer, place_of
from crosschannel.histories.buckets.opening import Buckets, is_bucketed
from crosschannel.histories.buckets.partition import connect, import_duckdb, partition
from crosschannel.histories.buckets.plans import Plan, SourceFile
from crosschannel.histories.buckets.users import divide_users
from crosschannel.histories.buckets.writing import remove_others, write_file, write_table
from crosschannel.histories.observation.users import ObservedFrom

WORK_FOLDER = ".buckets.part"
#: Version of the notes about files that are divided; files of another version are divided again.
NOTE_VERSION = 1
Files = dict[str, FileRecord]


def make_buckets(
    plan: Plan,
    folder: Path,
    n: int,
    leaves: int,
    *,
    observed_from: ObservedFrom | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a log as n buckets, file by file, and check that they can be read.

    A file that has not changed since the last run is not divided again, and none of its parts is written: a log that
    grows by a file a day costs what the new files cost, and the checks. A run that was killed is resumed after the last
    file that it divided. Either gives the bytes that one run into an empty folder gives.

    Args:
        plan: What the log consists of.
        folder: Where to write; it is made if it does not exist.
        n: Number of buckets; it divides that of the leaves.
        leaves: Number of leaves, a power of two.
        observed_from: From when on users are observed; None as the log declares it.
        log: Called with a line for each step.

    Raises:
        ConfigError: If n does not divide the number of leaves, or another process writes the folder.
        InputError: With every fault of a file or of a bucket.
        NotByUser: If rows cannot be divided by user before all of them are read.
        OutputError: If the folder cannot be written.
    """
    check_division(leaves, n)
    import_duckdb()
    with one_writer(folder):
        work = folder / WORK_FOLDER
        files, parts = _divide(plan, folder, n, leaves, log)
        check_rows(plan, files)
        columns = optional_columns(folder, files)
        span = plan.span or span_of_rows(folder, files)
        names = plan.event_names or event_names_of(folder, files)
        users = divide_users(plan, folder, files, span, n, leaves, observed_from)
        source = md5(repr(sorted(parts.items())).encode() + users.digest, usedforsecurity=False).hexdigest()
        manifest = Manifest(
            leaves=leaves,
            buckets=n,
            name=plan.name,
            span=span,
            modules=plan.modules,
            event_names=names,
            churn_events=plan.churn_events,
            ties=plan.ties,
            attributes=users.attributes,
            columns=columns,
            numbered=users.numbered,
            source=source,
            files={**users.files, **files},
            parts=parts,
            propensity_source=plan.propensity_source,
            notes=plan.notes,
        )
        buckets = Buckets(folder, manifest)
        for path in buckets.paths:
            log(f"checking {path.name}")
            try:
                buckets.read(path)
            except InputError as error:
                raise with_sources(error, folder, files, plan) from None
        with connect(work) as connection:
            check_across_buckets(connection, folder, manifest)
        manifest.write(folder)
        remove_others(folder, manifest.files)
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _divide(plan: Plan, folder: Path, n: int, leaves: int, log: Callable[[str], None]) -> tuple[Files, dict[str, str]]:
    """Divide the files that are not divided yet; return all parts, and the checksums of the files they are of."""
    work = folder / WORK_FOLDER
    divided = _divided(folder, n, leaves)
    files, parts = Files(), dict[str, str]()
    for file in plan.files:
        key, digest = f"{file.table}/{file.part}", file.digest()
        found = divided.get((key, digest))
        if found is None or not all(is_there(folder / name, one) for name, one in found.items()):
            log(f"dividing {file.path}")
            found = _divide_file(file, folder, n, leaves)
            note = {"version": NOTE_VERSION, "leaves": leaves, "buckets": n, "part": key, "digest": digest}
            note["files"] = {name: asdict(one) for name, one in found.items()}
            write_file(work / f"{file.table}-{file.part}.json", json.dumps(note).encode())
        files |= found
        parts[key] = digest
    return files, parts


def _divide_file(file: SourceFile, folder: Path, n: int, leaves: int) -> Files:
    return dict(
        write_table(folder, bucket, file.table, file.part, frame)
        for bucket, frame in partition(file.path, file.read, file.column, leaves, n, folder / WORK_FOLDER)
    )


def _divided(folder: Path, n: int, leaves: int) -> dict[tuple[str, str], Files]:
    """Return the parts of files that earlier runs divided, by table and part and the file's checksum."""
    found: dict[tuple[str, str], Files] = {}
    if is_bucketed(folder):
        try:
            manifest = Manifest.read(folder)
        except InputError:
            manifest = None  # of another version, or damaged: it is replaced
        if manifest is not None and (manifest.leaves, manifest.buckets) == (leaves, n):
            found = {(part, digest): Files() for part, digest in manifest.parts.items()}
            for name, one in manifest.files.items():
                _, table, part = place_of(name)
                key = f"{table}/{part}"
                if key in manifest.parts:
                    found[key, manifest.parts[key]][name] = one
    for note in sorted((folder / WORK_FOLDER).glob("*.json")):
        content = json.loads(note.read_text(encoding="utf-8"))
        if [content.get(key) for key in ("version", "leaves", "buckets")] == [NOTE_VERSION, leaves, n]:
            files = {name: FileRecord(**one) for name, one in content["files"].items()}
            found[content["part"], content["digest"]] = files
    return found


def is_there(path: Path, record: FileRecord) -> bool:
    """Return whether a file is there with the size that it was written with."""
    return path.is_file() and path.stat().st_size == record.bytes
