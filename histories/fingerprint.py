"""The digest of all that a history holds, by which runs and stored states know their log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from crosschannel.core.arrays import IntArray
from crosschannel.core.hashing import keys, label_keys
from crosschannel.histories.logs import DecisionLog, EventLog


def fingerprint_of(
    facts: Sequence[object],
    observed: Sequence[IntArray],
    decisions: DecisionLog,
    events: EventLog,
    user_columns: Mapping[str, object],
) -> str:
    """Return a 128-bit digest, as text, of the parts of a history: equal logs have equal ones.

    Args:
        facts: What holds for the whole log, as values whose `repr` is the same in every process.
        observed: When the users' observation begins and ends (U,), microseconds.
        decisions: The decisions.
        events: The events.
        user_columns: Columns (U,) of the users' ids and attributes, by name.
    """
    digest = hashlib.blake2b(digest_size=16)

    def add(*parts: object) -> None:
        for part in parts:
            digest.update(repr(part).encode())

    add(*facts)
    for times in observed:
        digest.update(np.ascontiguousarray(times).tobytes())
    for table in (decisions, events):
        for f in fields(table):
            array = getattr(table, f.name)
            if array is None and f.name == "message":
                continue  # logs of versions without this column keep their digest
            add(f.name, None if array is None else array.shape)
            if array is not None:
                flat = array
                if array.dtype.kind in "OU":
                    flat = decisions.key if f.name == "id" else label_keys(array)
                digest.update(np.ascontiguousarray(flat).tobytes())
    for name, column in user_columns.items():
        add(name)
        digest.update(keys(np.asarray(column, dtype=object).astype(str).astype(object)).tobytes())
    return digest.hexdigest()
