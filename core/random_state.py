"""States of random generators as plain values, for checkpoints that are read with `weights_only=True`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def generator_state(rng: np.random.Generator) -> str:
    """The state of a generator as text: its integers are too long for a tensor."""
    return json.dumps(rng.bit_generator.state)


def restore_generator(rng: np.random.Generator, state: str) -> None:
    """Sets a generator to a saved state."""
    saved: dict[str, Any] = json.loads(state)
    rng.bit_generator.state = saved
