"""Rows of a known world in leaves on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crosschannel.agents import Batch
from crosschannel.agents.leaves.leaves import Leaves
from crosschannel.agents.leaves.rows import LeafRows
from tests.agents.funnel.samples import PLAIN, World

WORLD = World(missed=0.3, direct_of_push=0.2)


def write_leaves(batch: Batch, folder: Path, n: int = 16) -> Leaves:
    """Write rows into leaves by a hash of their users."""
    rows = LeafRows.from_batch(batch)
    leaf = (rows.user % np.uint64(n)).astype(np.int64)
    order = np.lexsort((rows.key, rows.user))
    paths = tuple(folder / f"leaf-{k:04d}" for k in range(n))
    for k, path in enumerate(paths):
        rows[order[leaf[order] == k]].write(path)
    sent = PLAIN.sends(batch.actions)
    assert batch.components is not None
    return Leaves(
        parts=paths,
        modules=PLAIN,
        rows=len(rows),
        messages=int(sent.sum()),
        controls=int((~sent).sum()),
        costs=batch.components.costs(),
        funnel=True,
    )
