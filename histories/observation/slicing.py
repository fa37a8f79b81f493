"""Parts of a history in time: as it was at an earlier time, and without what is long past."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import NEVER
from crosschannel.histories.history import History
from crosschannel.histories.logs import renumber_messages, rows_after_selection, take_rows


def until(history: History, time: int) -> History:
    """Return what a history had strictly before a time; later time is not observed, and decisions for it are left out.

    Users whose observation begins later are left out.

    Args:
        history: The history.
        time: Microseconds since 1970 UTC, within the history's span.

    Raises:
        ConfigError: If the time is not after the start of the span.
    """
    start, end = history.span
    if time <= start:
        raise ConfigError(f"{history.name} begins later than the time up to which it is wanted")
    decided, known = history.decisions.time < time, history.observed_from < time
    if time >= end and decided.all() and known.all():
        return history
    events = take_rows(history.events, history.events.time < time)
    past = replace(
        history,
        decisions=take_rows(history.decisions, decided),
        events=renumber_messages(events, rows_after_selection(decided)),
        span=(start, min(time, end)),
        observed_from=np.minimum(history.observed_from, time),
        observed_until=np.minimum(history.observed_until, time),
    )
    return past if known.all() else past.select_users(known)


def since(history: History, time: int) -> History:
    """Return a history without what came before a time, which then counts as not observed, but for who had churned.

    Args:
        history: The history.
        time: Microseconds since 1970 UTC, before the end of the history's span.

    Raises:
        ConfigError: If the time is not before the end of the span.
    """
    start, end = history.span
    if time >= end:
        raise ConfigError(f"{history.name} ends before the time from which on it is wanted")
    if time <= start:
        return history
    decided = history.decisions.time >= time
    events = take_rows(history.events, history.events.time >= time)
    return replace(
        history,
        decisions=take_rows(history.decisions, decided),
        events=renumber_messages(events, rows_after_selection(decided)),
        span=(time, end),
        observed_from=np.maximum(history.observed_from, time),
        observed_until=np.maximum(history.observed_until, time),
        earlier=None,
        churned_before=np.where(history.churned_at < time, history.churned_at, NEVER),
    )
