"""Breakdown point: how large interactions would have to be to overturn a conclusion that assumes none."""

from __future__ import annotations

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.evaluation.bootstrap import t_interval
from crosschannel.evaluation.ladder.joint import JointReplicates

#: Shares above this are reported as this: interactions then take away ten times what the content adds.
MAX_SHARE = 10.0
STEPS = 40


def breakdown_point(joint: JointReplicates, order: int, content_free: int, logged: int) -> float | None:
    r"""Return how large a share of what content adds interactions may take away before the conclusion falls.

    .. math:: g^* = \max \{ g : \text{lower bound of } V - V_{log} - g |V - V_0| > 0 \}

    V is the value that assumes no further interactions, V_0 that of changing the channel alone; the bound is that of
    the joint bootstrap. Where the policy is worse than the log, signs are changed. The lower bound is concave in g but
    for the change of Student's quantile, so that the shares at which it is above 0 are an interval from 0 on.

    Assumption: as for the value V, except that interactions change it by at most g times what content adds. After
    Masten & Poirier (2020), "Inference on breakdown frontiers", Quantitative Economics.

    Args:
        joint: The joint bootstrap.
        order: Index of the statistic V.
        content_free: Index of the statistic V_0.
        logged: Index of the statistic V_log.

    Returns:
        The share, at most `MAX_SHARE`; None where the interval of V - V_log includes 0, so that there is no conclusion.
    """
    difference = joint.interval(joint.pick(order, minus=logged))
    if not difference.is_defined or difference.contains(0.0):
        return None
    sign = float(np.sign(difference.point))

    def is_positive(share: float) -> bool:
        def parts(values: FloatArray, content_sign: FloatArray | float) -> FloatArray:
            gain = sign * (values[..., order] - values[..., logged])
            content = values[..., order] - values[..., content_free]
            return np.asarray(gain - share * content_sign * content)

        point, draws = (
            parts(values, np.sign(values[..., order] - values[..., content_free]))
            for values in (joint.points, joint.draws)
        )
        direction = float(np.sign(joint.points[order] - joint.points[content_free]))
        influence = parts(joint.influence, direction)
        return t_interval(float(point), draws, influence, joint.confidence_level).low > 0

    if is_positive(MAX_SHARE):
        return MAX_SHARE
    low, high = 0.0, MAX_SHARE
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_positive(middle) else (low, middle)
    return low
