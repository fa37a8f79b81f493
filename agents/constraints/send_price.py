"""The price of a message: how much less a user's later slots are worth after one than after none."""

from __future__ import annotations

import math

import numpy as np

from crosschannel.agents.constraints.contested import FloatingArray
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray

#: Ridge of the regressions, in slots.
RIDGE = 1.0
#: Fitted iterations stop where what is left out is discounted to this share.
NEGLIGIBLE = 0.01
#: Slots with a message, and without one, below which there is no price.
MIN_SLOTS = 50


def price_of_message(
    context: FloatingArray,
    sent: BoolArray,
    value: FloatArray,
    next_row: IntArray,
    steps_to_next: FloatArray,
    terminal: BoolArray,
    discount: float,
) -> float:
    r"""Return what a message costs at later slots, on average over the slots at which one may be sent.

    A message closes the slots of the gap after it, tires the user, and may end the subscription. With the value
    :math:`v(x)` of the best message of a slot known, what follows a slot is fitted backwards,

    .. math::
        Q_a(x) &\leftarrow E \left[ \gamma^{s} (1 - d) W(x') \mid x, a \right], \quad a \in \{0, 1\} \\
        W(x) &= \max(Q_0(x), v(x) + Q_1(x)), \qquad
        \text{price} = \max \left( 0, E \left[ Q_0(x) - Q_1(x) \right] \right)

    with s slots until the user's next one and d whether the user churned: a fitted Q iteration (Ernst, Geurts &
    Wehenkel 2005, "Tree-based batch mode reinforcement learning", JMLR) with ridge regressions on [1, x] for
    slots without a message; of slots with one, and at which none may be sent, what differs from those is fitted and
    shrunk to 0, so that few messages give no price. Later values are bounded by what the best slot would earn for ever.
    It assumes that the context holds what decided
    whether something was sent, and what a message changes. Prices by context were measured to be noise: the mean is
    the same for all. Slots after which the log ends are left out.

    Args:
        context: Contexts of n slots (n, D).
        sent: Whether something was sent at them (n,).
        value: Value of the best message (n,), costs included; minus infinity where none may be sent.
        next_row: Row of the same user's next slot (n,), -1 without one.
        steps_to_next: Number of slots until then (n,), NaN without one.
        terminal: Whether the user churned after the slot (n,).
        discount: Discount of a later slot :math:`\gamma`, from 0 to below 1.

    Returns:
        The price in reward units; 0 where there are fewer than `MIN_SLOTS` slots with a message, or without one.
    """
    open_slot = np.isfinite(value)
    followed = (next_row >= 0) | terminal
    if discount == 0.0 or min((open_slot & followed & sent).sum(), (open_slot & followed & ~sent).sum()) < MIN_SLOTS:
        return 0.0
    x = np.column_stack([np.ones(len(context)), context]).astype(np.float64)
    groups = (followed & open_slot & ~sent, followed & open_slot & sent, followed & ~open_slot)
    grams = [x[rows].T @ x[rows] + RIDGE * np.eye(x.shape[1]) for rows in groups]
    factor = np.where(terminal | (next_row < 0), 0.0, discount ** np.nan_to_num(steps_to_next))
    best = np.where(open_slot, value, 0.0)
    largest = max(0.0, float(best.max())) / (1.0 - discount)
    fits = np.zeros((3, x.shape[1]))
    for _ in range(math.ceil(math.log(NEGLIGIBLE) / math.log(discount))):
        idle, message, closed = (x @ fit for fit in fits)
        ahead = np.where(open_slot, np.maximum(idle, best + message), closed).clip(0.0, largest)
        later = factor * ahead[next_row]
        fits[0] = _ridge(grams[0], x[groups[0]], later[groups[0]])
        for k in (1, 2):
            rows = groups[k]
            fits[k] = fits[0] + _ridge(grams[k], x[rows], later[rows] - x[rows] @ fits[0])
    return max(0.0, float((x[open_slot] @ (fits[0] - fits[1])).mean()))


def _ridge(gram: FloatArray, x: FloatArray, target: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.solve(gram, x.T @ target))
