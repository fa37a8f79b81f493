"""Write decided days into a folder by date: each as a whole or not at all, also where a process is killed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from crosschannel.core.errors import OutputError
from crosschannel.histories.readers.decided.days import (
    ARMS_FILE,
    DECISIONS_FILE,
    SUMMARY_FILE,
    draft_of,
    replaced_day,
    replaced_of,
    unfinished_replacements,
)
from crosschannel.pipeline.command_line import UsageError, logger
from crosschannel.pipeline.loop.deciding import DecidedDay
from crosschannel.pipeline.run_files import RunLock, write_json


def write_day(folder: Path, day: DecidedDay, *, force: bool = False) -> Path:
    """Write a day into a folder by date, as a whole or not at all; return its own folder.

    Args:
        folder: The folder of all days.
        day: The day.
        force: Whether a day of the same name is replaced.

    Raises:
        UsageError: If the day exists, and is not to be replaced.
        ConfigError: If another process writes into the folder.
        OutputError: If the folder cannot be written.
    """
    target = folder / day.name
    draft, before = draft_of(target), replaced_of(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with RunLock(folder):
            for moved in unfinished_replacements(folder):
                moved.rename(replaced_day(moved))
            _remove(before)
            _remove(draft)
            refuse_decided(target, force)
            draft.mkdir()
            day.decisions.to_parquet(draft / DECISIONS_FILE, index=False)
            day.arms.to_parquet(draft / ARMS_FILE, index=False)
            write_json(day.summary, draft / SUMMARY_FILE)
            for name in (DECISIONS_FILE, ARMS_FILE, "."):
                _flush(draft / name)
            if target.exists():
                target.rename(before)
            draft.rename(target)
            _flush(folder)
            _remove(before)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def restore_days(folder: Path) -> None:
    """Give days of a folder their names again that were moved away, where the process that did so was killed.

    Raises:
        ConfigError: If another process writes into the folder.
        OutputError: If the folder cannot be written.
    """
    if not unfinished_replacements(folder):
        return
    try:
        with RunLock(folder):
            for moved in unfinished_replacements(folder):
                moved.rename(replaced_day(moved))
                logger.info(f"{replaced_day(moved)} is as it was before a process was killed that replaced it")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None


def refuse_decided(day: Path, force: bool) -> None:
    """Refuse to decide again for a day, unless that is asked for.

    Raises:
        UsageError: If the day exists and `force` is False.
    """
    if day.exists() and not force:
        raise UsageError(f"{day} exists already: the day was decided. --force decides it again")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; some systems cannot for folders."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
