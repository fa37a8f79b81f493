"""Where the propensities of decisions come from: a code for each row, and their summary."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.table_validator import TableValidator, first_true

PROPENSITY_SOURCES = ("logged", "by design", "estimated", "missing")
LOGGED, BY_DESIGN, ESTIMATED, MISSING = range(4)

#: Sources of propensities that are known and not estimated.
KNOWN_SOURCES = ("logged", "by design")

#: The summary of a log whose rows have several sources.
MIXED = "mixed"

#: The column of a table that names each row's source.
SOURCE_COLUMN = "source_of_propensity"

#: The code of a row whose table does not name a source.
_NOT_NAMED = -1


def has_propensity(propensity: FloatArray, joint: FloatArray) -> BoolArray:
    """Return which rows (n,) have a propensity: of some module (n, M), or of the whole action (n,)."""
    return np.asarray(~np.isnan(joint) | ~np.isnan(propensity).all(axis=1))


def source_codes(propensity: FloatArray, joint: FloatArray, source: str | IntArray = "logged") -> IntArray:
    """Return each row's source (n,), as codes into `PROPENSITY_SOURCES`.

    Args:
        propensity: Propensities by module (n, M).
        joint: Propensities of the whole action (n,).
        source: The source of all propensities that there are, or a code for each row (n,). A row without a propensity
            is `missing` whatever it says, and one with a propensity that is said to be `missing` is `logged`.

    Raises:
        ConfigError: If the source is unknown, or `missing` for all rows although some have a propensity.
    """
    known = has_propensity(propensity, joint)
    if isinstance(source, str):
        check_source(source)
        if source == "missing" and known.any():
            raise ConfigError(
                f"{int(known.sum()):,} decisions have a propensity, but its source is 'missing': name the source, or "
                "set these propensities to NaN"
            )
        source = np.full(len(known), PROPENSITY_SOURCES.index(source), dtype=np.int64)
    return np.asarray(np.where(known, np.where(source == MISSING, LOGGED, source), MISSING), dtype=np.int64)


def check_source(source: str) -> None:
    """Refuse a source that is not one of `PROPENSITY_SOURCES`.

    Raises:
        ConfigError: If it is not.
    """
    if source not in PROPENSITY_SOURCES:
        raise ConfigError(f"unknown propensity source {source!r}. {nearest(source, PROPENSITY_SOURCES)}")


def read_sources(table: TableValidator, propensity: FloatArray, joint: FloatArray) -> IntArray:
    """Return the sources (n,) that a table's column names, -1 where it is empty or there is no such column."""
    if not table.has(SOURCE_COLUMN):
        return np.full(len(table), _NOT_NAMED, dtype=np.int64)
    missing, known = table.missing(SOURCE_COLUMN), has_propensity(propensity, joint)
    pattern, names = pd.factorize(table.texts(SOURCE_COLUMN))
    code = pd.Index(PROPENSITY_SOURCES).get_indexer(pd.Index(names))[pattern].astype(np.int64)
    unknown = ~missing & (code < 0)
    if (row := first_true(unknown)) is not None:
        table.flag_rows(
            SOURCE_COLUMN,
            unknown,
            "this is not a source of propensities",
            nearest(names[pattern[row]], PROPENSITY_SOURCES),
        )
    table.flag_rows(
        SOURCE_COLUMN,
        ~missing & known & (code == MISSING),
        "the row has a propensity, although its source is 'missing'",
        "Name its source, or leave the propensity empty.",
    )
    table.flag_rows(
        SOURCE_COLUMN,
        ~known & (code >= 0) & (code != MISSING),
        "the row has no propensity",
        "Fill it in, or name the source 'missing'.",
    )
    return np.where(missing, _NOT_NAMED, code)


def source_names(codes: IntArray) -> pd.Series:
    """Return the names of sources (n,), for a table."""
    return pd.Series(np.asarray(PROPENSITY_SOURCES, dtype=object)[codes])


def count_sources(codes: IntArray) -> dict[str, int]:
    """Return the number of rows of each source that occurs, in the order of `PROPENSITY_SOURCES`."""
    counts = np.bincount(codes, minlength=len(PROPENSITY_SOURCES)).tolist()
    return {name: n for name, n in zip(PROPENSITY_SOURCES, counts, strict=True) if n}


def summarise_sources(counts: Mapping[str, int]) -> str:
    """Return the only source of some rows, `mixed` if there are several, `missing` if there are no rows."""
    return MIXED if len(counts) > 1 else next(iter(counts), "missing")


def describe_sources(counts: Mapping[str, int]) -> str:
    """Return the only source, or how many decisions have which: `logged for 200 decisions, estimated for 1,000`."""
    if len(counts) < 2:
        return summarise_sources(counts)
    first, *others = (f"{name} for {n:,}" for name, n in counts.items())
    return ", ".join([f"{first} decisions", *others])
