"""Context features: standardised arrays of what was known about a user strictly before a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import convert, from_dict
from crosschannel.core.times import DAY, WEEK, duration
from crosschannel.histories.fixed_point import check_sums, fit_bits, from_fixed, largest_sum, to_fixed
from crosschannel.histories.history import History
from crosschannel.histories.observation.users import has_dates, last_known_date
from crosschannel.histories.values.attributes import UserEncoding
from crosschannel.histories.windows import Timeline, exact_mean, running_totals

#: Standardised features are clipped to plus or minus this.
MAX_ABS_FEATURE = 10.0
#: The feature of a context in which nothing else varies, as agents need at least one.
CONSTANT = "constant"
#: Standard deviation up to which a column counts as constant.
MIN_DEVIATION = 1e-9

MAX_COUNTED_ACTIONS = 50
"""Actions of the first module up to which earlier messages are counted one by one."""

ANY_MESSAGE = -1
"""Stands for the code of every action that sends something."""


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
    """

    windows: tuple[str, ...] = ("3d", "14d")
    events: tuple[str, ...] | None = None
    attributes: tuple[str, ...] | None = None
    messages: bool = True
    clock: bool = True

    def __post_init__(self) -> None:
        for window in self.windows:
            duration(window)


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
    """

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    valued: tuple[tuple[str, int], ...]
    dated: tuple[str, ...]
    windows: tuple[tuple[str, int], ...]
    sendable: tuple[tuple[str, int], ...]
    active: tuple[tuple[str, int, int, int], ...]
    clock: bool

    @classmethod
    def build(cls, spec: ContextSpec, history: History) -> Layout:
        """Build the layout of a spec for a history."""
        names = history.event_names if spec.events is None else spec.events
        groups = tuple((name, tuple(history.event_names[c] for c in history.event_codes([name]))) for name in names)
        values = history.events.value
        varied = set(np.unique(history.events.event[values != 1.0]).tolist())
        coded = {name: code for code, name in enumerate(history.event_names)}
        valued = tuple(
            (label, _fit_bits_of(history, [coded[m] for m in members]))
            for label, members in groups
            if any(coded[m] in varied for m in members)
        )
        first = history.modules[0]
        return cls(
            groups=groups,
            valued=valued,
            dated=tuple(
                label for label, members in groups if any(has_dates(_times_of(history, [coded[m]])) for m in members)
            ),
            windows=tuple((text, duration(text)) for text in spec.windows),
            sendable=_sendable(first.actions) if spec.messages else (),
            active=_active(history.modules) if spec.messages else (),
            clock=spec.clock,
        )


def _times_of(history: History, codes: list[int]) -> IntArray:
    return history.events.time[np.isin(history.events.event, codes)]


def _fit_bits_of(history: History, codes: list[int]) -> int:
    chosen = np.isin(history.events.event, codes)
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


def clock_columns(time: IntArray) -> Iterator[tuple[str, FloatArray]]:
    """Yield the hour of the day and the day of the week of times (N,), as sine and cosine."""
    for name, period in (("day", DAY), ("week", WEEK)):
        angle = 2 * np.pi * ((time % period) / period)
        yield f"clock {name} sin", np.sin(angle)
        yield f"clock {name} cos", np.cos(angle)


def raw_columns(layout: Layout, history: History, user: IntArray, time: IntArray) -> Iterator[tuple[str, FloatArray]]:
    """Yield raw columns (N,) of what was known about each user strictly before each time.

    An event that has a date only is known from the end of that day on: an order dated today may come after the
    decision, and no log of this morning has it. Counts and sums are over `[time - window, time)`, and `observed` is the
    share of that window in which the user was observed; days since the last event are NaN if there is none.
    """
    events = history.events
    timeline = Timeline(events.time, history.event_offsets)
    now = timeline.before(user, time)
    starts = [timeline.before(user, time - length) for _, length in layout.windows]
    first, valued = timeline.offsets[user], dict(layout.valued)
    every_now, every_start = now, starts
    for label, members in layout.groups:
        codes = [code for code, name in enumerate(history.event_names) if name in members]
        chosen = np.isin(events.event, codes)
        now, starts = every_now, every_start
        if label in layout.dated and chosen.any():
            known = last_known_date(time, events.time[chosen])
            now = timeline.before(user, known)
            starts = [timeline.before(user, known - length) for _, length in layout.windows]
        counted = running_totals(chosen.astype(np.int64))
        summed = None
        if label in valued:
            amount = np.where(chosen, events.value, 0.0)
            check_sums(amount, timeline.offsets, valued[label], label)
            summed = running_totals(to_fixed(amount, valued[label]))
        for (text, _), start in zip(layout.windows, starts, strict=True):
            yield f"count {label} {text}", (counted[now] - counted[start]).astype(np.float64)
            if summed is not None:
                yield f"sum {label} {text}", from_fixed(summed[now] - summed[start], valued[label])
        yield f"days since {label}", _days_since(chosen, events.time, first, now, time)

    if layout.sendable:
        yield from _message_columns(layout, history, user, time)
    yield from observed_shares(layout, time - history.observed_from[user])
    if layout.clock:
        yield from clock_columns(time)


def observed_shares(layout: Layout, since_start: IntArray) -> Iterator[tuple[str, FloatArray]]:
    """Yield the share of each window (N,) in which the user was observed, given microseconds since the start (N,).

    With it, a count of 0 in a window that lies before the user's own observation differs from one without events.
    """
    for text, length in layout.windows if layout.groups or layout.sendable else ():
        yield f"observed {text}", np.clip(since_start, 0, length) / length


def _message_columns(
    layout: Layout, history: History, user: IntArray, time: IntArray
) -> Iterator[tuple[str, FloatArray]]:
    decisions = history.decisions
    timeline = Timeline(decisions.time, history.decision_offsets)
    now = timeline.before(user, time)
    starts = [timeline.before(user, time - length) for _, length in layout.windows]
    first = timeline.offsets[user]
    for label, code in layout.sendable:
        chosen = decisions.actions[:, 0] != 0 if code == ANY_MESSAGE else decisions.actions[:, 0] == code
        sent = running_totals(chosen.astype(np.int64))
        for (text, _), start in zip(layout.windows, starts, strict=True):
            yield f"sent {label} {text}", (sent[now] - sent[start]).astype(np.float64)
        yield f"sent {label} ever", (sent[now] - sent[first]).astype(np.float64)
    any_sent = decisions.actions[:, 0] != 0
    yield "days since message", _days_since(any_sent, decisions.time, first, now, time)
    for label, m, code, length in layout.active:
        total = running_totals((any_sent & (decisions.actions[:, m] == code)).astype(np.int64))
        yield f"active {label}", (total[now] - total[timeline.before(user, time - length)]).astype(np.float64)


def _days_since(
    chosen: npt.NDArray[np.bool_], times: IntArray, first: IntArray, now: IntArray, time: IntArray
) -> FloatArray:
    row = np.where(chosen, np.arange(len(chosen)), -1)
    latest = np.concatenate([[-1], np.maximum.accumulate(row)])[now] if len(chosen) else np.full(len(now), -1)
    known = latest >= first
    stamp = times[np.where(known, latest, 0)] if len(times) else np.zeros(len(now), dtype=np.int64)
    return np.where(known, (time - stamp) / DAY, np.nan)


@dataclass(frozen=True)
class ContextFeatures:
    """Standardised context of decision slots, fitted on one history and applied to others.

    Counts, sums and days are transformed by `log(1 + x)`. Columns are standardised by the decisions of the fitted
    history, missing values become 0 (the mean), constant columns are dropped, and values are clipped to plus or minus
    `MAX_ABS_FEATURE`. Where every column is constant, a feature `constant` is 1.

    Attributes:
        layout: The raw columns.
        encoding: The user attributes.
        names: Names of the D features.
        mean: Means of the transformed columns (D,).
        scale: Their standard deviations (D,).
    """

    layout: Layout
    encoding: UserEncoding
    names: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, history: History, spec: ContextSpec | None = None) -> ContextFeatures:
        """Fit the columns, and their means and standard deviations, to all decisions of a history."""
        spec = spec or ContextSpec()
        layout = Layout.build(spec, history)
        encoding = UserEncoding.fit(history.users, spec.attributes, history.span[1])
        d = history.decisions
        names, mean, scale = [], [], []
        seen = set[str]()
        for name, column in _all_columns(layout, encoding, history, d.user, d.time):
            if name in seen:
                raise ConfigError(
                    f"two columns of the context have the name {name!r}, which stand for different things: rename the "
                    "event or the attribute, or leave it out of `context.events` or `context.attributes`"
                )
            seen.add(name)
            value = _transform(name, column)
            known = value[~np.isnan(value)]
            average = exact_mean(known)
            sd = exact_mean((known - average) ** 2) ** 0.5
            if sd > MIN_DEVIATION:
                names.append(name)
                mean.append(average)
                scale.append(sd)
        if not names:
            return cls(layout, encoding, (CONSTANT,), np.zeros(1), np.ones(1))
        return cls(layout, encoding, tuple(names), np.array(mean), np.array(scale))

    @property
    def dim(self) -> int:
        """Number of features D."""
        return len(self.names)

    @property
    def lookback(self) -> int:
        """Length of the longest window over which events are counted, microseconds; 0 if none are."""
        return max((length for _, length in self.layout.windows), default=0) if self.layout.groups else 0

    def covariates(self, history: History, shift: int = 0) -> FloatArray:
        """Return the features of every decision in double precision (n, D), for regressions.

        Args:
            history: The history.
            shift: Microseconds after each decision (before, if negative) at which the features are measured.
        """
        d = history.decisions
        return self._assemble(
            _all_columns(self.layout, self.encoding, history, d.user, d.time + shift), np.zeros((len(d), self.dim))
        )

    def transform(self, history: History) -> npt.NDArray[np.float32]:
        """Return the context of every decision of a history, (n, D)."""
        return self.at(history, history.decisions.user, history.decisions.time)

    def at(self, history: History, user: IntArray, time: IntArray) -> npt.NDArray[np.float32]:
        """Return the context (N, D) of users (N,) at times (N,), from what the history has strictly before them."""
        columns = _all_columns(self.layout, self.encoding, history, user, time)
        return self.assemble(columns, len(user))

    def assemble(self, columns: Iterator[tuple[str, FloatArray]], n: int) -> npt.NDArray[np.float32]:
        """Return the context (n, D) from raw columns by name, of `raw_columns` or of a simulator.

        Raises:
            ConfigError: If a column is missing.
        """
        return self._assemble(columns, np.zeros((n, self.dim), dtype=np.float32))

    def _assemble(self, columns: Iterator[tuple[str, FloatArray]], out: npt.NDArray[Any]) -> npt.NDArray[Any]:
        place = {name: j for j, name in enumerate(self.names)}
        if (j := place.pop(CONSTANT, None)) is not None:
            out[:, j] = 1.0
        for name, column in columns:
            j = place.pop(name, None)
            if j is not None:
                value = (_transform(name, column) - self.mean[j]) / self.scale[j]
                out[:, j] = np.clip(np.where(np.isnan(value), 0.0, value), -MAX_ABS_FEATURE, MAX_ABS_FEATURE)
        if place:
            raise ConfigError(f"the context needs columns that this history does not have: {sorted(place)}")
        return out

    def state_dict(self) -> dict[str, Any]:
        """Return the fitted features as mappings, lists, numbers and text, for checkpoints."""
        layout = {name: getattr(self.layout, name) for name in Layout.__dataclass_fields__}
        return {
            "layout": layout,
            "attributes": self.encoding.to_dict(),
            "names": self.names,
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> ContextFeatures:
        """Build the features that `state_dict` described.

        Raises:
            ConfigError: If a value is of another type, or the features have other numbers of means or scales.
        """
        names = convert(tuple[str, ...], state["names"], "names")
        mean, scale = (
            np.array(convert(tuple[float, ...], state[key], key), dtype=np.float64) for key in ("mean", "scale")
        )
        if not len(names) == len(mean) == len(scale) or not np.isfinite(mean).all() or not (scale > 0).all():
            raise ConfigError("the context's features do not have a mean and a positive scale each")
        layout = from_dict(Layout, state["layout"], "layout")
        return cls(layout, UserEncoding.from_dict(state["attributes"]), names, mean, scale)


def _all_columns(
    layout: Layout, encoding: UserEncoding, history: History, user: IntArray, time: IntArray
) -> Iterator[tuple[str, FloatArray]]:
    yield from raw_columns(layout, history, user, time)
    for name, column in encoding.columns(history.users):
        yield name, column[user]


def _transform(name: str, column: FloatArray) -> FloatArray:
    if name.startswith(("clock ", "user ")):
        return column
    return np.asarray(np.sign(column) * np.log1p(np.abs(column)))
