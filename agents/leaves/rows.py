"""The rows of a leaf on disk: what an agent learns from, in a fixed order, read in blocks of fixed size."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from crosschannel.agents.base import ROW_COMPONENTS, Batch, Components, Observations
from crosschannel.agents.funnel.rows import FunnelRows, fold_of
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import Float32Array, UIntArray
from crosschannel.core.errors import ConfigError, OutputError

#: Rows that are in memory at once; a block may end within a leaf, and may reach into the next one.
ROWS_PER_BLOCK = 1 << 16
DESCRIPTION_FILE = "leaf.json"


@dataclass(frozen=True)
class LeafRows:
    """Rows of users that are in the same leaf, or a block of them: n decisions with a reward.

    They come in the order of (user, time, decision), each by its hash or its number, which no division of the log
    changes.

    Attributes:
        context: Features (n, D) float32.
        actions: Codes (n, M) int16.
        reward: Rewards (n,) float32.
        se: Their standard errors (n,) float32.
        key: Hashes of the decision ids (n,) uint64.
        user: Hashes of the user ids (n,) uint64.
        engaged: Whether the message was engaged with (n,) float32, NaN where that is not known; None without a funnel.
        value: Incremental value without cost events (n,) float32, NaN where it is not identified.
        cost: Whether each cost event occurred (n, C) float32, NaN where that is not known.
        odds: Odds of a message where nothing was sent (n,) float32.
    """

    context: Float32Array
    actions: npt.NDArray[np.int16]
    reward: Float32Array
    se: Float32Array
    key: UIntArray
    user: UIntArray
    engaged: Float32Array | None = None
    value: Float32Array | None = None
    cost: Float32Array | None = None
    odds: Float32Array | None = None

    def __len__(self) -> int:
        return len(self.reward)

    def __getitem__(self, rows: Any) -> LeafRows:
        """Return some rows, copied into memory."""
        return LeafRows(**{name: np.array(column[rows]) for name, column in self._columns().items()})

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: column for name, column in found.items() if column is not None}

    @classmethod
    def joined(cls, parts: Sequence[LeafRows]) -> LeafRows:
        """Join the rows of some parts, in order."""
        if len(parts) == 1:
            return parts[0]
        columns = [part._columns() for part in parts]
        return cls(**{name: np.concatenate([each[name] for each in columns]) for name in columns[0]})

    @classmethod
    def from_batch(cls, batch: Batch) -> LeafRows:
        """Convert rows with users, in their order."""
        assert batch.observations.users is not None  # rows of a log have users
        parts = batch.components
        funnel = {} if parts is None else {n: getattr(parts, n).astype(np.float32) for n in ROW_COMPONENTS}
        return cls(
            context=np.asarray(batch.observations.context, dtype=np.float32),
            actions=batch.actions.astype(np.int16),
            reward=batch.rewards.astype(np.float32),
            se=batch.se.astype(np.float32),
            key=batch.keys,
            user=batch.observations.users,
            **funnel,
        )

    def to_batch(self, modules: ActionSpace, costs: dict[str, float]) -> Batch:
        """Return the rows as an agent observes them; all actions count as eligible, which no fit reads."""
        components = None
        if self.engaged is not None:
            assert self.value is not None
            assert self.cost is not None
            assert self.odds is not None
            weights = np.array(list(costs.values()), dtype=np.float64)
            columns = (self.engaged, self.value, self.cost, self.odds)
            engaged, value, cost, odds = (column.astype(np.float64) for column in columns)
            components = Components(
                engaged=engaged, value=value, cost=cost, odds=odds, cost_names=tuple(costs), cost_weights=weights
            )
        mask = np.ones((len(self), modules.total), dtype=bool)
        return Batch(
            observations=Observations(self.context, mask, self.user),
            actions=self.actions.astype(np.int64),
            rewards=self.reward.astype(np.float64),
            se=self.se.astype(np.float64),
            keys=self.key,
            components=components,
        )

    def without_components(self) -> LeafRows:
        """Return the rows without the parts of their rewards."""
        return replace(self, engaged=None, value=None, cost=None, odds=None)

    def funnel_rows(self) -> FunnelRows:
        """Return rows with components in double precision, whose sums do not depend on how they are cut into blocks."""
        assert self.engaged is not None
        assert self.value is not None
        assert self.cost is not None
        assert self.odds is not None
        columns = (self.context, self.reward, self.engaged, self.value, self.cost, self.odds)
        context, reward, engaged, value, cost, odds = (torch.from_numpy(column).double() for column in columns)
        return FunnelRows(
            x=context,
            actions=self.actions.astype(np.int64),
            reward=reward,
            engaged=engaged,
            value=value,
            cost=cost,
            odds=odds,
            fold=fold_of(self.user),
            user=torch.from_numpy(self.user.view(np.int64)),
            key=torch.from_numpy(self.key.view(np.int64)),
        )

    def write(self, folder: Path) -> str:
        """Write the rows into a folder that does not exist yet, as a whole or not at all; return their digest.

        Raises:
            OutputError: If the folder cannot be written.
        """
        draft = folder.with_name(folder.name + ".part")
        columns = {name: np.ascontiguousarray(column) for name, column in self._columns().items()}
        digest = _digest(columns)
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            for name, column in columns.items():
                np.save(draft / f"{name}.npy", column, allow_pickle=False)
            content = {"rows": len(self), "columns": list(columns), "digest": digest}
            (draft / DESCRIPTION_FILE).write_text(json.dumps(content))
            os.replace(draft, folder)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None
        return digest

    @classmethod
    def open(cls, folder: Path, *, check: bool = False) -> LeafRows:
        """Open rows that `write` wrote, memory-mapped.

        Args:
            folder: The folder.
            check: Read all of them, and compare their digest with the one that was written.

        Raises:
            ConfigError: If the folder is not complete, or was changed.
        """
        try:
            content = json.loads((folder / DESCRIPTION_FILE).read_text())
            names = [name for name in content["columns"] if name in cls.__dataclass_fields__]
            columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
            found = cls(**columns)
            if any(len(column) != content["rows"] for column in columns.values()):
                raise ValueError("a column has another number of rows")
            if check and _digest(columns) != content["digest"]:
                raise ValueError("the digest of its rows is another one")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{folder} does not hold the rows of a leaf as they were written: {error}") from None
        return found


def opened(leaf: Path | LeafRows) -> LeafRows:
    """Return the rows of a leaf, from its folder where they are not in memory."""
    return leaf if isinstance(leaf, LeafRows) else LeafRows.open(leaf)


def _digest(columns: dict[str, npt.NDArray[Any]]) -> str:
    """Return a digest of columns, by name, type, shape and content."""
    out = hashlib.blake2b(digest_size=16)
    for name, column in columns.items():
        out.update(f"{name} {column.dtype.str} {column.shape}".encode())
        out.update(np.ascontiguousarray(column).data.cast("B") if column.size else b"")
    return out.hexdigest()


def blocks(leaves: Sequence[Path | LeafRows], size: int = ROWS_PER_BLOCK) -> Iterator[LeafRows]:
    """Yield the rows of some leaves, in their order, in blocks of a size; the last one may be smaller.

    Args:
        leaves: The folder of each leaf, or its rows where they are in memory.
        size: Rows of a block.
    """
    held: list[LeafRows] = []
    have = 0
    for each in leaves:
        leaf, start = opened(each), 0
        while start < len(leaf):
            part = leaf[start : start + size - have]
            held.append(part)
            have, start = have + len(part), start + len(part)
            if have == size:
                yield LeafRows.joined(held)
                held, have = [], 0
    if held:
        yield LeafRows.joined(held)
