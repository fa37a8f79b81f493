"""The folder of decisions by date: a folder for each decision time, with decisions, everybody's arm, and a summary."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import ObjectArray
from crosschannel.core.errors import ConfigError, Fault, InputError, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import DAY, SECOND, parse_moment
from crosschannel.histories.arms import ARMS
from crosschannel.histories.history import History
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.histories.readers.sources import TableSource

DECISIONS_FILE, ARMS_FILE, SUMMARY_FILE = "decisions.parquet", "arms.parquet", "decide.json"
_DAY = re.compile(r"\d{4}-\d\d-\d\d(T\d\d-\d\d)?")
_REPLACED = ".replaced"


def day_name(at: int, period: int) -> str:
    """Return the name of the folder of a decision time: its date, and the time of day where a day has several.

    Args:
        at: The time, microseconds since 1970 UTC.
        period: Time from one decision time to the next, microseconds.
    """
    moment = pd.Timestamp(at, unit="us")
    return f"{moment:%Y-%m-%d}" if period >= DAY else f"{moment:%Y-%m-%dT%H-%M}"


def draft_of(day: Path) -> Path:
    """Return where a day is written before it has its name."""
    return day.with_name(f".{day.name}.part")


def replaced_of(day: Path) -> Path:
    """Return where a day is kept while another one takes its place."""
    return day.with_name(f".{day.name}{_REPLACED}")


def unfinished_replacements(folder: Path) -> list[Path]:
    """Return the days of a folder that were moved away to be replaced, when the process that did so was killed."""
    moved = sorted(folder.glob(f".*{_REPLACED}")) if folder.is_dir() else []
    return [path for path in moved if not replaced_day(path).exists()]


def replaced_day(moved: Path) -> Path:
    """Return the day that was moved to a path by `replaced_of`."""
    return moved.with_name(moved.name[1:].removesuffix(_REPLACED))


def decided_days(folder: Path) -> list[Path]:
    """Return the folders of the decision times in a folder, in the order of time.

    What begins with a dot is a draft of a day that was never finished, and is not read.

    Raises:
        InputError: If the folder does not exist, or holds something else, or a day has a file missing.
    """
    if not folder.is_dir():
        raise InputError([Fault(str(folder), "there is no such folder", "Check the path.")])
    problem = "the process that replaced this day was killed, and the day has no other decisions"
    faults = [
        Fault(str(path), problem, f"Rename it to {replaced_day(path).name}, or decide for that day again.")
        for path in unfinished_replacements(folder)
    ]
    days = list[Path]()
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not (entry.is_dir() and _DAY.fullmatch(entry.name)):
            remedy = "Keep other files elsewhere."
            faults.append(Fault(str(entry), "this is not a day of decisions, such as 2026-11-24", remedy))
            continue
        absent = [name for name in (DECISIONS_FILE, ARMS_FILE, SUMMARY_FILE) if not (entry / name).is_file()]
        faults += [Fault(str(entry / name), "the day has no such file", "Decide for the day again.") for name in absent]
        days.append(entry)
    raise_faults(faults)
    return days


def is_by_date(folder: Path) -> bool:
    """Return whether a path is a folder of decisions by date."""
    return folder.is_dir() and any(_DAY.fullmatch(path.name) and path.is_dir() for path in folder.iterdir())


def source_of_decisions(source: TableSource) -> TableSource:
    """Return the source of the decisions only, where a source is a folder by date.

    Raises:
        InputError: If the folder is one, and is not as `decide` writes it.
    """
    return replace(source, files=decisions_by_date(source.path).files) if is_by_date(source.path) else source


def decisions_by_date(folder: Path) -> TableSource:
    """Return the source of the decisions in a folder by date.

    Raises:
        InputError: If the folder is not as `decide` writes it, or has no day.
    """
    if not decided_days(folder):
        raise InputError([Fault(str(folder), "the folder has no day of decisions", "Decide for a day first.")])
    return TableSource(folder, files=DECISIONS_FILE)


def read_arms(folder: Path, user_ids: ObjectArray) -> ObjectArray:
    """Return the arm of each user (U,): that of the last day which names the user; None where no day does.

    Raises:
        InputError: If a file of any day cannot be read, has an arm that is not one of `ARMS`, or a user twice.
    """
    texts = pd.Index(user_ids.astype(str))
    out = np.full(len(user_ids), None, dtype=object)
    for day in decided_days(folder):  # each of them, as a fault in an early day is a fault
        users, arm = read_arms_of_day(day)
        row = users.get_indexer(texts)
        out[row >= 0] = arm[row[row >= 0]]
    return out


def read_latest_arms(folder: Path, user_ids: ObjectArray) -> ObjectArray:
    """Return the same (U,) from as few days as it takes, such as for one of many buckets of users."""
    texts = pd.Index(user_ids.astype(str))
    out = np.full(len(user_ids), None, dtype=object)
    unknown = np.ones(len(user_ids), dtype=bool)
    for day in reversed(decided_days(folder)):
        users, arm = read_arms_of_day(day)
        row = users.get_indexer(texts)
        found = unknown & (row >= 0)
        out[found] = arm[row[found]]
        unknown &= ~found
        if not unknown.any():
            break
    return out


def read_arms_of_day(day: Path) -> tuple[pd.Index[str], ObjectArray]:
    """Return the users whom a decided day names, as text, and their arms.

    Raises:
        InputError: If the file cannot be read, has an arm that is not one of `ARMS`, or a user twice.
    """
    file, faults = day / ARMS_FILE, list[Fault]()
    table = TableValidator(read_parquet(file), str(file), faults)
    table.require(["user_id", "arm"])
    raise_faults(faults)
    users = pd.Index(table.texts("user_id"), dtype="str")
    arm = table.texts("arm")
    table.flag_rows("user_id", table.missing("user_id"), "the user is missing", "Name a user in each row.")
    table.flag_rows("arm", ~np.isin(arm, ARMS), "this is not an arm", f"Write one of {', '.join(ARMS)}.")
    twice = np.asarray(users.duplicated())
    table.flag_rows("user_id", twice, "the user has an earlier row", "Keep one row for each user.")
    raise_faults(faults)
    return users, arm


def with_arms(history: History, folder: Path) -> History:
    """Return a history whose decisions have arms: their own, or else that of the user, as the last day names it.

    Decisions of a policy have the arm under which they were made; those of business as usual get it from the days.
    Decisions from before the first day have no arm but the log's: what was not sent then was not held out.

    Raises:
        InputError: If the folder is not one of decisions by date.
    """
    return with_arms_of_users(history, folder, read_arms(folder, history.user_ids))


def with_arms_of_users(history: History, folder: Path, arms: ObjectArray) -> History:
    """Return a history whose decisions have arms: their own, or else that of the user (U,): see `with_arms`."""
    d = history.decisions
    named = np.asarray(arms != None, dtype=bool)  # noqa: E711
    own = np.full(len(d), None, dtype=object) if d.arm is None else d.arm
    has_own = np.asarray(pd.notna(own), dtype=bool) & np.asarray(own != "", dtype=bool)
    began = _first_time(folder)
    arm = np.where(has_own | (d.time < began), own, arms[d.user])
    notes = list(history.notes)
    if not named.all():
        notes.append(f"arms: {int((~named).sum()):,} users are in no file of arms of {folder}")
    return replace(history, decisions=replace(d, arm=arm), notes=tuple(notes))


def _first_time(folder: Path) -> int:
    """Return the time of the first day of a folder of decisions, microseconds since 1970 UTC, to the minute."""
    return _time_of(decided_days(folder)[0])


def ends_before(day: Path, time: int) -> bool:
    """Return whether all that was decided on a day was for before a time.

    The name of its folder says so, or the time in its summary where the name has only a date, and that of the time.
    """
    begin = _time_of(day)
    if "T" in day.name:
        return begin + 60 * SECOND <= time
    if not begin < time < begin + DAY:
        return begin + DAY <= time
    try:
        summary = json.loads((day / SUMMARY_FILE).read_text(encoding="utf-8"))
        return parse_moment(str(summary["at"])) < time
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        problem = f"the summary does not say when the day was decided for ({error})"
        raise InputError([Fault(str(day / SUMMARY_FILE), problem, "Decide for the day again with --force.")]) from None


def _time_of(day: Path) -> int:
    name = day.name
    return int(np.datetime64(name[:11] + name[11:].replace("-", ":") if "T" in name else name, "us").astype(np.int64))
