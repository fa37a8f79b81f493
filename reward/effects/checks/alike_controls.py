"""Whether controls that are like the sent decisions change as all controls do, without any message on either side."""

from __future__ import annotations

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.times import duration
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import BY_DESIGN, LOGGED
from crosschannel.reward.effects.checks.check import SIGNIFICANCE_LEVEL, Check
from crosschannel.reward.effects.estimates import TreatmentEffects
from crosschannel.reward.effects.inference import two_sided_p_value
from crosschannel.reward.measurement.outcomes import NO_CELL
from crosschannel.reward.measurement.preprocessing import past_activity
from crosschannel.reward.models import DidReward

BY_PROPENSITY, BY_ACTIVITY = "controls by propensity", "controls by past activity"
#: Past activity is the goal value in a window of this length before the pre window, in so many strata.
ACTIVITY, STRATA = "7d", 5
#: Odds whose relative differences are smaller are equal.
ROUNDING = 1e-9
#: Fewer users with influence than this cannot be tested.
MIN_USERS = 10


def controls_by_propensity(fitted: TreatmentEffects, history: History) -> Check | None:
    """Weight controls by their logged odds of a message, as if they were the sent decisions: see `alike_controls`.

    None for other kinds than `did`, or where the log does not have the propensities of the controls. Assumption: they
    are right. Then the weighted controls are what the sent decisions would have been without a message.
    """
    d, o = history.decisions, fitted.outcomes
    known = np.isin(d.propensity_source[o.control], (LOGGED, BY_DESIGN))
    if fitted.model.name != DidReward.name or not len(known) or not known.all():
        return None
    p = np.where(o.control, d.propensity[:, 0], 1.0)
    return alike_controls(BY_PROPENSITY, fitted, (1.0 - p) / p)


def controls_by_activity(fitted: TreatmentEffects, history: History) -> Check | None:
    """Weight controls by strata of past activity as the sent decisions of their cell are: see `alike_controls`.

    Activity is the goal value of a week that ends where the pre window begins, so that users with much of it by chance
    return to their level before the reward begins. A test that fails says that the active change otherwise, such as on
    days on which everybody buys twice as much. None for other kinds than `did`, and where activity divides nobody.
    """
    o, spec = fitted.outcomes, fitted.model.spec
    if fitted.model.name != DidReward.name:
        return None
    end = history.decisions.time - duration(spec.pre)
    activity = past_activity(history, spec.goals, o.preprocessing.bits, end, duration(ACTIVITY))
    here = (o.treated | o.control) & fitted.frame.identified & ~np.isnan(activity)
    edges = np.unique(np.quantile(activity[here], np.arange(1, STRATA) / STRATA)) if here.any() else np.zeros(0)
    stratum = np.searchsorted(edges, activity, side="right")
    if len(np.unique(stratum[here])) < 2:
        return None
    cell = np.unique(_cells(fitted), return_inverse=True)[1]
    code = cell * (STRATA + 1) + stratum
    size = int(code.max()) + 1
    weight = o.ipc_weight
    sent = np.bincount(code[here & o.treated], weight[here & o.treated], size)
    not_sent = np.bincount(code[here & o.control], weight[here & o.control], size)
    odds = np.divide(sent, not_sent, out=np.zeros(size), where=not_sent > 0)[code]
    return alike_controls(BY_ACTIVITY, fitted, np.where(here, odds, np.nan))


def alike_controls(name: str, fitted: TreatmentEffects, odds: FloatArray) -> Check | None:
    r"""Test that controls weighted by odds of a message (n,) change as all controls of their cells do.

    .. math:: \hat\beta = \frac{\sum_j w_j o_j r_j}{\sum_j w_j o_j}
        = \frac{\sum_j w_j (o_j - \bar o_{c(j)}) r_j}{\sum_j w_j o_j}

    over controls j with their residuals r, weights w of censoring, odds o, and the mean odds of the cell's controls.
    Weighted by the odds, controls are what the sent decisions would have been without a message (Hirano, Imbens &
    Ridder 2003, "Efficient estimation of average treatment effects using the estimated propensity score",
    Econometrica). So :math:`\beta` is 0 if trends are parallel, and the bias of the effect if they are not. Errors
    are clustered by user, with the odds held fixed; where few users account for the error, Student's quantile has
    Satterthwaite's degrees of freedom.

    Args:
        name: Name of the check.
        fitted: The model, fitted on the history.
        odds: Odds of a message of the controls; NaN where not known.
    """
    o, frame = fitted.outcomes, fitted.frame
    rows = o.control & frame.identified & ~np.isnan(odds)
    weight = o.ipc_weight[rows] * odds[rows]
    if not weight.sum() > 0:
        return None
    cell = np.unique(_cells(fitted)[rows], return_inverse=True)[1]
    mean = (np.bincount(cell, weight) / np.bincount(cell, o.ipc_weight[rows]))[cell]
    unlike = odds[rows] - mean
    if not np.abs(unlike).max() > ROUNDING * mean.max():
        return None  # a message was as likely for all controls of a cell: nothing can differ by it
    own = o.ipc_weight[rows] * unlike * frame.reward[rows] / weight.sum()
    influence = np.bincount(o.user[rows], own)
    bias, users = float(own.sum()), int((np.bincount(o.user[rows]) > 0).sum())
    variance = float((influence**2).sum()) * users / max(users - 1, 1)
    if not variance > 0 or users < MIN_USERS:
        return None
    p = two_sided_p_value(bias / np.sqrt(variance), _degrees_of_freedom(influence, users))
    text = f"controls that are weighted like sent decisions changed by {bias:.3g} more than all controls, p = {p:.2g}"
    if p < SIGNIFICANCE_LEVEL:
        text += "; so the effect is off by this at least"
        return Check(name, "failed", p, text)
    return Check(name, "passed", p, text)


def _cells(fitted: TreatmentEffects) -> IntArray:
    """Return the cells (n,) that rewards come from, each at its own level."""
    o, level = fitted.outcomes, fitted.frame.level
    cell = np.full(len(o), NO_CELL, dtype=np.int64)
    levels = fitted.model.spec.matching.levels
    for k, parts in enumerate(levels):
        cell = np.where(level == k, o.cells(parts) * len(levels) + k, cell)
    return cell


def _degrees_of_freedom(influence: FloatArray, users: int) -> float:
    square = influence**2
    total = float(square.sum())
    deviation = float((square**2).sum()) - total**2 / users
    return min(2 * total**2 / deviation, users - 1.0) if deviation > 0 else users - 1.0
