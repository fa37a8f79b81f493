"""Goals: which events count, with which weight, and how their credit decays with the distance from the decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import duration

#: The setting that names goals, for errors about their events.
GOALS_SETTING = "reward.goals"


@dataclass(frozen=True)
class Goal:
    """One kind of event that the messages are meant to raise (or, with a negative weight, not to raise).

    Attributes:
        event: The event's name; `name*` stands for every event whose name begins so.
        weight: What one unit is worth, in reward units; negative for harm.
        measure: `count` adds 1 for each event, `value` adds the event's value.
        clip: The largest amount that one user's window may have, in the measure's units per post window, before the
            weight; None for no limit. Clipping bounds the influence of rare, very large orders. Where windows differ in
            length it acts on blocks of equal length: see `reward.measurement.limits`.
        winsor: The same limit as a quantile of the training decisions' non-zero window amounts, such as 0.99. It is
            fitted with the reward model, and then applied as it is.
        credit: `uniform` counts every event of the window alike; `exponential` counts an event at the distance x from
            the decision :math:`2^{-x/h}` times, before it as after it: an event close in time is more likely to be an
            effect of the message.
        half_life: The half-life h of exponential credit.
    """

    event: str
    weight: float = 1.0
    measure: Literal["count", "value"] = "count"
    clip: float | None = None
    winsor: float | None = None
    credit: Literal["uniform", "exponential"] = "uniform"
    half_life: str | None = None

    def __post_init__(self) -> None:
        if self.measure not in ("count", "value"):
            raise ConfigError(f"goal {self.event!r}: measure {self.measure!r} is neither 'count' nor 'value'")
        if not np.isfinite(self.weight) or self.weight == 0:
            raise ConfigError(f"goal {self.event!r}: weight {self.weight} is not a finite number other than 0")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ConfigError(f"goal {self.event!r}: clip {self.clip} is not a positive number")
        if self.winsor is not None and not 0 < self.winsor < 1:
            raise ConfigError(f"goal {self.event!r}: winsor {self.winsor} is not a quantile between 0 and 1")
        if self.clip is not None and self.winsor is not None:
            raise ConfigError(f"goal {self.event!r}: both clip and winsor limit the window's amount: set one of them")
        if self.credit not in ("uniform", "exponential"):
            raise ConfigError(f"goal {self.event!r}: credit {self.credit!r} is neither 'uniform' nor 'exponential'")
        if (self.credit == "exponential") != (self.half_life is not None):
            raise ConfigError(f"goal {self.event!r}: exponential credit and a half_life go together")
        if self.half_life is not None:
            duration(self.half_life)

    @property
    def decay(self) -> int | None:
        """Half-life of the credit in microseconds; None where credit is uniform."""
        return None if self.half_life is None else duration(self.half_life)

    def mass(self, start: FloatArray | IntArray | float, end: FloatArray | IntArray | float) -> FloatArray:
        r"""Integrate the credit over the distances `start` to `end` from a decision, all in microseconds.

        .. math:: \int_s^e 2^{-x/h} dx = \frac{h}{\ln 2} (2^{-s/h} - 2^{-e/h}), \qquad e - s \text{ if uniform}

        The ratio of two integrals scales the amount of one window to the length of another.
        """
        low, high = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
        if self.decay is None:
            return np.asarray(high - low)
        return np.asarray(self.decay / math.log(2.0) * (np.exp2(-low / self.decay) - np.exp2(-high / self.decay)))
