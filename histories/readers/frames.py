"""Make a history of tables in memory: pandas and polars frames, Arrow tables, DuckDB relations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import Fault, InputError, raise_faults
from crosschannel.histories.history import DEFAULT_CHURN_EVENTS, History
from crosschannel.histories.observation.users import Ties
from crosschannel.histories.readers.formats.parquet import READ_ERRORS, arrow_frame
from crosschannel.histories.readers.sources import span_of

_TABLE = "Give a frame of pandas or polars, an Arrow table or a DuckDB relation."
#: What to do with what holds a table, but is none.
_TABLE_OF = {
    "LazyFrame": "Collect it first, with `.collect()`.",
    "DuckDBPyConnection": "Give the relation of a query, as `connection.sql(...)` returns it.",
}
_CONVERT = "Leave the column out, or convert its values to text, numbers or times."


class ArrowStream(Protocol):
    """A table that hands out its columns through the Arrow C stream interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a capsule with an Arrow stream."""
        ...


def from_frames(
    decisions: ArrowStream,
    events: ArrowStream,
    modules: ActionSpace | Sequence[Mapping[str, Any]],
    users: ArrowStream | None = None,
    *,
    span: tuple[str, str] | None = None,
    propensity_source: str | None = None,
    name: str = "history",
    churn_events: Sequence[str] = DEFAULT_CHURN_EVENTS,
    ties: Ties | None = None,
) -> History:
    """Make a history of tables in memory, in the native columns (`History.from_tables`).

    Any table with the Arrow C stream interface will do: frames of pandas and polars, Arrow tables and readers of
    batches, relations of DuckDB. Columns are shared where their type allows it, and converted as those of a Parquet
    file are, so that the history equals that of a native folder with the same rows. The index of a pandas frame is no
    column.

    Args:
        decisions: `decision_id, user_id, time`, one column per module, and optionally propensities and eligible
            actions.
        events: `user_id, time, event`, and optionally `value` and `decision_id`.
        modules: The action space, or its entries with `name`, `actions` and optionally `parent`, `requires`, `labels`,
            `condition_on`.
        users: `user_id`, static attributes, and optionally `observed_from` and `observed_until`.
        span: Start and end of the observation period, such as `("2024-05-01", "2024-06-30T18:00")` (UTC); by default it
            ends where the rows do.
        propensity_source: The source of propensities of rows that do not name it themselves, by default `logged`.
        name: The history's name, for reports.
        churn_events: Events after which nothing can be sent to a user any more.
        ties: How events at exactly the time of a decision are ordered; None if not declared.

    Raises:
        InputError: If a table cannot be read, a column has a type that no column of a log has, or the tables have
            faults; with all of them, each with its table, row, column, value and remedy.
        ConfigError: If the span or the churn events do not fit the rows.

    Example:
        >>> import pandas as pd
        >>> from crosschannel.histories import from_frames
        >>> sends = pd.DataFrame({"decision_id": ["a", "b"], "user_id": ["u", "v"], "time": ["2024-05-01T10:00Z"] * 2,
        ...                       "channel": ["none", "push"], "propensity_channel": [0.5, 0.5]})
        >>> orders = pd.DataFrame({"user_id": ["v"], "time": ["2024-05-01T12:00Z"], "event": ["order"]})
        >>> from_frames(sends, orders, [{"name": "channel", "actions": ["none", "push"]}]).n_users
        2
    """
    faults: list[Fault] = []
    tables = {"decisions": decisions, "events": events} | ({} if users is None else {"users": users})
    frames = {table: _frame(table, given, faults) for table, given in tables.items()}
    raise_faults(faults)
    space = modules if isinstance(modules, ActionSpace) else ActionSpace.from_mapping(modules)
    return History.from_tables(
        frames["decisions"],
        frames["events"],
        space,
        frames.get("users"),
        span=None if span is None else span_of(span),
        propensity_source=propensity_source,
        name=name,
        churn_events=churn_events,
        ties=ties,
    )


def _frame(name: str, given: ArrowStream, faults: list[Fault]) -> pd.DataFrame:
    """Return a table with the columns of pandas, and add a fault for each column that cannot be read.

    Raises:
        InputError: If it is no table, or cannot be read as one.
    """
    if not hasattr(given, "__arrow_c_stream__"):
        kind = type(given).__name__
        problem = f"a {kind} is not a table with the Arrow C stream interface"
        raise InputError([Fault(name, problem, _TABLE_OF.get(kind, _TABLE))])
    if isinstance(given, pd.DataFrame):
        given = given.reset_index(drop=True)
    try:
        table = pa.table(given)
    except READ_ERRORS as error:
        found = [*_twice(name, given), *_refused_by_arrow(name, given)]
        if not found:
            raise InputError([Fault(name, f"this cannot be read as a table: {_reason(error)}", _TABLE)]) from error
        faults += found
        return pd.DataFrame()
    except Exception as error:  # a relation runs its query only now, and raises errors of its own library
        remedy = "Correct the query, or what it reads."
        raise InputError([Fault(name, f"this cannot be read as a table: {_reason(error)}", remedy)]) from error
    frame, unreadable = arrow_frame(table)
    for column, kind in unreadable.items():
        faults.append(Fault(name, f"the column is {kind}, which no column of a log is", _CONVERT, column=column))
    return frame


def _twice(name: str, given: Any) -> list[Fault]:
    """Return a fault for each name that several columns of a pandas frame have."""
    columns = given.columns if isinstance(given, pd.DataFrame) else pd.Index([])
    twice = columns[columns.duplicated()].unique()
    return [Fault(name, "two columns have this name", "Rename or drop one of them.", column=str(one)) for one in twice]


def _refused_by_arrow(name: str, given: Any) -> list[Fault]:
    """Return a fault for each column of a frame that cannot be converted to Arrow by itself."""
    faults = []
    for column in dict.fromkeys(getattr(given, "columns", ())):
        alone = given[[column]]
        if alone.shape[1] > 1:
            continue  # several columns of one name
        try:
            pa.table(alone)
        except READ_ERRORS as error:
            faults.append(_types_differ(name, column, alone) or _no_arrow_type(name, column, error))
    return faults


def _types_differ(name: str, column: object, alone: Any) -> Fault | None:
    """Return a fault that names the first row whose value has another type than those above it; None if none has."""
    if not isinstance(alone, pd.DataFrame) or not pd.api.types.is_object_dtype(alone.dtypes.iloc[0]):
        return None
    values = alone.iloc[:, 0].dropna()
    kinds = values.map(lambda one: type(one).__name__)
    other = np.flatnonzero(kinds != kinds.iloc[0])
    if not len(other):
        return None
    row = int(values.index[other[0]])
    problem = f"the column has values of several types: {', '.join(dict.fromkeys(kinds))}"
    remedy = "Convert all its values to one type, such as text with `.astype(str)`, or leave the column out."
    return Fault(name, problem, remedy, column=str(column), row=row + 1, value=values.loc[row])


def _no_arrow_type(name: str, column: object, error: Exception) -> Fault:
    return Fault(name, f"the column cannot be converted to Arrow: {_reason(error)}", _CONVERT, column=str(column))


def _reason(error: Exception) -> str:
    """Return the first line of an error's text, without its full stop."""
    return str(error.args[0] if error.args else error).strip().partition("\n")[0].rstrip(".")
