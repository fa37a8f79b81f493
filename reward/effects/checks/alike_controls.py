"""Whether controls that are like the sent decisions change as all controls do, without any message on either side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.times import duration
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import BY_DESIGN, LOGGED
from crosschannel.reward.effects.checks.check import MIN_SHARE, SIGNIFICANCE_LEVEL, Check
from crosschannel.reward.effects.inference import two_sided_p_value
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.measurement.preprocessing import past_activity
from crosschannel.reward.spec import RewardSpec

BY_PROPENSITY, BY_ACTIVITY = "controls by propensity", "controls by past activity"
#: Past activity is the goal value in a window of this length before the pre window, in so many strata.
ACTIVITY, STRATA = "7d", 5
#: With fewer users nothing is tested.
MIN_USERS = 10
#: Odds whose relative differences are smaller are equal.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Likeness:
    """What makes controls like the sent decisions of their cell.

    Attributes:
        name: Name of the check.
        cell: Cells that rewards come from (n,).
        group: Groups within which the odds of a message are those of the cell's decisions (n,); -1 where not known.
        odds: The odds of a message where they are known one by one (n,); None where groups give them.
    """

    name: str
    cell: IntArray
    group: IntArray
    odds: FloatArray | None = None


def likeness_by_propensity(outcomes: Outcomes, frame: RewardFrame, history: History, spec: RewardSpec) -> Likeness:
    """Return the logged odds of a message at each control; assumption: they are right."""
    d, control = history.decisions, outcomes.control
    known = control & np.isin(d.propensity_source, (LOGGED, BY_DESIGN)) & (d.propensity[:, 0] > 0)
    p = np.where(known, d.propensity[:, 0], 1.0)
    return Likeness(BY_PROPENSITY, cells_of(outcomes, frame, spec), np.where(known, 0, -1), (1.0 - p) / p)


def likeness_by_activity(
    outcomes: Outcomes, frame: RewardFrame, history: History, spec: RewardSpec, edges: FloatArray
) -> Likeness:
    """Return the strata of past activity, the goal value of a week that ends where the pre window begins.

    So users with much of it by chance have returned to their level before the reward begins.
    """
    activity = activity_before(outcomes, history, spec)
    group = np.where(np.isnan(activity), -1, np.searchsorted(edges, activity, side="right"))
    return Likeness(BY_ACTIVITY, cells_of(outcomes, frame, spec), group)


def activity_before(outcomes: Outcomes, history: History, spec: RewardSpec) -> FloatArray:
    """Return the goal value of the week before the pre window (n,); NaN where it was not observed."""
    end = history.decisions.time - duration(spec.pre)
    return past_activity(history, spec.goals, outcomes.preprocessing.bits, end, duration(ACTIVITY))


def edges_of_activity(outcomes: Outcomes, frame: RewardFrame, history: History, spec: RewardSpec) -> FloatArray:
    """Return the quantiles that divide sent decisions and controls by past activity; empty where nothing does."""
    activity = activity_before(outcomes, history, spec)
    activity = activity[(outcomes.treated | outcomes.control) & frame.identified & ~np.isnan(activity)]
    return np.unique(np.quantile(activity, np.arange(1, STRATA) / STRATA)) if len(activity) else np.zeros(0)


def cells_of(outcomes: Outcomes, frame: RewardFrame, spec: RewardSpec) -> IntArray:
    """Return the cells (n,) that rewards come from, each at its own level of the matching."""
    levels = spec.matching.levels
    cell = np.zeros(len(outcomes), dtype=np.int64)
    for k, parts in enumerate(levels):
        cell = np.where(frame.level == k, outcomes.cells(parts) * len(levels) + k, cell)
    return cell


@dataclass(frozen=True)
class OddsSums:
    """Weights of sent decisions and of controls by cell and group; `+` adds those of other users.

    Attributes:
        table: The sums `sent` and `not_sent` by `cell` and `group`.
        unknown: Number of controls whose odds are not known one by one, where they should be.
    """

    table: pd.DataFrame
    unknown: int

    @classmethod
    def from_outcomes(cls, like: Likeness, outcomes: Outcomes, frame: RewardFrame) -> OddsSums:
        """Sum over the decisions with a reward; where odds are known, controls stand for the sent decisions."""
        o, weight = outcomes, outcomes.ipc_weight
        here = (o.treated | o.control) & frame.identified & (like.group >= 0)
        sent = weight * o.treated if like.odds is None else weight * like.odds * o.control
        columns = {"cell": like.cell, "group": like.group, "sent": sent, "not_sent": weight * o.control}
        table = pd.DataFrame(columns)[here].groupby(["cell", "group"]).sum()
        unknown = 0 if like.odds is None else int((o.control & (like.group < 0)).sum())
        return cls(table, unknown)

    def __add__(self, other: OddsSums) -> OddsSums:
        return OddsSums(self.table.add(other.table, fill_value=0.0), self.unknown + other.unknown)

    @property
    def total(self) -> float:
        """Weight of the controls as they are weighted like the sent decisions."""
        return float(self.table["sent"][self.table["not_sent"] > 0].sum())

    @property
    def divides(self) -> bool:
        """Whether all odds are known, and some control is to be weighted."""
        return self.unknown == 0 and self.total > 0


@dataclass(frozen=True)
class Moments:
    """Sums over users of their influence on the difference, times the total weight; `+` adds other users.

    Attributes:
        first: Sum of the influences.
        second: Sum of their squares.
        fourth: Sum of their fourth powers.
        users: Number of users with controls.
        unlike: Largest difference of a control's odds to those of its cell, as a share of these.
    """

    first: float
    second: float
    fourth: float
    users: int
    unlike: float

    @classmethod
    def from_outcomes(cls, like: Likeness, outcomes: Outcomes, frame: RewardFrame, sums: OddsSums) -> Moments:
        """Compute the influence of each user from the sums over all users."""
        o, table = outcomes, sums.table[sums.table["not_sent"] > 0]
        rows = np.flatnonzero(o.control & frame.identified & (like.group >= 0))
        if not len(rows):
            return cls(first=0.0, second=0.0, fourth=0.0, users=0, unlike=0.0)
        by_cell = table.groupby("cell").sum()
        mean = (by_cell["sent"] / by_cell["not_sent"]).reindex(like.cell[rows]).to_numpy(dtype=np.float64)
        if like.odds is None:
            at = pd.MultiIndex.from_arrays([like.cell[rows], like.group[rows]])
            odds = (table["sent"] / table["not_sent"]).reindex(at).to_numpy(dtype=np.float64)
        else:
            odds = like.odds[rows]
        influence = np.bincount(o.user[rows], o.ipc_weight[rows] * (odds - mean) * frame.reward[rows])
        square = influence**2
        return cls(
            first=float(influence.sum()),
            second=float(square.sum()),
            fourth=float((square**2).sum()),
            users=len(np.unique(o.user[rows])),
            unlike=float(np.abs(odds - mean).max() / max(float(mean.max()), np.finfo(float).tiny)),
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            first=self.first + other.first,
            second=self.second + other.second,
            fourth=self.fourth + other.fourth,
            users=self.users + other.users,
            unlike=max(self.unlike, other.unlike),
        )


def check_alike_controls(name: str, sums: OddsSums, moments: Moments, effect: float) -> Check | None:
    r"""Test that controls weighted by odds of a message change as all controls of their cells do.

    .. math:: \hat\beta = \frac{\sum_j w_j o_j r_j}{\sum_j w_j o_j}
        = \frac{\sum_j w_j (o_j - \bar o_{c(j)}) r_j}{\sum_j w_j o_j}

    over controls j with their residuals r by `did`, weights w of censoring, odds o, and the mean odds of the cell's
    controls. Weighted by the odds, controls are what the sent decisions would have been without a message (Hirano,
    Imbens & Ridder 2003, "Efficient estimation of average treatment effects using the estimated propensity score",
    Econometrica). So :math:`\beta` is 0 if trends are parallel, and the bias of the effect if they are not; odds by
    past activity, which says less than the propensity, show a part of it. Errors are clustered by user, with the odds
    held fixed; where few users account for the error, Student's quantile has Satterthwaite's degrees of freedom.

    Args:
        name: Name of the check.
        sums: Sums over all users.
        moments: What their users move.
        effect: The average effect, of which a bias below `MIN_SHARE` is no failure.

    Returns:
        The check; None where a message was as likely for all controls of a cell, or with too few users.
    """
    if not sums.divides or moments.unlike <= ROUNDING or moments.users < MIN_USERS or not moments.second > 0:
        return None
    users, bias = moments.users, moments.first / sums.total
    se = np.sqrt(moments.second * users / (users - 1)) / sums.total
    deviation = moments.fourth - moments.second**2 / users
    freedom = min(2 * moments.second**2 / deviation, users - 1.0) if deviation > 0 else users - 1.0
    p = two_sided_p_value(bias / se, freedom)
    meaning = (
        "the effect is off by about this, if the propensities are right"
        if name == BY_PROPENSITY
        else "the effect is off by this and by what past activity does not show, which may be many times as much"
    )
    text = f"controls that are weighted like sent decisions changed by {bias:.3g} more than all controls, p = {p:.2g}"
    if p < SIGNIFICANCE_LEVEL and not abs(bias) < MIN_SHARE * abs(effect):
        return Check(name, "failed", p, f"{text}: {meaning}")
    return Check(name, "passed", p, text)


def alike_controls(outcomes: Outcomes, frame: RewardFrame, history: History, spec: RewardSpec) -> list[Check]:
    """Return the checks by propensity and by past activity on one history, those that can be made.

    Args:
        outcomes: What was measured.
        frame: Its rewards by `did`.
        history: The history.
        spec: What is measured.
    """
    edges = edges_of_activity(outcomes, frame, history, spec)
    sent = outcomes.treated & frame.identified
    effect = float(np.average(frame.reward[sent], weights=outcomes.ipc_weight[sent])) if sent.any() else np.nan
    found = []
    for like in (
        likeness_by_propensity(outcomes, frame, history, spec),
        likeness_by_activity(outcomes, frame, history, spec, edges),
    ):
        sums = OddsSums.from_outcomes(like, outcomes, frame)
        found.append(check_alike_controls(like.name, sums, Moments.from_outcomes(like, outcomes, frame, sums), effect))
    return [check for check in found if check is not None]
