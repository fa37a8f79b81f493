"""Settings for reading an event stream: which rows are sends, where their actions are, and which slots exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.histories.propensities.sources import check_source
from crosschannel.histories.readers.presets import PRESETS, Preset
from crosschannel.histories.readers.repeats import Duplicates
from crosschannel.histories.readers.slots import SlotGrid, check_slots
from crosschannel.histories.readers.sources import TableSource, decision_columns, span_of
from crosschannel.histories.values.action_names import check_action_names
from crosschannel.histories.values.validation import EVENT_COLUMNS

ROW_COLUMNS = (*EVENT_COLUMNS, "anonymous_id", "message_id", "arm")


@dataclass(frozen=True)
class Sends:
    """Events that are sends, and the places of their actions.

    Attributes:
        events: Names of the events, such as `Email Sent`.
        columns: For native columns of decisions (a module, `decision_id`, `policy`, `propensity`,
            `propensity_<module>`, `eligible_<module>`), the stream's column or a path into a column of JSON
            (`channel: properties.channel`).
        constants: Native columns with the same value for all these events (`channel: email`).
    """

    events: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.events:
            raise ConfigError("sends need `events`: name the events that are sends")
        if both := sorted(set(self.columns) & set(self.constants)):
            raise ConfigError(f"{both} are given as columns and as constants: choose one")


@dataclass(frozen=True)
class StreamMapping:
    """How one long table of events is converted to decisions and events.

    Attributes:
        rows: The table, or a list of tables with columns of their own (sends in one, other events in others), each a
            file or a folder of files, which are read in the order of their names. `columns` has the table's columns, or
            paths into JSON, of `user_id`, `time`, `event` and optionally `value` (of all its events), `message_id`
            (unique for each message), `arm` (the user's experiment arm) and `anonymous_id` (a device or visitor: its
            rows without a user are those of the one user whom other rows name with it). `constants` may name the
            `event` of a table that has only one.
        modules: The action space: entries as in `TableMapping`.
        sends: Which events are sends. With `sends_only`, decisions to send nothing may be among them; their action is
            the first one of the first module. A grid has slots for these by itself.
        slots: `sends_only`: the log's sends are the only slots, so nothing can be learned about sending nothing.
            Or a `SlotGrid`: slots at fixed times, in which nothing was sent unless the slot's period has a send.
        events: The other events to keep; None for all of them.
        values: The column or path of an event's value, by the event's name (`Order Completed: properties.revenue`);
            `name*` stands for all names with this prefix, and the first match counts.
        duplicates: If rows of the same user and event have the same `message_id`: `error`, or `keep_first`, which keeps
            the earliest (clients that send again give each try a time of its own) and counts the others.
        anonymous: If a row has no user, also not by its `anonymous_id`: `error`; `leave_out`, which is counted; or
            `keep`: the `anonymous_id` is then a user of its own.
        preset: A vendor's export, whose columns and units of time count where `rows` has none of its own: `segment`,
            `braze`, `amplitude`, `mixpanel`, `rudderstack` or `ga4`.
        decided: The decisions that a policy of this package made, such as the files that `decide` wrote, in native
            columns with their propensities. On a grid each takes the place of the slot that is nearest to its time, and
            a send that follows it in that slot's period carries it out.
        users: The table of users, if there is one; otherwise the users are those of the stream.
        propensity_source: The source of the propensities; by default `logged` if there are any, else `missing`.
        span: Start and end of the observation period (UTC); by default the first and the last row that is not
            isolated.
        name: The history's name, for reports.
    """

    rows: TableSource | tuple[TableSource, ...]
    modules: tuple[Mapping[str, Any], ...]
    sends: tuple[Sends, ...]
    slots: str | SlotGrid
    events: tuple[str, ...] | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    duplicates: Duplicates = "error"
    anonymous: Literal["error", "leave_out", "keep"] = "error"
    preset: str | None = None
    decided: TableSource | None = None
    users: TableSource | None = None
    propensity_source: str | None = None
    span: tuple[str, str] | None = None
    name: str = "history"

    def __post_init__(self) -> None:
        modules = ActionSpace.from_mapping(self.modules)
        check_action_names(modules)
        if self.span is not None:
            span_of(self.span)
        if self.propensity_source is not None:
            check_source(self.propensity_source)
        if self.preset is not None and self.preset not in PRESETS:
            raise ConfigError(f"unknown preset {self.preset!r}. {nearest(self.preset, tuple(PRESETS))}")
        if not self.sends:
            raise ConfigError("the mapping has no `sends`: name the events that are sent messages")
        if not self.sources:
            raise ConfigError("the mapping has no `rows`: name at least one file")
        for source in self.sources:
            self._check_source(source)
        if clash := sorted({*ROW_COLUMNS, "value"} & set(modules.names)):
            raise ConfigError(f"a module has the name of another native column: {clash}. Rename the module")
        self._check_sends(modules)
        if self.duplicates != "error" and not self._maps("message_id"):
            raise ConfigError("`duplicates` needs `rows.columns.message_id`: name the column that identifies rows")
        if self.anonymous == "keep" and not self._maps("anonymous_id"):
            raise ConfigError("`anonymous: keep` needs `rows.columns.anonymous_id`: name the column of anonymous ids")
        self._check_slots()

    @property
    def sources(self) -> tuple[TableSource, ...]:
        """Return the tables of rows."""
        return (self.rows,) if isinstance(self.rows, TableSource) else tuple(self.rows)

    @property
    def vendor(self) -> Preset | None:
        """Return the ready-made mapping that `preset` names."""
        return None if self.preset is None else PRESETS[self.preset]

    def filled(self, source: TableSource) -> TableSource:
        """Return a table of rows with the settings of the preset where it has none of its own."""
        return source if self.vendor is None else self.vendor.fill(source)

    def _maps(self, native: str) -> bool:
        return any(native in self.filled(source).columns for source in self.sources)

    def _check_source(self, source: TableSource) -> None:
        known = (*ROW_COLUMNS, "value")
        for native in source.columns:
            if native not in known:
                raise ConfigError(f"unknown native column {native!r} of `rows`. {nearest(native, known)}")
        for native in source.constants:
            if native not in ("event", "value", "arm"):
                raise ConfigError(
                    f"`rows` cannot have the constant {native!r}, only `event`, `value` and `arm`: give actions with "
                    "the `sends`"
                )

    def _check_sends(self, modules: ActionSpace) -> None:
        known = tuple(name for name in decision_columns(modules) if name not in ROW_COLUMNS)
        names: list[str] = []
        for sends in self.sends:
            given = {*sends.columns, *sends.constants}
            for native in sorted(given):
                if native not in known:
                    raise ConfigError(f"unknown native column {native!r} of sends. {nearest(native, known)}")
            if absent := [name for name in modules.names if name not in given]:
                raise ConfigError(f"sends {list(sends.events)} lack {absent}: give each a column or a constant")
            names += sends.events
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"the events {twice} are in `sends` twice")
        if both := sorted(set(names) & set(self.events or ())):
            raise ConfigError(f"the events {both} are sends: remove them from `events`")

    def _check_slots(self) -> None:
        check_slots(self.slots, with_users=self.users is not None)
        if isinstance(self.slots, str):
            if self.decided is not None:
                raise ConfigError(
                    "`decided` needs slots on a grid: with 'sends_only' its sends would be decisions twice"
                )
            return
        only_sent = sorted(
            name
            for sends in self.sends
            for name in (*sends.columns, *sends.constants)
            if name.startswith(("propensity", "eligible_")) and name not in ActionSpace.from_mapping(self.modules).names
        )
        if only_sent or self.propensity_source is not None:
            raise ConfigError(
                f"{only_sent or ['propensity_source']} cannot be mapped on a grid: slots without a send have no row. "
                "Leave them out, and propensities are estimated; or log these slots and use slots 'sends_only'"
            )
