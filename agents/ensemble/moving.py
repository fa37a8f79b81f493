"""The state of a learner whose cells have changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crosschannel.core.action_changes import carry_over
from crosschannel.core.arrays import IntArray


def moved_state(
    fresh: Mapping[str, Any], state: Mapping[str, Any], network: Mapping[str, Any], place: IntArray
) -> dict[str, Any]:
    """Return a learner's state in the places of other cells: new ones start from the prior draws of a fresh learner.

    Args:
        fresh: State of an untrained learner of the present cells.
        state: State of the learner of the earlier cells.
        network: The earlier network's state, moved.
        place: Where each cell was before (cells,); -1 for new cells.

    Raises:
        RuntimeError: If the earlier learner has another shape.
    """
    if state["own"].shape[1:] != fresh["own"].shape[1:]:
        raise RuntimeError(f"its heads are of shape {list(state['own'].shape[1:])}, not {list(fresh['own'].shape[1:])}")
    features = state["own"].shape[1]

    def moved(saved: Tensor, new: Tensor) -> Tensor:
        return torch.from_numpy(carry_over(saved.numpy(), place, new.numpy()))

    before, empty = state["statistics"], fresh["statistics"]
    statistics = {
        name: torch.stack([moved(fold, empty[name][0]) for fold in before[name]]) for name in ("gram", "moment")
    }
    return {
        **state,
        "network": network,
        "heads": fresh["heads"],
        "common": torch.cat([state["common"][:features], fresh["common"][features:]]),
        "own": moved(state["own"], fresh["own"]),
        "statistics": {**before, **statistics},
    }
