"""A fingerprint of a history: equal for equal logs, so that a run can say whether its log has changed since."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np

from crosschannel.core.hashing import keys
from crosschannel.histories.history import History


def fingerprint(history: History) -> str:
    """A 128-bit digest, as text, of all that a history holds: decisions, events, users, modules and observed time."""
    digest = hashlib.blake2b(digest_size=16)

    def add(*parts: object) -> None:
        for part in parts:
            digest.update(repr(part).encode())

    add(history.span, history.event_names, history.modules.to_dict())
    for table in (history.decisions, history.events):
        for field in fields(table):
            array = getattr(table, field.name)
            add(field.name, None if array is None else array.shape)
            if array is not None:
                flat = keys(array) if array.dtype.kind in "OU" else array
                digest.update(np.ascontiguousarray(flat).tobytes())
    columns = {} if history.users is None else {str(name): history.users[name] for name in history.users.columns}
    for name, column in {"user_id": history.user_ids, **columns}.items():
        add(name)
        digest.update(keys(np.asarray(column, dtype=object).astype(str).astype(object)).tobytes())
    return digest.hexdigest()
