"""The record of one diagnostic, and the level and the size at which it fails, by itself and among others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from crosschannel.core.multiple_tests import holm_adjusted

#: Level of a single test, and of all tests together that decide one verdict.
SIGNIFICANCE_LEVEL = 0.05
#: Share of the effect below which a bias is not reported as a failure: with very many users any difference is certain,
#: and intervals are mostly wider.
MIN_SHARE = 0.05

PRE_TRENDS = "pre-trends"

Status = Literal["passed", "unclear", "failed", "not tested"]


@dataclass(frozen=True)
class Check:
    """One diagnostic.

    Attributes:
        name: The diagnostic.
        status: `passed` means no more than that nothing was found; `unclear`, that it fails by itself, and not at the
            level of all tests together: see `at_joint_level`.
        p_value: Its p-value; NaN where it has none.
        text: What it found, in words.
    """

    name: str
    status: Status
    p_value: float
    text: str


def at_joint_level(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Return the checks of one verdict, where those are `unclear` that fail by themselves only.

    Each check has a level of its own, so that one of seven fails in up to 30 % of right logs. By Holm's method any
    of them fails in at most `SIGNIFICANCE_LEVEL` of these. Pre-trends weigh as much as all others together: whatever
    made the log send mostly shows there, be it little, while each of the others is about one fault that is plain where
    it is.
    """
    p_values = np.array([check.p_value for check in checks])
    others = max(int(np.count_nonzero(~np.isnan(p_values))) - 1, 1)
    weights = np.array([float(others) if check.name == PRE_TRENDS else 1.0 for check in checks])
    adjusted = holm_adjusted(p_values, weights)
    return tuple(
        replace(check, status="unclear") if check.status == "failed" and p >= SIGNIFICANCE_LEVEL else check
        for check, p in zip(checks, adjusted, strict=True)
    )
