"""Where the time before a decision ends and the time after it begins, if events have the decision's own time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.times import HOUR
from crosschannel.histories.goals import GOALS_SETTING, Goal
from crosschannel.histories.history import History
from crosschannel.histories.observation.users import (
    are_dates,
    are_dates_of_several_zones,
    beginnings,
    dates_among_times,
    resolution,
    start_of_date,
    tied_events,
)
from crosschannel.histories.windows import Timeline

#: With a larger share of goal events at exactly a decision's time, their order must be declared.
MAX_UNDECLARED_TIES = 0.05


def boundaries(history: History, goals: Sequence[Goal]) -> IntArray:
    """Return where the time before each decision ends and the time after it begins, microseconds (n,).

    The windows are `[boundary - pre, boundary)` and `[boundary, boundary + post)`. With ties before, they are
    `(t - pre, t]` and `(t, t + post]`; with ties after, `[t - pre, t)` and `[t, t + post)`. Both rules divide time
    without gap or overlap. Where goal events are dates without a time of day, ties after begin with the decision's day,
    so that windows of whole days hold whole dates; and where their clock counts hours, with the decision's hour.
    """
    time = history.decisions.time
    if history.ties != "after":
        return time + 1
    times = [history.events.time[_are_of(history, [goal.event])] for goal in goals]
    if any(map(are_dates, times)):
        return start_of_date(time, np.concatenate(times))
    length, origin = (
        max((resolution(one), int(one[0])) for one in times if len(one)) if any(map(len, times)) else (1, 0)
    )
    return np.asarray(time - (time - origin) % length)


def check_order_is_known(history: History, goals: Sequence[Goal]) -> None:
    """Refuse to measure where it is not known which goal events came before a decision and which after it.

    Raises:
        ConfigError: If `ties: after` is declared, and some goal events are dates (or have a coarser clock) and others
            are not, or if they are dates of several time zones.
        NotIdentified: If `ties` is not declared, and the events of a goal are dates without a time of day, some of them
            those of a decision of their user; if only a part of them are dates; or if more than `MAX_UNDECLARED_TIES`
            of all goal events are at exactly the time of a decision of their user, as far as their clock says.
    """
    if history.ties == "before":
        return
    rows = {goal.event: _are_of(history, [goal.event]) for goal in goals}
    times = {event: history.events.time[chosen] for event, chosen in rows.items()}
    dates = [event for event, time in times.items() if are_dates(time)]
    zones = [event for event, time in times.items() if are_dates_of_several_zones(time)]
    _refuse_dates_among_times(history, rows)
    if history.ties == "after":
        others = [event for event, time in times.items() if event not in dates and len(time)]
        if dates and others:
            raise ConfigError(
                f"{history.name}: the events of {dates} are dates without a time of day, but those of {others} have "
                "times, so that no windows with `ties: after` are right for both. Measure them in two configurations"
            )
        if zones:
            raise ConfigError(
                f"{history.name}: the events of {zones} are dates of several time zones, so that no windows with "
                "`ties: after` are right for all. Export the dates without a zone: they are then days of one"
            )
        if len({resolution(time) for time in times.values() if len(time)} if not dates else ()) > 1:
            raise ConfigError(
                f"{history.name}: the clocks of {list(times)} are of different precision, so that no windows with "
                "`ties: after` are right for all. Measure them in two configurations"
            )
        return
    chosen = np.logical_or.reduce(list(rows.values()))
    share = float(_ambiguous(history, rows)[chosen].mean()) if chosen.any() else 0.0
    if (dates or zones) and _on_date_of_decision(history, _are_of(history, dates + zones)).any():
        what = f"the events of {dates + zones} are dates without a time of day"
    elif share > MAX_UNDECLARED_TIES:
        coarsest = max(map(resolution, times.values()))
        clock = f", as far as their clock of {coarsest / HOUR:g} h says" if coarsest > 1 else ""
        what = f"{share:.0%} of the goal events are at exactly the time of a decision of their user{clock}"
    else:
        return
    raise NotIdentified(
        f"{history.name}: {what}, so that the log does not say whether they came before the message or after it, and "
        "no reward is identified. Export them with their time, or declare history.ties: 'before' if the event came "
        "first (such as the purchase that triggers a message; crediting it to the message would invent an effect), or "
        "'after' if the message came first (such as a campaign that is sent in the morning of each date)"
    )


def _refuse_dates_among_times(history: History, rows: Mapping[str, BoolArray]) -> None:
    """Refuse goals of which some events are dates and others have times: no windows are right for both.

    Args:
        history: The log.
        rows: The events of each goal (e,), by its name.
    """
    for event, of_goal in rows.items():
        time = history.events.time[of_goal]
        mixed = dates_among_times(time)
        chosen = of_goal.copy()
        chosen[of_goal] = mixed
        if not mixed.any() or not _on_date_of_decision(history, chosen).any():
            continue
        at = pd.Timestamp(int(time[mixed][0]), unit="us")
        problem = (
            f"{history.name}: {mixed.mean():.0%} of the events of {event!r} are at exactly {at:%H:%M:%S} UTC, as "
            "dates without a time of day are, and the others have times, so that"
        )
        remedy = "Give those without a time of day a name of their own, or leave them out"
        if history.ties == "after":
            raise ConfigError(f"{problem} no windows with `ties: after` are right for both. {remedy}")
        raise NotIdentified(
            f"{problem} the log does not say which came before the message, and no reward is identified. {remedy}; or, "
            "if these are times, or such events came before the message, declare history.ties: 'before'"
        )


def _ambiguous(history: History, rows: Mapping[str, BoolArray]) -> BoolArray:
    """Return which events (e,) may have been before or after a decision of their user, as far as their clock says."""
    out = np.array(history.tied)
    e, decisions = history.events, Timeline(history.decisions.time, history.decision_offsets)
    for chosen in rows.values():
        user, time = e.user[chosen], e.time[chosen]
        if (length := resolution(time)) > 1:
            out[chosen] |= decisions.before(user, time + length) > decisions.before(user, time)
    return out


def _are_of(history: History, names: Sequence[str]) -> BoolArray:
    """Return which events have one of the names (e,)."""
    return history.are_events(names, GOALS_SETTING)


def _on_date_of_decision(history: History, chosen: BoolArray) -> BoolArray:
    """Return which of the chosen events (e,), which are dates, have the date of a decision of their user."""
    d, dates = history.decisions, history.events.time[chosen]
    stamp = start_of_date(d.time, dates) + (dates - beginnings(dates)).max(initial=0)
    decisions = Timeline(stamp, history.decision_offsets)
    events = Timeline(history.events.time, history.event_offsets)
    return tied_events(events, decisions, d.user)[chosen]
