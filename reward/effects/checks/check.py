"""The record of one diagnostic, and the level and the size at which it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SIGNIFICANCE_LEVEL = 0.05
#: Share of the effect below which a bias is not reported as a failure: with very many users any difference is certain,
#: and intervals are mostly wider.
MIN_SHARE = 0.05

Status = Literal["passed", "failed", "not tested"]


@dataclass(frozen=True)
class Check:
    """One diagnostic.

    Attributes:
        name: The diagnostic.
        status: `passed` means no more than that nothing was found.
        p_value: Its p-value; NaN where it has none.
        text: What it found, in words.
    """

    name: str
    status: Status
    p_value: float
    text: str
