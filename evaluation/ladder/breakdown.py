"""Breakdown point: how large interactions would have to be to overturn a conclusion that assumes none."""

from __future__ import annotations

import numpy as np

from crosschannel.evaluation.ladder.joint import JointReplicates

#: Shares above this are reported as this: interactions are then ten times as large as what content changes.
MAX_SHARE = 10.0
STEPS = 40


def breakdown_point(joint: JointReplicates, order: int, content_free: int, logged: int) -> float | None:
    r"""Return how large interactions may be, as a share of what content changes, before the conclusion falls.

    .. math::
        g^* = \max \{ g : \text{lower bound of } V - V_{log} - g \, s (V - V_0) > 0 \text{ for } s = \pm 1 \}

    V is the value that assumes no further interactions, V_0 that of changing the channel alone; the bound is that of
    the joint bootstrap. Where the policy is worse than the log, the sign of V - V_log is changed. Both signs s are
    required, since the lower of two lower bounds is one for :math:`V - V_{log} - g |V - V_0|`: once the interval of
    V - V_0 is clear of 0 one sign decides, and before that the replicates of |V - V_0| would vary too little. Each
    lower bound is concave in g but for the change of Student's quantile, so that the shares at which both are above 0
    are an interval from 0 on.

    Assumption: as for the value V, except that interactions change it by at most g times what content changes. After
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

    gain, content = sign * joint.pick(order, minus=logged), joint.pick(order, minus=content_free)

    def is_positive(share: float) -> bool:
        return all(joint.interval(gain - s * share * content).low > 0 for s in (1.0, -1.0))

    if is_positive(MAX_SHARE):
        return MAX_SHARE
    low, high = 0.0, MAX_SHARE
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_positive(middle) else (low, middle)
    return low
