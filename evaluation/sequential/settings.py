"""Whether, and over which slots, a policy is valued as one that is followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.evaluation.sequential.trajectories import TrajectoryIndex, blocks, first_slots


@dataclass(frozen=True)
class TrajectorySettings:
    """The episodes over which a policy is followed.

    Attributes:
        slots: Slots of an episode, H. None: the policy is valued slot by slot only.
        starts: Where episodes begin. `first_slots` takes the first H slots of each user, `blocks` cuts all slots of a
            user into episodes of H slots, which begin where the logged policy has led the user.
        discount: What the reward of a slot is worth at the slot before.
    """

    slots: int | None = None
    starts: Literal["first_slots", "blocks"] = "first_slots"
    discount: float = 1.0

    def __post_init__(self) -> None:
        if self.slots is not None and self.slots < 1:
            raise ConfigError(f"slots {self.slots} is below 1: leave it out to value the policy slot by slot only")
        if self.starts not in ("first_slots", "blocks"):
            raise ConfigError(f"starts {self.starts!r} is neither 'first_slots' nor 'blocks'")
        # Written so that NaN is refused too.
        if not 0 <= self.discount <= 1:
            raise ConfigError(f"discount {self.discount} is not in [0, 1]")

    def cut(self, user: IntArray, order: npt.NDArray[Any], churned: BoolArray | None = None) -> TrajectoryIndex:
        """Cut the slots of a log into episodes: see `first_slots` and `blocks`.

        Raises:
            ConfigError: If there are no episodes.
            InputError: If shapes differ, two slots of a user have the same order, or a user has slots after churning.
            NotIdentified: If no episode is complete.
        """
        if self.slots is None:
            raise ConfigError("there are no episodes: set `slots`")
        cut = first_slots if self.starts == "first_slots" else blocks
        return cut(user, order, self.slots, churned)
