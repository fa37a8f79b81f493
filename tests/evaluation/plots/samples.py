"""An evaluation over three slots, for the tests of its plots."""

from __future__ import annotations

from crosschannel.evaluation import Interval, Support, TrajectoryEstimate, TrajectoryEvaluation
from crosschannel.evaluation.bootstrap import UNDEFINED


def followed() -> TrajectoryEvaluation:
    """Two estimates, one of them not identified, over three slots whose support fades."""
    slots = tuple(
        Support(
            decisions=900,
            ess=ess,
            ess_users=ess / 2,
            kurtosis=3.0,
            kurtosis_users=3.0,
            largest_weight=5.0,
            mean_weight=1.0,
            mean_weight_se=0.1,
            unsupported_mass=0.0,
        )
        for ess in (800.0, 300.0, 60.0)
    )
    value = Interval(1.5, 1.0, 2.0, 0.25)
    return TrajectoryEvaluation(
        estimand="the mean discounted sum of rewards over 3 slots",
        logged=Interval(1.0, 0.9, 1.1, 0.05),
        estimates=(
            TrajectoryEstimate("dr", value, Interval(0.5, 0.0, 1.0, 0.25)),
            TrajectoryEstimate("ips", UNDEFINED, UNDEFINED, "ESS 60 < 200"),
        ),
        slots=slots,
        active=(900, 880, 850),
        users=450,
    )
