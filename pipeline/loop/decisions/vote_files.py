"""Votes of one decision time in files, written block by block and opened as arrays that the disk holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crosschannel.core.errors import OutputError
from crosschannel.pipeline.priced_votes import PricedVotes


@dataclass(frozen=True)
class VoteFiles:
    """Files with the votes of all rows, one for each array.

    Blocks are written with a file's own calls and not through a mapped array: on a full disk the former fail with an
    error, where the latter would end the process.

    Attributes:
        folder: Where the files are.
        rows: Number of rows N.
        arrays: Type of each array, its shape, and the axis of its rows.
        floor: Probability of a uniform draw in the first module.
    """

    folder: Path
    rows: int
    arrays: dict[str, tuple[str, tuple[int, ...], int]]
    floor: float

    @classmethod
    def create(cls, folder: Path, rows: int, like: PricedVotes) -> VoteFiles:
        """Make the files for a number of rows, of votes that are like some others.

        Raises:
            OutputError: If they cannot be made.
        """
        kinds = {
            name: (array.dtype.str, (*array.shape[:axis], rows, *array.shape[axis + 1 :]), axis)
            for name, (array, axis) in like.arrays().items()
        }
        found = cls(folder, rows, kinds, like.floor)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for name, (kind, shape, _) in kinds.items():
            with writing(found._path(name)), found._path(name).open("wb") as file:
                file.truncate(np.dtype(kind).itemsize * math.prod(shape))
        return found

    def write(self, start: int, votes: PricedVotes) -> None:
        """Write the votes of a block of rows, from a row on; other blocks may be written at the same time.

        Raises:
            OutputError: If they cannot be written, such as on a full disk.
        """
        for name, (array, axis) in votes.arrays().items():
            with writing(self._path(name)), self._path(name).open("r+b") as file:
                for k, part in enumerate(array if axis else array[None]):
                    size = part.itemsize * math.prod(part.shape[1:])
                    file.seek((k * self.rows + start) * size)
                    file.write(part.tobytes())

    def read(self) -> PricedVotes:
        """Open the votes of all rows, mapped from the disk: the system keeps in memory as much of them as fits."""
        mapped = {
            name: np.asarray(np.memmap(self._path(name), dtype=kind, mode="r", shape=shape))
            for name, (kind, shape, _) in self.arrays.items()
        }
        return PricedVotes.from_arrays(mapped, self.floor)

    def read_block(self, rows: slice) -> PricedVotes:
        """Return the votes of a block of rows."""
        whole = self.read().arrays()
        mine = {name: array[(slice(None),) * axis + (rows,)] for name, (array, axis) in whole.items()}
        return PricedVotes.from_arrays(mine, self.floor)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.bin"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report what prevents a file or folder from being written as an error of the output."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None
