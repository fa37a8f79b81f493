"""When to learn anew from all rows: as they grow, and once where no more come."""

from __future__ import annotations

from collections.abc import Mapping


class Schedule:
    """Says when a fit that costs more the more rows there are is due, so that all of them together cost little.

    Args:
        growth: The fit is due when the rows have grown by this factor since the last one.
    """

    def __init__(self, growth: float) -> None:
        self._growth = growth
        self._fitted = 0
        self._asked = 0

    def due(self, seen: int) -> bool:
        """Whether to fit now that `seen` rows have come; where it says so, they count as fitted.

        The last rows are taken in at the second question without a new row.
        """
        due = seen > self._fitted and (seen >= self._growth * self._fitted or seen == self._asked)
        self._asked = seen
        if due:
            self._fitted = seen
        return due

    def state_dict(self) -> dict[str, int]:
        """How many rows were fitted, and how many there were when it was last asked."""
        return {"fitted": self._fitted, "asked": self._asked}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The inverse of `state_dict`."""
        self._fitted, self._asked = int(state["fitted"]), int(state["asked"])
