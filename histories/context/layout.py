"""Which raw columns a context has: the settings, and what they give for one history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, duration, find_time_zone
from crosschannel.histories.context.activity import WEEKDAYS, Activity
from crosschannel.histories.fixed_point import fit_bits, largest_sum
from crosschannel.histories.history import History
from crosschannel.histories.logs import have_codes
from crosschannel.histories.observation.users import has_dates

MAX_COUNTED_ACTIONS = 50
"""Actions of the first module up to which earlier messages are counted one by one."""

ANY_MESSAGE = -1
"""Stands for the code of every action that sends something."""

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


@dataclass(frozen=True)
class ContextSpec:
    """Settings of the context features.

    Attributes:
        windows: Trailing windows of the counts.
        events: Events to count, each separately. `name*` counts all events whose names have this prefix together. None:
            every event of the history separately.
        attributes: User attributes to use. None: all of them.
        messages: Whether to count earlier messages, by action of the first module, or all together where it has more
            than `MAX_COUNTED_ACTIONS`.
        clock: Whether to use the hour of the day and the day of the week.
        blocks: Hours of the day at which blocks begin, for the share of a user's own events in each. Empty: none.
        weekend: Days of the weekend, for the share of a user's own events in it. Empty: none.
        activity: Events that show when a user is active. None: those of `events`, without dates that have no time of
            day. Name the user's own acts: a message is delivered when the sender wants.
        time_zone: Zone of the blocks, the weekend and the clock.
    """

    windows: tuple[str, ...] = ("3d", "14d")
    events: tuple[str, ...] | None = None
    attributes: tuple[str, ...] | None = None
    messages: bool = True
    clock: bool = True
    blocks: tuple[int, ...] = (6, 10, 14, 18, 22)
    weekend: tuple[Weekday, ...] = ("saturday", "sunday")
    activity: tuple[str, ...] | None = None
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        for window in self.windows:
            duration(window)
        if list(self.blocks) != sorted({hour for hour in self.blocks if 0 <= hour < 24}) or len(self.blocks) == 1:
            raise ConfigError(
                f"blocks {list(self.blocks)} do not divide the day: give two or more hours from 0 to 23, in ascending "
                "order, or none"
            )
        if len(set(self.weekend)) < len(self.weekend) or not set(self.weekend) < set(WEEKDAYS):
            raise ConfigError(
                f"weekend {list(self.weekend)} does not divide the week: give one to six of {', '.join(WEEKDAYS)}, "
                "or none"
            )
        find_time_zone(self.time_zone)


@dataclass(frozen=True)
class Layout:
    """The raw columns that a `ContextSpec` gives for one history, and their sources.

    Attributes:
        groups: For each counted event, its label and the names of the events that are counted.
        valued: Labels of the groups whose values differ from 1, so that sums differ from counts, and the binary places
            of their exact sums.
        dated: Labels of the groups whose events are dates without a time of day: those of a decision's own day are not
            known at it.
        windows: Trailing windows: label and microseconds.
        sendable: Actions of the first module that send a message: label and code; all of them together, with the code
            `ANY_MESSAGE`, where they are more than `MAX_COUNTED_ACTIONS`.
        active: Actions with a label `duration` (days): label, module, code and microseconds.
        clock: Whether clock features are built.
        time_zone: Zone of the clock.
        activity: When users are usually active; None if there are no columns of it.
    """

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    valued: tuple[tuple[str, int], ...]
    dated: tuple[str, ...]
    windows: tuple[tuple[str, int], ...]
    sendable: tuple[tuple[str, int], ...]
    active: tuple[tuple[str, int, int, int], ...]
    clock: bool
    time_zone: str = "UTC"
    activity: Activity | None = None

    @classmethod
    def build(cls, spec: ContextSpec, history: History) -> Layout:
        """Build the layout of a spec for a history."""
        names = history.event_names if spec.events is None else spec.events
        groups = tuple(
            (name, tuple(history.event_names[c] for c in history.event_codes([name], "context.events")))
            for name in names
        )
        values = history.events.value
        varied = set(np.unique(history.events.event[values != 1.0]).tolist())
        coded = {name: code for code, name in enumerate(history.event_names)}
        valued = tuple(
            (label, _fit_bits_of(history, [coded[m] for m in members]))
            for label, members in groups
            if any(coded[m] in varied for m in members)
        )
        shown = names if spec.activity is None else spec.activity
        shown_codes = sorted(set(history.event_codes(shown, "context.activity").tolist()))
        known = {*shown_codes, *(coded[m] for _, members in groups for m in members)}
        dates = {code for code in known if has_dates(history.events.time[history.events.event == code])}
        first = history.modules[0]
        return cls(
            groups=groups,
            valued=valued,
            dated=tuple(label for label, members in groups if any(coded[m] in dates for m in members)),
            windows=tuple((text, duration(text)) for text in spec.windows),
            sendable=_sendable(first.actions) if spec.messages else (),
            active=_active(history.modules) if spec.messages else (),
            clock=spec.clock,
            time_zone=spec.time_zone,
            activity=_fit_activity(spec, history, shown_codes, dates),
        )


def _fit_activity(spec: ContextSpec, history: History, codes: list[int], dates: set[int]) -> Activity | None:
    """Fit the activity of a spec to the events of the codes; those of `dates` do not say when a user is active.

    Raises:
        ConfigError: If the spec names one of these.
    """
    if not spec.blocks and not spec.weekend:
        return None
    if spec.activity is not None and (named := [history.event_names[code] for code in codes if code in dates]):
        raise ConfigError(
            f"`activity` has {', '.join(map(repr, named))}, whose times are dates without a time of day: they do not "
            "say when a user is active. Leave them out, or set `blocks` and `weekend` to empty lists"
        )
    days = tuple(WEEKDAYS.index(day) for day in spec.weekend)
    return Activity.fit(history, [code for code in codes if code not in dates], spec.blocks, days, spec.time_zone)


def _fit_bits_of(history: History, codes: list[int]) -> int:
    chosen = have_codes(history.events.event, codes, len(history.event_names))
    return fit_bits(largest_sum(history.events.value, chosen, history.event_offsets))


def _sendable(actions: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return labels and codes of the messages to count: one by one, or all together where there are many."""
    if len(actions) > MAX_COUNTED_ACTIONS:
        return (("any message", ANY_MESSAGE),)
    return tuple((action, code) for code, action in enumerate(actions) if code > 0)


def _active(modules: ActionSpace) -> tuple[tuple[str, int, int, int], ...]:
    found = []
    for m, module in enumerate(modules):
        for code, action in enumerate(module.actions):
            days = module.labels.get(action, {}).get("duration")
            if days is not None and (m > 0 or code > 0):
                found.append((action, m, code, round(float(days) * DAY)))
    return tuple(found)
