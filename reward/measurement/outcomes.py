"""Outcomes: goal values before and after each decision, and which decisions may serve as controls."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.hashing import derive
from crosschannel.core.times import duration
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.history import History
from crosschannel.histories.windows import Timeline, from_fixed, running, to_fixed
from crosschannel.reward.frame import GONE, IDENTIFIED, NO_RHYTHM, OUTSIDE, TOO_SHORT
from crosschannel.reward.measurement.limits import Windows, learn_limits, limited_amounts
from crosschannel.reward.measurement.messages import Messages
from crosschannel.reward.measurement.preprocessing import Gauge, in_arms, learn_edges, learn_values, past_activity
from crosschannel.reward.measurement.seasonality import Population, normal_amounts
from crosschannel.reward.spec import FOLDS, Level, RewardSpec

__all__ = ["FOLDS", "NO_CELL", "Outcomes", "RewardSpec", "measure"]

_FOLD_SALT = 0xF01D
# The cell of a decision whose attributes or past activity are not known: no control is ever in it.
NO_CELL = np.iinfo(np.int64).min
# Sources of propensities that are known and not estimated: see `History.propensity_source`.
KNOWN = ("logged", "by design")


@dataclass(frozen=True)
class Outcomes:
    """Goal values around the n decisions of a history, in its order.

    Attributes:
        pre: Goal value in `[t - pre, t)`, scaled to the post window; net of the user's rhythm, if asked for (n,).
        post: Goal value in `(t, t + post]`, scaled to its full length where it was truncated; net as well (n,).
        treated: Whether a message was sent (n,).
        control: Whether the decision is a control: see `RewardSpec.controls` (n,).
        overlap: Whether another message of the user falls into the windows (n,).
        observed: Whether both windows could be measured (n,).
        reason: Why they could not: a code into `REASONS`, 0 where they could (n,).
        cell: Calendar cell: whole cell lengths since 1970 (n,).
        within: Code of the user's attributes in `Matching.within`; -1 where the training users had none such (n,).
        stratum: Stratum of past activity; -1 where it is not known (n,).
        user: User codes (n,).
        actions: Actions (n, M).
        available_at: When the post window closes, microseconds (n,).
        fold: Stable hash of the user, for cross-fitting: below `FOLDS` (n,).
        p_nothing: Probability of sending nothing, where nothing was sent and the log or the design of the experiment
            says it; NaN where it is not known or was estimated (n,).
        kept: Probability, by the log's propensities, that nothing is sent at the user's later slots whose message would
            take this decision's reward away (`overlap: exclude`, or `truncate` below `min_post`); 1 where none could,
            NaN where the log has no propensity of such a slot (n,). Decisions that keep their reward are chosen by
            what happened after them: a mean over decisions weighs each by 1/kept to speak of all of them. Robins &
            Finkelstein (2000), "Correcting for noncompliance and dependent censoring in an AIDS clinical trial with
            inverse probability of censoring weighted log-rank tests", Biometrics.
        covariates: Covariates (n, p); p is 0 where the reward uses none.
        gauge: What was learned in order to measure them.
    """

    pre: FloatArray
    post: FloatArray
    treated: BoolArray
    control: BoolArray
    overlap: BoolArray
    observed: BoolArray
    reason: IntArray
    cell: IntArray
    within: IntArray
    stratum: IntArray
    user: IntArray
    actions: IntArray
    available_at: IntArray
    fold: IntArray
    p_nothing: FloatArray
    kept: FloatArray
    covariates: FloatArray
    gauge: Gauge

    def __len__(self) -> int:
        return len(self.post)

    @property
    def change(self) -> FloatArray:
        """Post minus pre (n,)."""
        return self.post - self.pre

    @property
    def stake(self) -> FloatArray:
        """How much each decision counts for in means (n,): 1/kept, or 1 where the log does not tell that chance."""
        return 1.0 / np.where(np.isnan(self.kept), 1.0, self.kept)

    def select(self, rows: BoolArray) -> Outcomes:
        """The outcomes of the chosen decisions."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "gauge"}
        return Outcomes(**arrays, gauge=self.gauge)

    def cells(self, level: Level) -> IntArray:
        """Cells (n,) of the calendar and of what else `level` names; `NO_CELL` where that is not known."""
        code, known = self.cell, np.ones(len(self), dtype=bool)
        if "within" in level:
            n_values = 1 if self.gauge.values is None else len(self.gauge.values)
            code, known = code * n_values + self.within, known & (self.within >= 0)
        if "strata" in level:
            code, known = code * (len(self.gauge.edges) + 1) + self.stratum, known & (self.stratum >= 0)
        return np.where(known, code, NO_CELL)


def measure(history: History, spec: RewardSpec, gauge: Gauge | None = None, *, adjust: bool = False) -> Outcomes:
    """Sums the goals in the windows around every decision of a history.

    Every window is a difference of two running totals, whose places are found by bisection for all decisions at
    once: no loop over users or decisions.

    Args:
        history: Decisions and events.
        spec: What is measured.
        gauge: What was learned of a training history (`Outcomes.gauge`); None learns it from this one.
        adjust: Whether a gauge that is learned here has covariates.

    Raises:
        ConfigError: If a goal names an event, the spec an attribute or an arm that the history does not have.
    """
    d = history.decisions
    treated = history.modules.sends(d.actions)
    messages = Timeline(d.time[treated], np.searchsorted(d.user[treated], np.arange(history.n_users + 1)))
    post_length = duration(spec.post)
    cut = spec.overlap == "truncate"
    end = (
        np.minimum(post_length, _next_message(history, messages, post_length)) if cut else np.full(len(d), post_length)
    )
    windows = Windows.of(history, duration(spec.pre), post_length, end)
    overlap = Messages.of(history).others(history, -windows.pre, windows.post)
    outside = (d.time - windows.pre < history.span[0]) | (d.time + windows.post > history.span[1])
    short = windows.end < (duration(spec.min_post) if spec.overlap == "truncate" else 0)

    activity = np.zeros(len(d))
    if spec.matching.strata > 1:
        activity = past_activity(history, spec.goals, windows.pre, duration(spec.matching.activity))
    learning = gauge is None
    if gauge is None:
        sound = ~(outside | short)
        gauge = Gauge(
            limits=learn_limits(spec.goals, history, windows, np.flatnonzero(sound)),
            edges=learn_edges(activity[sound], spec.matching.strata),
            values=learn_values(history, spec.matching.within),
            rhythm=None if spec.rhythm is None else Population.of(history, spec.goals, duration(spec.rhythm)),
            features=ContextFeatures.fit(history, spec.covariates) if adjust else None,
            closes=int((d.time + windows.post)[sound].max(initial=NO_CELL)) if spec.learns_amounts else NO_CELL,
        )
    pre, post = _values(history, spec, windows, gauge)

    reason = np.full(len(d), IDENTIFIED, dtype=np.int64)
    reason[np.isnan(post) | np.isnan(pre)] = NO_RHYTHM
    reason[short] = TOO_SHORT
    reason[outside] = OUTSIDE
    reason[d.time > history.churned_at[d.user]] = GONE
    observed = reason == IDENTIFIED
    allowed = ~overlap | (spec.controls != "untouched" and spec.overlap != "exclude")
    if spec.controls == "holdout":
        allowed = allowed & in_arms(history, spec.holdout_arms, learning=learning)
    return Outcomes(
        pre=pre,
        post=post,
        treated=treated,
        control=~treated & allowed & observed,
        overlap=overlap,
        observed=observed,
        reason=reason,
        cell=d.time // duration(spec.cell),
        within=gauge.within(history, spec.matching.within)[d.user],
        stratum=gauge.stratum(activity),
        user=d.user,
        actions=d.actions,
        available_at=d.time + windows.post,
        fold=fold_of_users(history)[d.user],
        p_nothing=np.where(treated | (history.propensity_source not in KNOWN), np.nan, d.propensity[:, 0]),
        kept=_kept(history, _untouched_for(spec)),
        covariates=np.zeros((len(d), 0)) if gauge.features is None else gauge.features.covariates(history),
        gauge=gauge,
    )


def _values(history: History, spec: RewardSpec, windows: Windows, gauge: Gauge) -> tuple[FloatArray, FloatArray]:
    """Goal values before and after (n,): limited, net of the rhythm, weighted, and in units of the post window."""
    before, after = limited_amounts(spec.goals, gauge.limits, history, windows)
    if gauge.rhythm is not None:
        usual = normal_amounts(history, spec.goals, gauge.rhythm, spec.rhythm_weeks, windows.pre, windows.end)
        for g, (goal, limit) in enumerate(zip(spec.goals, gauge.limits, strict=True)):
            full = goal.mass(0, windows.post)
            before[g] -= np.minimum(usual[0][g] * (full / goal.mass(0, windows.pre)), limit)
            after[g] -= np.minimum(usual[1][g] * (full / goal.mass(np.zeros(len(windows.end)), windows.end)), limit)
    pre, post = np.zeros(len(windows.end)), np.zeros(len(windows.end))
    for goal, first, second in zip(spec.goals, before, after, strict=True):
        pre += goal.weight * first
        post += goal.weight * second
    return pre, post


def fold_of_users(history: History) -> IntArray:
    """A stable hash of every user's id (U,), below `FOLDS`: another id is in another fold."""
    return np.asarray(derive(history.user_keys, _FOLD_SALT) % np.uint64(FOLDS), dtype=np.int64)


def _untouched_for(spec: RewardSpec) -> int:
    """How long after a decision a message takes its reward away, microseconds."""
    return {"shared": 0, "exclude": duration(spec.post), "truncate": duration(spec.min_post)}[spec.overlap]


def _kept(history: History, length: int) -> FloatArray:
    """Probability that nothing is sent at the user's slots in `(t, t + length)` (n,), given that nothing was.

    Where something was sent there, the decision has no reward, and its entry no meaning.
    """
    d = history.decisions
    if length == 0:
        return np.ones(len(d))
    nothing = np.where(np.isnan(d.propensity[:, 0]), d.joint, d.propensity[:, 0])
    nothing = np.where(history.modules.sends(d.actions), 1.0, nothing)
    unknown = running(np.isnan(nothing).astype(np.int64))
    # Sums in fixed point, so that no entry depends on other users.
    total = running(to_fixed(np.log(np.where(np.isnan(nothing), 1.0, nothing))))
    slots = Timeline(d.time, history.decision_offsets)
    first, last = slots.before(d.user, d.time, inclusive=True), slots.before(d.user, d.time + length)
    return np.where(unknown[last] > unknown[first], np.nan, np.exp(from_fixed(total[last] - total[first])))


def _next_message(history: History, messages: Timeline, otherwise: int) -> IntArray:
    """Time to the user's next message, strictly after each decision, microseconds (n,); `otherwise` if none."""
    d = history.decisions
    row = messages.before(d.user, d.time, inclusive=True)
    found = row < messages.offsets[d.user + 1]
    following = np.append(messages.time, 0)[row]
    return np.where(found, following - d.time, otherwise)
