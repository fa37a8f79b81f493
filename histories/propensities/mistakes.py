"""Name the likely mistake behind propensities that do not fit their log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.histories.propensities.mean_weights import Choices, above_one

_CLOSE = 0.1
_MIN_TAKEN = 30

UNKNOWN = "They may be those of another policy, or of another action than the one that was taken"


def likely_mistake(choices: Choices, nothing: BoolArray, first: FloatArray | None) -> str:
    """Return the mistake whose correction makes the mean of 1[a]/p about 1 for every action, in a sentence.

    Args:
        choices: The rows whose propensities do not fit (r,).
        nothing: Where nothing was sent (r,).
        first: Propensities of the first module (r,), if these are those of a later one.
    """
    p, sent = choices.p, ~nothing
    # Whether something was sent, for mistakes that concern nothing else.
    whether = replace(choices, taken=sent.astype(np.int64), eligible=None, size=2)
    candidates: list[tuple[str, Choices, FloatArray]] = []
    if first is None:
        candidates += [
            ("the probability of sending on every row, also where nothing was sent", whether, np.where(sent, p, 1 - p)),
            (
                "the probability of sending nothing on every row, also of messages",
                whether,
                np.where(sent, 1 - p, p),
            ),
            ("probabilities given that something is sent", choices, np.where(sent, p * sent.mean(), p)),
        ]
    else:
        candidates.append(("joint probabilities and not those given the earlier choices", choices, p / first))
    candidates += [
        ("probabilities of not taking the action, 1 - p", choices, 1 - p),
        ("percentages that were divided by 100 twice", choices, 100 * p),
        ("negative logarithms of probabilities", choices, np.exp(-p)),
    ]
    for what, rows, corrected in candidates:
        if _fits(rows, corrected):
            return f"They look like {what}"
    return UNKNOWN


def _fits(choices: Choices, p: FloatArray) -> bool:
    """Return whether propensities (r,) are possible, and all means of 1[a]/p are about 1."""
    inside = (p > 0) & (p <= 1)
    if inside.mean() < 0.99:
        return False
    corrected = replace(choices, p=np.where(inside, p, 1.0))
    found = above_one(corrected)
    common = np.bincount(choices.taken, minlength=choices.size)[found.action] >= _MIN_TAKEN
    off = np.abs(found.mean - 1) > np.maximum(_CLOSE, 3 * found.se)
    return bool(common.any() and not (off & common).any())
