"""Read and write the native folder: decisions.parquet, events.parquet, users.parquet and history.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, Fault, InputError, nearest
from crosschannel.core.files import read_yaml, write_yaml
from crosschannel.histories.buckets.opening import is_bucket, is_bucketed, open_buckets, read_bucket
from crosschannel.histories.buckets.writing import users_frame
from crosschannel.histories.history import History
from crosschannel.histories.observation.users import OBSERVATION_COLUMNS
from crosschannel.histories.propensities.sources import MIXED, PROPENSITY_SOURCES
from crosschannel.histories.readers.daily import DailyLog, is_daily, with_event_names
from crosschannel.histories.readers.decided.days import with_arms
from crosschannel.histories.readers.decided.joining import JoinedDecisions, join_days
from crosschannel.histories.readers.source_files import fail, read_parquet
from crosschannel.histories.readers.sources import SourceRows, TableSource, span_of
from crosschannel.histories.values.action_names import check_action_names
from crosschannel.histories.values.validation import check_tables

FORMAT = "crosschannel history"
FORMAT_VERSION = 2
DESCRIPTION_FILE = "history.yaml"
TABLES = ("decisions", "events", "users")
_KEY_TYPES: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "version": int,
    "name": str,
    "span": list,
    "propensity_source": str,
    "rows": dict,
    "event_names": list,
    "churn_events": list,
    "attributes": (list, type(None)),
    "modules": list,
    "ties": (str, type(None)),
}
_TEXTS = ("span", "event_names", "attributes")


def write_history(history: History, path: Path) -> None:
    """Write a history into a folder, which is created if it does not exist.

    `history.yaml` is removed first and written last, atomically, so that `read_history` refuses a folder whose writing
    was interrupted.

    Raises:
        InputError: If the history could not be read back, such as one of a simulator with times in 1970; then nothing
            is written.
    """
    frames = {
        "decisions": history.decisions_frame(),
        "events": history.events_frame(),
        "users": users_frame(history),
    }
    check_tables(frames["decisions"], frames["events"], history.modules, frames["users"], {})
    path.mkdir(parents=True, exist_ok=True)
    description = path / DESCRIPTION_FILE
    description.unlink(missing_ok=True)
    for name, frame in frames.items():
        frame.to_parquet(path / f"{name}.parquet", index=False)
    first, last = np.array(history.span, dtype="datetime64[us]")
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "name": history.name,
        "span": [f"{first}Z", f"{last}Z"],
        "propensity_source": history.propensity_source,
        "rows": {name: len(frame) for name, frame in frames.items()},
        "event_names": list(history.event_names),
        "churn_events": list(history.churn_events),
        "attributes": None if history.users is None else [str(name) for name in history.users.columns],
        "modules": history.modules.to_dict(),
        "ties": history.ties,
    }
    write_yaml(content, description)


def read_history(path: Path, decided: Path | None = None) -> History:
    """Read a folder that `write_history` wrote; without `decided` the result equals what was written.

    A log by day (`readers.daily`), a bucketed folder (`histories.buckets`), and one bucket of it are read as well.

    Args:
        path: The folder.
        decided: Folder of decisions that `decide` wrote, by date. They take the place of the folder's own decisions of
            the same users and times; all decisions get their users' arms.

    Raises:
        InputError: If a file is missing or damaged, the description has a missing or unknown key or another version, or
            the tables have faults; with all faults of the description, or else all of the tables.
    """
    if (path / DESCRIPTION_FILE).is_file() and is_daily(_yaml(path / DESCRIPTION_FILE)):
        return DailyLog.open(path).read(decided)
    if is_bucketed(path):
        return open_buckets(path).read_all(decided)
    if is_bucket(path):
        if decided is not None:
            raise ConfigError(f"{path} is one bucket: decisions by date join the whole folder {path.parent}")
        return read_bucket(path)
    content = read_description(path)
    files = {name: str(path / f"{name}.parquet") for name in TABLES}
    tables = {name: read_parquet(Path(file)) for name, file in files.items()}
    faults = [
        Fault(
            file=files[name],
            problem=f"the table has {len(tables[name]):,} rows, but {DESCRIPTION_FILE} has {content['rows'][name]:,}",
            remedy="The file was changed or cut off after it was written: write the folder again.",
        )
        for name in TABLES
        if len(tables[name]) != content["rows"][name]
    ]
    faults += faults_of_users(path, content, tables["users"])
    if faults:
        raise InputError(faults)
    joined: JoinedDecisions | None = None
    if decided is not None:
        file, log = files["decisions"], tables["decisions"]
        joined = join_days(SourceRows(TableSource(Path(file)), log, ((file, len(log)),)), decided, content["modules"])
        tables["decisions"], tables["events"] = joined.frame(content["modules"]), joined.renamed_in(tables["events"])
    try:
        history = History.from_tables(
            tables["decisions"],
            tables["events"],
            content["modules"],
            tables["users"],
            span=content["span"],
            propensity_source=None if content["propensity_source"] == MIXED else content["propensity_source"],
            name=content["name"],
            ties=content["ties"],
            files=files,
        )
    except InputError as error:
        raise InputError([_placed(fault, files["decisions"], joined) for fault in error.faults]) from None
    except ConfigError as error:
        raise fail(path / DESCRIPTION_FILE, str(error), "Correct `span` there.", column="span") from None
    history = with_event_names(history, tuple(content["event_names"]), Path(files["events"]))
    try:
        history = history.with_churn_events([str(name) for name in content["churn_events"]])
    except ConfigError as error:
        remedy = "Correct the name there, or write the folder again."
        problem = str(error).removeprefix("churn_events: ")
        raise fail(path / DESCRIPTION_FILE, problem, remedy, column="churn_events") from None
    attributes = content["attributes"]
    users = None if attributes is None or history.users is None else history.users[attributes]
    notes = history.notes if joined is None else (*joined.notes, *history.notes)
    history = replace(history, users=users, notes=notes)
    return history if decided is None else with_arms(history, decided)


def faults_of_users(path: Path, content: Mapping[str, Any], users: pd.DataFrame) -> list[Fault]:
    """Return a fault for each column in which a folder's table of users differs from its description."""
    attributes = content["attributes"]
    written, found = ("user_id", *OBSERVATION_COLUMNS, *(attributes or ())), users.columns
    unlike = [(name, "missing") for name in dict.fromkeys(written) if name not in found]
    unlike += [(str(name), "not among `attributes`") for name in found if name not in written]
    return [
        Fault(
            file=str(path / "users.parquet"),
            problem=f"the {'attribute' if name in (attributes or ()) else 'column'} is {what}",
            remedy=f"Write the folder again, or correct `attributes` in {DESCRIPTION_FILE}.",
            column=name,
        )
        for name, what in unlike
    ]


def _placed(fault: Fault, file: str, joined: JoinedDecisions | None) -> Fault:
    """Return a fault of the joined decisions with its file and its row there."""
    if joined is None or fault.file != file or fault.row is None:
        return fault
    place, row = joined.place(fault.row)
    return replace(fault, file=place, row=row)


def read_description(path: Path) -> dict[str, Any]:
    """Return the content of history.yaml, with an action space and the span in microseconds."""
    file = path / DESCRIPTION_FILE
    if not path.is_dir():
        raise fail(path, "there is no such folder", "Check the path.")
    if not file.is_file():
        raise fail(
            file,
            "there is no such file",
            "Name a folder that `write_history` wrote. If it is one, its writing was interrupted: write it again.",
        )
    content = _yaml(file)
    if not isinstance(content, Mapping):
        raise fail(file, "this is not a mapping of keys to values", "Write the folder again.", value=content)
    if content.get("format") != FORMAT or content.get("version") != FORMAT_VERSION:
        found = f"{content.get('format')!r}, version {content.get('version')!r}"
        raise fail(
            file,
            f"the format is {found}, but only {FORMAT!r}, version {FORMAT_VERSION}, can be read",
            "Write the folder again with this version of the package.",
        )
    _check_keys(file, content)
    out = dict(content)
    try:
        out["modules"] = ActionSpace.from_dict(content["modules"])
        check_action_names(out["modules"])
    except (ConfigError, TypeError, AttributeError) as error:
        raise fail(file, str(error), "Correct the modules.", column="modules") from error
    try:
        out["span"] = span_of(content["span"])
    except ConfigError as error:
        remedy = "Write the start and the end of the observation period, such as 2024-05-01T00:00:00.000000Z."
        raise fail(file, str(error), remedy, column="span", value=content["span"]) from error
    return out


def _yaml(file: Path) -> Any:
    try:
        return read_yaml(file)
    except ConfigError as error:
        problem = str(error).removeprefix(f"{file}:").removeprefix(" this is not YAML:").strip()
        raise fail(file, f"this is not YAML: {problem}", "Write the folder again.") from error


def _check_keys(file: Path, content: Mapping[str, Any]) -> None:
    faults = [
        Fault(str(file), f"the key {key!r} is unknown", f"Remove it. {nearest(key, _KEY_TYPES)}", column=str(key))
        for key in content
        if key not in _KEY_TYPES
    ]
    for key, kind in _KEY_TYPES.items():
        if key not in content:
            faults.append(Fault(str(file), f"the key {key!r} is missing", "Add it, or write the folder again."))
        elif not isinstance(content[key], kind):
            remedy = "Correct it, or write the folder again."
            faults.append(Fault(str(file), "the value has the wrong type", remedy, key, value=content[key]))
        elif key in _TEXTS and not all(isinstance(item, str) for item in content[key] or ()):
            remedy = "Correct it, or write the folder again."
            faults.append(Fault(str(file), "the list has entries that are not text", remedy, key, value=content[key]))
    if not faults:
        if set(content["rows"]) != set(TABLES) or not all(type(n) is int for n in content["rows"].values()):
            remedy = f"Give the number of rows of {', '.join(TABLES)}."
            faults.append(
                Fault(str(file), "the number of rows is missing for a table", remedy, "rows", value=content["rows"])
            )
        if content["propensity_source"] not in (*PROPENSITY_SOURCES, MIXED):
            source = content["propensity_source"]
            remedy = nearest(source, (*PROPENSITY_SOURCES, MIXED))
            faults.append(
                Fault(str(file), "this is not a source of propensities", remedy, "propensity_source", value=source)
            )
        if content["ties"] not in (None, "before", "after"):
            problem, remedy = "this is not an order of ties", "Write before, after or null."
            faults.append(Fault(str(file), problem, remedy, "ties", value=content["ties"]))
    if faults:
        raise InputError(faults)
