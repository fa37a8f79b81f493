"""Read a campaign tool's tables: sends in one, other events in others, and no rows where nothing was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

from crosschannel.core.errors import Fault, InputError, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.history import History
from crosschannel.histories.readers.repeats import Duplicates
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import SourceRows, TableSource
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.opening import assemble
from crosschannel.histories.readers.stream.reader import history_of
from crosschannel.histories.readers.stream.rows import StreamFile

#: The name of sends that are not decisions, as events of the history.
SEND_EVENT = "message_sent"
_ROW_NATIVES = ("user_id", "time", "event", "arm", "value", "message_id")


class SentTables(Protocol):
    """The settings of tables of sends; see `TableMapping`."""

    @property
    def modules(self) -> tuple[Mapping[str, Any], ...]:
        """The action space."""

    @property
    def users(self) -> TableSource | None:
        """The file of users."""

    @property
    def decided(self) -> TableSource | None:
        """The decisions that a policy made."""

    @property
    def duplicates(self) -> Duplicates:
        """What to do with rows that repeat a message."""

    @property
    def anonymous(self) -> Literal["error", "leave_out"]:
        """What to do with rows without a user."""

    @property
    def propensity_source(self) -> str | None:
        """The source of the propensities."""

    @property
    def span(self) -> tuple[str, str] | None:
        """Start and end of the observation period."""

    @property
    def name(self) -> str:
        """The history's name."""


def history_of_sends(
    mapping: SentTables,
    slots: str | SlotGrid,
    sends: Sequence[SourceRows],
    events: Sequence[SourceRows],
    users: SourceRows | None,
) -> History:
    """Return the history of sends and events in tables of their own: they are read as the rows of one stream.

    Args:
        mapping: The settings of the tables.
        slots: A grid of slots, or `sends_only`.
        sends: The messages that were sent, in the native columns of decisions; files of one or several layouts.
        events: Other events.
        users: The table of users, if there is one.

    Raises:
        InputError: With every fault of a step, in the columns and rows of the files.
        ConfigError: If the settings do not fit each other or the rows.
    """
    sources = {path: rows.source for rows in (*sends, *events) for path, _ in rows.files}
    try:
        faults: list[Fault] = []
        files = [file for rows in sends for file in _files(rows, {"event": SEND_EVENT}, faults)]
        others = [file for rows in events for file in _files(rows, {}, faults)]
        _check_names(others)
        files += others
        natives = dict.fromkeys(str(name) for rows in sends for name in rows.frame.columns)
        columns = {name: name for name in natives if name not in _ROW_NATIVES}
        if isinstance(slots, SlotGrid):
            _refuse_propensities(sends, columns)
        stream_mapping = StreamMapping(
            rows=tuple(_bare(rows.source) for rows in (*sends, *events)),
            modules=mapping.modules,
            sends=(Sends((SEND_EVENT,), columns),),
            slots=slots,
            decided=mapping.decided,
            duplicates=mapping.duplicates,
            anonymous=mapping.anonymous,
            users=mapping.users,
            propensity_source=mapping.propensity_source,
            span=mapping.span,
            name=mapping.name,
        )
        empty = sum(rows.empty for rows in (*sends, *events))
        times = [file.table.frame["time"] for file in files]
        zoneless = [path for rows in (*sends, *events) for path in rows.zoneless]
        stream = assemble(stream_mapping, files, times, users, faults, empty, zoneless)
        return history_of(stream_mapping, stream, "tables")
    except InputError as error:
        raise InputError([_in_names_of_file(fault, sources) for fault in error.faults]) from None


def _bare(source: TableSource) -> TableSource:
    """Return a source whose rows have been read in the native columns."""
    return TableSource(source.path, {"message_id": "message_id"} if "message_id" in source.columns else {})


def _files(rows: SourceRows, constants: Mapping[str, str], faults: list[Fault]) -> list[StreamFile]:
    """Return the files of a source as those of a stream, in the native columns."""
    out: list[StreamFile] = []
    start = 0
    for path, n in rows.files:
        frame = rows.frame.iloc[start : start + n].assign(**constants)
        names = {native: native for native in _ROW_NATIVES if native in frame.columns}
        out.append(StreamFile(TableValidator(frame, path, faults), names))
        start += n
    return out


def _check_names(files: Sequence[StreamFile]) -> None:
    """Refuse events that have the name of sends: they would become decisions."""
    for file in files:
        same = file.table.texts("event") == SEND_EVENT
        problem = f"{SEND_EVENT!r} is the name of the sends of `decisions`"
        file.table.flag_rows("event", same, problem, "Give the event another name, or leave the rows out.")
        raise_faults(file.table.faults)


def _refuse_propensities(sends: Sequence[SourceRows], columns: dict[str, str]) -> None:
    """Refuse propensities and eligibility of sends: slots without a send have none. Columns without entries go."""
    for native in list(columns):
        if native.startswith(("propensity", "eligible_")):
            for rows in sends:
                if native in rows.frame and not TableValidator(rows.frame[[native]], "", []).missing(native).all():
                    problem = "only sends have this column: slots without a send, which the grid makes, have none"
                    remedy = (
                        "Rename or drop it, and propensities are estimated; or log all slots as rows, without `slots`."
                    )
                    raise InputError([Fault(str(rows.source.path), problem, remedy, native)])
            del columns[native]


def _in_names_of_file(fault: Fault, sources: Mapping[str, TableSource]) -> Fault:
    """Return a fault of the native tables with the column's name in the file."""
    source = sources.get(fault.file)
    if source is None or fault.column is None or fault.column in source.constants:
        return fault
    return replace(fault, column=source.theirs(fault.column))
