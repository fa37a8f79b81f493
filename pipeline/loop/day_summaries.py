"""The summaries of decided days: which day came before, whether its arms were the same, how the counts differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from crosschannel.core.errors import ConfigError, Fault, raise_faults
from crosschannel.core.serialization import to_dict
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.arms import Arms
from crosschannel.histories.readers.decided.days import ARMS_FILE, SUMMARY_FILE, decided_days, is_by_date
from crosschannel.histories.readers.source_files import read_parquet
from crosschannel.pipeline.run_files import read_json

#: Version of the summary of a day, and of the tables of decisions and arms beside it.
DAY_VERSION = 1


def read_summary(day: Path) -> dict[str, Any]:
    """Return the summary of a decided day.

    Raises:
        ConfigError: If it is not as it was written.
    """
    return read_json(day / SUMMARY_FILE, "Decide for the day again with --force", DAY_VERSION)


def previous_day(folder: Path, name: str) -> Path | None:
    """Return the last day of a folder before another one, by their names; None if there is none."""
    earlier = [day for day in (decided_days(folder) if is_by_date(folder) else []) if day.name < name]
    return earlier[-1] if earlier else None


def check_same_arms(folder: Path, name: str, arms: Arms) -> None:
    """Refuse arms that are not those of the day before: users would move between them unnoticed.

    Args:
        folder: The folder of all days.
        name: Name of the day to decide for.
        arms: Its arms.

    Raises:
        ConfigError: If they differ.
    """
    before = previous_day(folder, name)
    if before is None:
        return
    stored, found = read_summary(before)["arms"], to_dict(arms)
    if stored != found:
        changed = ", ".join(
            f"{key} {stored.get(key)!r} to {found[key]!r}" for key in found if found[key] != stored.get(key)
        )
        raise ConfigError(
            f"the arms are not those of {before}: {changed}. Users would change their arm, which ends a trial. Restore "
            "the arms, or state that this is meant: --change-arms"
        )


def check_arms_of_users(folder: Path, name: str, arms: pd.DataFrame) -> None:
    """Refuse arms in which a user is not where the day before had the user, such as after another cluster was given.

    Args:
        folder: The folder of all days.
        name: Name of the day to decide for.
        arms: Its `user_id` and `arm`.

    Raises:
        ConfigError: If a user would change the arm.
    """
    before = previous_day(folder, name)
    if before is None:
        return
    both = _arms_of(before / ARMS_FILE).merge(arms, on="user_id", suffixes=("_before", "_now"))
    moved = both[both["arm_before"] != both["arm_now"]]
    if len(moved):
        first = moved.iloc[0]
        raise ConfigError(
            f"{len(moved):,} users are not in the arm that they had in {before}, such as {first['user_id']!r}: "
            f"{first['arm_before']}, and now {first['arm_now']}. What assigns arms (the ids, or the attribute of "
            "`arms.cluster`) has changed for them: restore it, or state that this is meant: --change-arms"
        )


def _arms_of(file: Path) -> pd.DataFrame:
    """Return the arms of a day.

    Raises:
        InputError: If the file is damaged, or has no column of users or arms.
    """
    faults, frame = list[Fault](), read_parquet(file)
    TableValidator(frame, str(file), faults).require(["user_id", "arm"])
    raise_faults(faults)
    return frame


def compare_counts(counts: Mapping[str, Mapping[str, int]], before: Mapping[str, Mapping[str, int]] | None) -> str:
    """Return a table of the counts of a day by module and action, beside those of the day before if there was one."""
    lines = []
    for module, now in counts.items():
        then = {} if before is None else before.get(module, {})
        for action in sorted({*now, *then}):
            n, m = now.get(action, 0), then.get(action, 0)
            change = "" if before is None else f"{m:>12,}{n - m:>+12,}"
            lines.append(f"{module:<16}{action:<24}{n:>12,}{change}")
    head = f"{'module':<16}{'action':<24}{'now':>12}" + ("" if before is None else f"{'before':>12}{'change':>12}")
    return "\n".join([head, *lines])
