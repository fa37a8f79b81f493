"""Context of simulated users at a slot: the same features that a logged history would give there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, HOUR, SECOND, duration
from crosschannel.envs.market.dynamics.calendar import slot_time
from crosschannel.envs.market.dynamics.users import Users
from crosschannel.envs.market.state import NEVER, MarketState
from crosschannel.envs.market.vocabulary import (
    BASKET,
    CELL_HOURS,
    CHANNELS,
    EVENTS,
    ORDER,
    SENT,
    SERVICES,
    START,
)
from crosschannel.histories.context.activity import Activity, block_of_day
from crosschannel.histories.context.columns import clock_columns, observed_shares
from crosschannel.histories.features import ContextFeatures, ContextSpec, Layout

_N_ORDERS = len(SERVICES)


def observable_features(state: MarketState, layout: Layout) -> Iterator[tuple[str, FloatArray]]:
    """Yield names and raw features (N,) at the users' next slots, equal to the last bit to those of a logged history.

    Raises:
        ConfigError: If the market does not count what the layout has (see `check_countable`), or has other channels.
    """
    channels = tuple((name, code) for code, name in enumerate(CHANNELS) if code > 0)
    if layout.sendable != channels or layout.active:
        raise ConfigError(f"the context was not fitted on a history of the market, whose channels are {list(CHANNELS)}")
    check_countable([text for text, _ in layout.windows])
    windows = [(text, state.window(length // DAY, 0)) for text, length in layout.windows]
    for label, members in layout.groups:
        events = [EVENTS.index(name) for name in members if name in EVENTS]
        valued = [event - ORDER + BASKET if ORDER <= event < ORDER + _N_ORDERS else event for event in events]
        for text, counts in windows:
            yield f"count {label} {text}", counts[:, events].sum(1).astype(np.float64)
            if label in dict(layout.valued):
                yield f"sum {label} {text}", counts[:, valued].sum(1).astype(np.float64)
        second = state.last[:, events].max(1, initial=NEVER)
        yield f"days since {label}", _days_since(state, second * SECOND, second == NEVER)
    for label, code in layout.sendable:
        for text, counts in windows:
            yield f"sent {label} {text}", counts[:, SENT + code - 1].astype(np.float64)
        yield f"sent {label} ever", state.total[np.arange(len(state)), state.day, SENT + code - 1].astype(np.float64)
    yield "days since message", _days_since(state, state.last_sent * DAY, state.last_sent == NEVER)
    yield from observed_shares(layout, slot_time(state.day) - START)
    if layout.clock:
        yield from clock_columns(slot_time(state.day), layout.time_zone)
    if layout.activity is not None:
        yield from _activity_features(state, layout.activity)


def _activity_features(state: MarketState, activity: Activity) -> Iterator[tuple[str, FloatArray]]:
    events = [EVENTS.index(name) for name in activity.events if name in EVENTS]
    blocks, weekend = activity.blocks, activity.weekend
    hours, days = () if blocks is None else blocks.hours, () if weekend is None else weekend.days
    check_countable((), hours, activity.time_zone)
    by_cell = state.by_cell[:, :, events].sum(2)
    total = by_cell.sum(1)
    by_block = []
    if hours:
        of_cell = block_of_day(np.array(CELL_HOURS) * HOUR, hours)
        by_block = [by_cell[:, of_cell == b].sum(1) for b in range(len(hours))]
    at_weekend = state.by_weekday[:, list(days)][:, :, events].sum((1, 2))
    time = slot_time(state.day)
    yield from activity.columns(by_block, at_weekend, total, np.full_like(time, START), time)


def check_countable(windows: Sequence[str], hours: Sequence[int] = (), time_zone: str = "UTC") -> None:
    """Check that the market counts what a context needs: by day, and by cell of the day.

    Args:
        windows: Trailing windows.
        hours: Hours of the day at which blocks begin.
        time_zone: Zone of these hours and of the weekend.

    Raises:
        ConfigError: If a window is not a whole number of days, or a block or a weekend begins within a cell.
    """
    for text in windows:
        if duration(text) % DAY:
            raise ConfigError(f"context window {text!r} is not a whole number of days: the market counts events by day")
    if other := sorted(set(hours) - set(CELL_HOURS)):
        raise ConfigError(
            f"context blocks begin at hours {other}: the market counts events by blocks that begin at some of the "
            f"hours {sorted(CELL_HOURS)}"
        )
    if time_zone != "UTC":
        raise ConfigError(
            f"context time_zone {time_zone!r} is not UTC: the market counts events by blocks and days in UTC"
        )


def check_context(spec: ContextSpec) -> None:
    """Check that the market counts what the settings of a context need, before anything is simulated.

    Raises:
        ConfigError: If it does not: see `check_countable`.
    """
    timed = bool(spec.blocks or spec.weekend)
    check_countable(spec.windows, spec.blocks, spec.time_zone if timed else "UTC")


def _days_since(state: MarketState, since_start: IntArray, never: npt.NDArray[np.bool_]) -> FloatArray:
    return np.where(never, np.nan, (state.day * DAY - since_start) / DAY)


def attribute_features(features: ContextFeatures, users: Users) -> dict[str, FloatArray]:
    """Return raw features (N,) of the users' observable attributes, by name."""
    return dict(features.encoding.columns(users.attributes()))


def build_context(
    features: ContextFeatures, state: MarketState, attributes: dict[str, FloatArray]
) -> npt.NDArray[np.float32]:
    """Return the context (N, D) at the users' next slots, given the features of their attributes."""

    def raw_features() -> Iterator[tuple[str, FloatArray]]:
        yield from observable_features(state, features.layout)
        yield from attributes.items()

    return features.assemble(raw_features(), len(state))
