"""Sends that follow what their users did since the slot: the summary and every verdict name them."""

from __future__ import annotations

import numpy as np

from crosschannel.histories.history import CAUTION
from crosschannel.histories.readers.stream.notes import trigger_notes


def slots(triggered: float, seed: int = 0, by_level: bool = False) -> list[str]:
    """Return the notes on 200 users with 20 slots, of whose sends a share answers an event of the slot."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(200), 20)
    level = rng.uniform(0.05, 0.5, 200)[user]
    busy = rng.random(len(user)) < level
    sent = rng.random(len(user)) < (level if by_level else 0.3)
    busy |= sent & (rng.random(len(user)) < triggered)
    return trigger_notes(user[sent], busy[sent], user[~sent], busy[~sent])


def test_sends_that_answer_events_are_a_caution() -> None:
    (note,) = slots(triggered=0.5)
    assert note.startswith(f"{CAUTION}messages follow what users do")


def test_random_sends_and_sends_to_active_users_are_none() -> None:
    for seed in range(20):
        assert slots(0.0, seed) == []
        assert slots(0.0, seed, by_level=True) == []


def test_users_without_an_empty_slot_say_nothing() -> None:
    user = np.zeros(30, dtype=np.int64)
    assert trigger_notes(user, np.ones(30, dtype=bool), np.ones(5, dtype=np.int64), np.zeros(5, dtype=bool)) == []
