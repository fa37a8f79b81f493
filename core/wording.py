"""Numbers in sentences."""

from __future__ import annotations

import numpy as np

from crosschannel.core.times import timestamps


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which is in the plural unless the number is 1: `1 day`, `1,200 users`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def log_in_words(
    name: str, users: str, decisions: int, sent: int, events: int, kinds: int, span: tuple[int, int]
) -> str:
    """Return a line on what a log holds: its users in words, decisions, events, and the span, microseconds."""
    first, last = timestamps(np.array(span))
    return (
        f"{name}: {users}, {counted(decisions, 'decision')} ({sent:,} sent), {counted(events, 'event')} of "
        f"{counted(kinds, 'kind')}, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    )
