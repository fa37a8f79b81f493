"""Joint bootstrap of several statistics: intervals and p-values of any linear combination of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from crosschannel.core.arrays import FloatArray
from crosschannel.evaluation.bootstrap import Interval, degrees_of_freedom, t_interval


@dataclass(frozen=True)
class JointReplicates:
    """K statistics, their replicates from the same draws of users, and the users' influences on them.

    Attributes:
        points: The statistics (K,).
        draws: Their bootstrap replicates (B, K).
        influence: Influences of the users (U, K).
        confidence_level: Level of the intervals.
    """

    points: FloatArray
    draws: FloatArray
    influence: FloatArray
    confidence_level: float = 0.95

    def interval(self, coefficients: FloatArray) -> Interval:
        """Return the interval of the combination with some coefficients (K,)."""
        used = np.flatnonzero(coefficients)
        point, draws, influence = (
            part[..., used] @ coefficients[used] for part in (self.points, self.draws, self.influence)
        )
        return t_interval(float(point), draws, influence, self.confidence_level)

    def p_value(self, coefficients: FloatArray) -> float:
        """Return the two-sided p-value of the hypothesis that a combination is 0; NaN if it is undefined."""
        interval = self.interval(coefficients)
        if not interval.is_defined:
            return np.nan
        if interval.se == 0:
            return 1.0 if interval.point == 0 else 0.0
        df = degrees_of_freedom(self.influence @ coefficients)
        return float(2 * stdtr(df, -abs(interval.point) / interval.se))

    def pick(self, k: int, minus: int | None = None) -> FloatArray:
        """Return the coefficients (K,) of statistic k, or of its difference to another one."""
        out = np.zeros(len(self.points))
        out[k] += 1.0
        if minus is not None:
            out[minus] -= 1.0
        return out
