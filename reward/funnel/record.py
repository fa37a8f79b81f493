"""The components of the rewards of n decisions."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.reward.reason import Reason


@dataclass(frozen=True)
class Components:
    """The parts of a reward along a declared funnel (`RewardSpec.funnel`), in the history's order.

    The effect of a sent message is *P x gain + (1 - P) x direct - sum over cost events of price x hazard*: P is the
    mean of `engaged`, gain and direct are the means of `value` among the engaged and the not engaged, and hazards are
    the means of `cost`. Only the whole is randomised where sending is; its parts compare groups that form after the
    message (docs/reward.md).

    Attributes:
        engaged: 1 if the message's own event followed within the window, 0 if not; NaN where nothing was sent, where no
            event tells the channel's engagement, or where the window was not observed (n,).
        value: Incremental value of the goals that are not cost events, by the reward's own kind, windows and controls,
            with surrogates in place of the goals that have some; NaN where it is not identified (n,).
        value_se: Its standard error; NaN with the value (n,).
        cost: 1 if the cost event occurred in the window after the decision, 0 if not; NaN where it was not observed
            (n, C). It is known for decisions without a message as well.
        cost_names: The cost events, as the goals name them (C).
        cost_weights: Their prices in reward units, above 0: minus the goals' weights (C,).
        engaged_reason: Why `engaged` is NaN: a code of `Reason` (n,).
        value_reason: The same for `value` (n,).
        cost_reason: The same for all cost events (n,).
        engaged_at: When `engaged` is known, microseconds: no learner may use it earlier (n,).
        value_at: When `value` is known; with surrogates, after all windows that their prices were learned from (n,).
        cost_at: When `cost` is known (n,).
        prices: The mean price of each surrogate over the folds, in reward units, by goal and event.
    """

    engaged: FloatArray
    value: FloatArray
    value_se: FloatArray
    cost: FloatArray
    cost_names: tuple[str, ...]
    cost_weights: FloatArray
    engaged_reason: IntArray
    value_reason: IntArray
    cost_reason: IntArray
    engaged_at: IntArray
    value_at: IntArray
    cost_at: IntArray
    prices: dict[str, dict[str, float]]

    def __len__(self) -> int:
        return len(self.value)

    def select(self, rows: IntArray) -> Components:
        """Return the components of some decisions (k,)."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        by_decision = [name for name, v in values.items() if isinstance(v, np.ndarray) and name != "cost_weights"]
        return Components(**values | {name: values[name][rows] for name in by_decision})

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the components as columns of a table, reasons as text."""
        text = np.array([reason.text for reason in Reason], dtype=object)
        names = ("engaged", "value", "value_se", "engaged_at", "value_at", "cost_at")
        found: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in names}
        found |= {f"cost_{name}": self.cost[:, c] for c, name in enumerate(self.cost_names)}
        reasons = ("engaged_reason", "value_reason", "cost_reason")
        return found | {name: text[getattr(self, name)] for name in reasons}
