"""The arms of users by the decided days, some of which were read before: kept beside the rows that have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, ObjectArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.files import replacing
from crosschannel.histories.readers.decided.days import read_arms_of_day

ARMS = "arms.parquet"


@dataclass
class ArmsByDay:
    """Arms that decided days name, each read once."""

    _days: dict[Path, tuple[pd.Index[str], ObjectArray]] = field(default_factory=dict)

    def of_users(self, days: Sequence[Path], user_ids: ObjectArray, before: ObjectArray | None = None) -> ObjectArray:
        """Return the arm of each user (U,): that of the last of some days, ascending, or else the one `before` (U,)."""
        out = np.full(len(user_ids), None, dtype=object) if before is None else before.copy()
        texts = pd.Index(user_ids.astype(str))
        for day in days:
            if day not in self._days:
                self._days[day] = read_arms_of_day(day)
            users, arm = self._days[day]
            row = users.get_indexer(texts)
            out[row >= 0] = arm[row[row >= 0]]
        return out


@dataclass(frozen=True)
class KeptArms:
    """Arms as they were when rows were kept.

    Attributes:
        user_ids: The users, as text (U,).
        before: Their arms by the days before the cut (U,), None where these name none.
        latest: Their arms by all days: those that the rows have (U,).
        decided: Which of them have decisions before the cut (U,).
    """

    user_ids: ObjectArray
    before: ObjectArray
    latest: ObjectArray
    decided: BoolArray

    def write(self, folder: Path) -> None:
        """Write the arms into a folder."""
        with replacing(folder / ARMS) as draft:
            pd.DataFrame({f.name: getattr(self, f.name) for f in fields(self)}).to_parquet(draft, index=False)

    @classmethod
    def read(cls, folder: Path) -> KeptArms:
        """Return what `write` wrote.

        Raises:
            ConfigError: If the file is damaged, or absent: nothing had been decided when rows were kept.
        """
        try:
            frame = pd.read_parquet(folder / ARMS)
            user_ids, before, latest = (_texts(frame[name]) for name in ("user_ids", "before", "latest"))
            return cls(user_ids, before, latest, frame["decided"].to_numpy(dtype=bool))
        except (OSError, ValueError, KeyError) as error:  # those of pyarrow are among these
            raise ConfigError(f"{folder / ARMS} cannot be read ({error})") from None

    def before_of(self, user_ids: ObjectArray) -> ObjectArray:
        """Return the arms by the days before the cut of other users (V,)."""
        place = pd.Index(self.user_ids).get_indexer(pd.Index(user_ids.astype(str)))
        return _with_none(self.before)[place]

    def had_decisions(self, user_ids: ObjectArray) -> BoolArray:
        """Return which other users (V,) have decisions before the cut."""
        place = pd.Index(self.user_ids).get_indexer(pd.Index(user_ids.astype(str)))
        return np.append(self.decided, False)[place]

    def are_those_of(self, user_ids: ObjectArray, arms: ObjectArray) -> bool:
        """Return whether the users whose decisions have arms have these (V,) now; others may be there as well."""
        place = pd.Index(user_ids.astype(str)).get_indexer(pd.Index(self.user_ids[self.decided]))
        return bool((place >= 0).all()) and bool((arms[place] == self.latest[self.decided]).all())


def _texts(column: pd.Series[str]) -> ObjectArray:
    """Return text with None where there is none."""
    values: ObjectArray = column.to_numpy(dtype=object, copy=True)
    values[pd.isna(values)] = None
    return values


def _with_none(values: ObjectArray) -> ObjectArray:
    out = np.full(len(values) + 1, None, dtype=object)
    out[:-1] = values
    return out
