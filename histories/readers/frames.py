"""Make a history of tables in memory: pandas and polars frames, Arrow tables, DuckDB relations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import Fault, InputError, raise_faults
from crosschannel.histories.history import DEFAULT_CHURN_EVENTS, History
from crosschannel.histories.observation.users import Ties
from crosschannel.histories.readers.formats.parquet import READ_ERRORS, arrow_frame
from crosschannel.histories.readers.sources import span_of


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
    space = modules if isinstance(modules, ActionSpace) else ActionSpace.from_dict(modules)
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
        problem = f"a {type(given).__name__} is not a table with the Arrow C stream interface"
        raise InputError(
            [Fault(name, problem, "Give a frame of pandas or polars, an Arrow table or a DuckDB relation.")]
        )
    if isinstance(given, pd.DataFrame):
        given = given.reset_index(drop=True)
    try:
        frame, unreadable = arrow_frame(pa.table(given))
    except READ_ERRORS as error:
        problem = f"the table cannot be read through Arrow: {error}"
        raise InputError([Fault(name, problem, "Give each column values of one type.")]) from error
    for column, kind in unreadable.items():
        remedy = "Leave the column out, or convert its values to text, numbers or times."
        faults.append(Fault(name, f"the column is {kind}, which no column of a log is", remedy, column=column))
    return frame
