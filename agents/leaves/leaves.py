"""The leaves of a log, how passes run over them, and hashed samples of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from crosschannel.agents.base import Batch
from crosschannel.agents.leaves.rows import ROWS_PER_BLOCK, LeafRows, blocks, opened
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.hashing import in_sample

#: Leaves whose rows are summed one after the other by one call; the sums of such groups are added in their order.
LEAVES_PER_TASK = 8

Result = TypeVar("Result")
Task = tuple[Path | LeafRows, ...]
#: Runs a function over tasks and yields the results in their order, as the engines of `crosschannel.engines` do.
RunOverTasks = Callable[[Callable[[Task], Any], Sequence[Task]], Iterator[Any]]


@dataclass(frozen=True)
class Leaves:
    """The rows of all leaves of users, on disk or in memory.

    Attributes:
        parts: The folder of each leaf, in the order of the leaves: see `LeafRows.write`; or its rows.
        modules: The action space of the rows.
        rows: Number of rows.
        messages: Number of rows with a value in which something was sent; 0 without a funnel.
        controls: Number of rows with a value in which nothing was sent; 0 without a funnel.
        costs: Price of each cost event of the funnel, in reward units.
        funnel: Whether the rows have components.
        per_task: Number of leaves that one call sums; it depends on nothing but the numbers of leaves and rows.
    """

    parts: tuple[Path | LeafRows, ...]
    modules: ActionSpace
    rows: int
    messages: int = 0
    controls: int = 0
    costs: Mapping[str, float] = field(default_factory=dict)
    funnel: bool = False
    per_task: int = LEAVES_PER_TASK

    @property
    def tasks(self) -> list[Task]:
        """The groups of leaves that one call sums, in their order."""
        return [self.parts[k : k + self.per_task] for k in range(0, len(self.parts), self.per_task)]

    def sample(self, size: int, salt: int, run: RunOverTasks) -> Batch:
        """Return about `size` rows without components, chosen by a hash of their decisions, whatever the division."""
        share = min(1.0, size / max(self.rows, 1))
        parts = [part for part in run(partial(sampled, share=share, salt=salt), self.tasks) if len(part)]
        rows = LeafRows.joined(parts or [opened(self.parts[0])[:]])
        return rows.without_components().to_batch(self.modules, {})


def leaves_per_task(rows: int, leaves: int) -> int:
    """Return how many leaves one call sums: all where they have few rows, which cost less than sums of many columns."""
    return leaves if rows <= ROWS_PER_BLOCK else LEAVES_PER_TASK


def sampled(folders: Task, share: float, salt: int) -> LeafRows:
    """Return the sampled rows of some leaves."""
    return LeafRows.joined([part[in_sample(part.key, share, salt)] for part in blocks(folders)] or [_none_of(folders)])


def _none_of(folders: Task) -> LeafRows:
    return opened(folders[0])[:0]
