"""Context of simulated users at a slot: the same features that a logged history would give there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, SECOND
from crosschannel.envs.market.dynamics.calendar import slot_time
from crosschannel.envs.market.dynamics.users import Users
from crosschannel.envs.market.state import NEVER, MarketState
from crosschannel.envs.market.vocabulary import BASKET, CHANNELS, EVENTS, ORDER, SENT, SERVICES, START
from crosschannel.histories.features import ContextFeatures, Layout, clock_columns, observed_shares

_N_ORDERS = len(SERVICES)


def observable_features(state: MarketState, layout: Layout) -> Iterator[tuple[str, FloatArray]]:
    """Yield names and raw features (N,) at the users' next slots, equal to the last bit to those of a logged history.

    Raises:
        ConfigError: If a window is not a whole number of days, or the layout has other channels.
    """
    channels = tuple((name, code) for code, name in enumerate(CHANNELS) if code > 0)
    if layout.sendable != channels or layout.active:
        raise ConfigError(f"the context was not fitted on a history of the market, whose channels are {list(CHANNELS)}")
    windows = []
    for text, length in layout.windows:
        if length % DAY:
            raise ConfigError(f"context window {text!r} is not a whole number of days: the market counts events by day")
        windows.append((text, state.window(length // DAY, 0)))

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
        yield from clock_columns(slot_time(state.day))


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
