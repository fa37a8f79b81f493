"""Groups of users by an attribute: quarters of numbers, the most frequent of other values."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.histories.history import History
from crosschannel.histories.values.attributes import attribute_numbers, attribute_text

QUANTILE_GROUPS = 4
MAX_ATTRIBUTE_GROUPS = 20


def attribute_groups(history: History, name: str) -> list[tuple[str, BoolArray]]:
    """Divide users into groups by an attribute: label and mask (U,).

    Numbers are cut into quarters of users. Of other values the `MAX_ATTRIBUTE_GROUPS` most frequent make a group each,
    and the rest one group, labelled with their number.

    Raises:
        ConfigError: If the users have no such attribute.
    """
    known = [] if history.users is None else [str(c) for c in history.users.columns if c != "user_id"]
    if history.users is None or name not in known:
        raise ConfigError(f"the users have no attribute {name!r}. {nearest(name, known)}")
    column = history.users[name]
    return AttributeGroups.fit(name, count_values(column)).masks(column)


def count_values(column: pd.Series) -> pd.Series:
    """Return how many users have each value of an attribute, missing ones included."""
    return column.value_counts(dropna=False, sort=False)


def add_counts(one: pd.Series, other: pd.Series) -> pd.Series:
    """Add the counts of other users."""
    total: pd.Series = pd.concat([one, other]).groupby(level=0, dropna=False, sort=False).sum()
    return total


@dataclass(frozen=True)
class AttributeGroups:
    """Groups of users by an attribute, found from how many users have each value: see `attribute_groups`.

    Attributes:
        labels: Names of the groups.
        values: The known values.
        code: The group of each (v,).
        missing: The group of users without a value; -1 where there was none.
    """

    labels: tuple[str, ...]
    values: pd.Index
    code: IntArray
    missing: int

    @classmethod
    def fit(cls, name: str, counts: pd.Series) -> AttributeGroups:
        """Divide the users whose values were counted: see `count_values`."""
        column, n = counts.index.to_series(), counts.to_numpy(dtype=np.int64)
        lacks = column.isna().to_numpy(dtype=bool)
        number = attribute_numbers(column)
        if number is not None and column[~lacks].nunique() > MAX_ATTRIBUTE_GROUPS:
            edges = np.unique(_quantiles(number[~lacks], n[~lacks], QUANTILE_GROUPS))
            code = np.clip(np.searchsorted(edges, number, side="right") - 1, 0, len(edges) - 2)
            dates = pd.api.types.is_datetime64_any_dtype(column)
            shown = [str(np.datetime64(int(e), "us").astype("datetime64[D]")) if dates else f"{e:g}" for e in edges]
            labels = [f"{name} {low} to {high}" for low, high in pairwise(shown)]
            code = np.where(lacks, len(labels), code)
            labels += [f"{name} missing"] * bool(lacks.any())
        else:
            text = attribute_text(column)
            total = pd.Series(n).groupby(text).sum()
            frequent = total.sort_index().sort_values(ascending=False, kind="stable").index
            own = frequent[:MAX_ATTRIBUTE_GROUPS].sort_values()
            labels = [f"{name} {level}" for level in own]
            code = own.get_indexer(pd.Index(text))
            if (code < 0).any():
                code = np.where(code < 0, len(labels), code)
                labels.append(f"{name}: {len(frequent) - len(own)} others")
        missing = int(code[lacks][0]) if lacks.any() else -1
        return cls(
            labels=tuple(labels),
            values=pd.Index(column[~lacks]),
            code=np.asarray(code[~lacks], dtype=np.int64),
            missing=missing,
        )

    def masks(self, column: pd.Series) -> list[tuple[str, BoolArray]]:
        """Return the label of each group, and which of some users (U,) it holds."""
        place = self.values.get_indexer(pd.Index(column))
        code = np.where(place < 0, self.missing, np.append(self.code, -1)[place])
        return [(label, np.asarray(code == k)) for k, label in enumerate(self.labels)]


def _quantiles(values: FloatArray, counts: IntArray, parts: int) -> FloatArray:
    """Return the linear quantiles (parts + 1,) of values (v,) that occur `counts` times each."""
    order = np.argsort(values)
    ends = np.cumsum(counts[order])
    place = np.linspace(0, 1, parts + 1) * (ends[-1] - 1)
    below = np.floor(place)
    low, high = (values[order][np.searchsorted(ends, np.minimum(k, ends[-1] - 1), "right")] for k in (below, below + 1))
    return np.asarray(
        [np.quantile(pair, t) for pair, t in zip(zip(low, high, strict=True), place - below, strict=True)]
    )
