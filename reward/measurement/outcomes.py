"""Outcomes: goal values before and after each decision, and which decisions may serve as controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.hashing import derive
from crosschannel.core.times import duration
from crosschannel.histories.fixed_point import fit_bits
from crosschannel.histories.goals import GOALS_SETTING
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import BY_DESIGN, LOGGED
from crosschannel.histories.windows import Timeline, running_totals
from crosschannel.reward.measurement.amounts import largest_amounts
from crosschannel.reward.measurement.censoring import censoring_time, inverse_probability, p_uncensored
from crosschannel.reward.measurement.limits import Windows, limited_amounts
from crosschannel.reward.measurement.messages import Messages
from crosschannel.reward.measurement.preprocessing import FittedPreprocessing, in_arms, past_activity
from crosschannel.reward.measurement.seasonality import seasonal_amounts
from crosschannel.reward.measurement.ties import boundaries, check_order_is_known
from crosschannel.reward.reason import Reason
from crosschannel.reward.spec import MAX_FOLDS, Level, Matching, RewardSpec, pooled_buckets

_FOLD_SALT = 0xF01D
# The cell of a decision whose attributes or past activity are not known: no control is ever in it.
NO_CELL = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Outcomes:
    """Goal values around the n decisions of a history, in its order.

    Attributes:
        pre: Goal value in the window before, scaled to the post window, less the seasonal level if asked for (n,).
        post: Goal value in the window after, scaled to its full length where it was truncated; less the same (n,).
        treated: Whether a message was sent (n,).
        control: Whether the decision is a control: see `RewardSpec.controls` (n,).
        overlap: Whether another message of the user falls into the windows (n,).
        observed: Whether both windows could be measured (n,).
        reason: Why they could not: a code of `Reason`, `Reason.IDENTIFIED` where they could (n,).
        time_bucket: Time bucket of the decision: whole bucket lengths since 1970 (n,).
        within: Code of the user's attributes in `Matching.within`; -1 where the training users had none such (n,).
        stratum: Stratum of past activity; -1 where it is not known (n,).
        user: User codes (n,).
        actions: Actions (n, M).
        available_at: When the post window closes, microseconds (n,).
        fold: Stable hash of the user, for cross-fitting: below `MAX_FOLDS` (n,).
        p_nothing: Probability of sending nothing, where nothing was sent and the log or the design of the experiment
            says it; NaN where it is not known or was estimated, and at controls `holdout`, where it is 1 and does not
            say how often users like these got messages in the other arms (n,).
        p_uncensored: Probability, by the log's propensities, that nothing is sent at the user's later slots whose
            message would take this decision's reward away (`overlap: exclude`, or `truncate` below `min_post`); 1 where
            none could, NaN where the log has no propensity of such a slot (n,). Which decisions keep their reward
            depends on what happened after them, so a mean over decisions weighs each by 1/p_uncensored to be about all
            of them. Robins & Finkelstein (2000), "Correcting for noncompliance and dependent censoring in an AIDS
            clinical trial with inverse probability of censoring weighted log-rank tests", Biometrics.
        covariates: Covariates (n, p); p is 0 where the reward uses none.
        preprocessing: What was fitted in order to measure them.
    """

    pre: FloatArray
    post: FloatArray
    treated: BoolArray
    control: BoolArray
    overlap: BoolArray
    observed: BoolArray
    reason: IntArray
    time_bucket: IntArray
    within: IntArray
    stratum: IntArray
    user: IntArray
    actions: IntArray
    available_at: IntArray
    fold: IntArray
    p_nothing: FloatArray
    p_uncensored: FloatArray
    covariates: FloatArray
    preprocessing: FittedPreprocessing

    def __len__(self) -> int:
        return len(self.post)

    @property
    def change(self) -> FloatArray:
        """Post minus pre (n,)."""
        return self.post - self.pre

    @property
    def ipc_weight(self) -> FloatArray:
        """Inverse probability of censoring weight (n,): 1/p_uncensored, or 1 where that is not known."""
        return inverse_probability(self.p_uncensored)

    def select(self, rows: BoolArray) -> Outcomes:
        """Return the outcomes of the chosen decisions."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "preprocessing"}
        return Outcomes(**arrays, preprocessing=self.preprocessing)

    def cells(self, level: Level) -> IntArray:
        """Return cells (n,) of the time bucket and what else `level` names; `NO_CELL` where that is not known."""
        code, known = self.time_bucket // pooled_buckets(level), np.ones(len(self), dtype=bool)
        if "within" in level:
            code, known = code * self.preprocessing.n_attribute_values + self.within, known & (self.within >= 0)
        if "strata" in level:
            code, known = code * self.preprocessing.n_strata + self.stratum, known & (self.stratum >= 0)
        return np.where(known, code, NO_CELL)


@dataclass(frozen=True)
class _Surroundings:
    """What can be said of the time around each decision before anything is fitted.

    Attributes:
        windows: The windows before and after.
        outside: Whether they extend beyond the observation period of the log (n,).
        user_outside: Whether they extend beyond the user's own observation (n,).
        short: Whether the window after was cut too short (n,).
        activity: The user's past activity, for strata; NaN where it was not observed (n,).
    """

    windows: Windows
    outside: BoolArray
    user_outside: BoolArray
    short: BoolArray
    activity: FloatArray

    @classmethod
    def build(cls, history: History, spec: RewardSpec, bits: Sequence[int], uses_pre: bool) -> _Surroundings:
        d, post = history.decisions, duration(spec.post)
        cut = spec.overlap == "truncate"
        end = np.minimum(post, _time_to_next_message(history, otherwise=post)) if cut else np.full(len(d), post)
        windows = Windows.build(history, boundaries(history, spec.goals), duration(spec.pre), post, end)
        activity = np.zeros(len(d))
        if spec.matching.strata > 1:
            start = windows.boundary - windows.pre
            activity = past_activity(history, spec.goals, bits, start, duration(spec.matching.activity))
        start, end = windows.boundary - windows.pre * uses_pre, windows.boundary + windows.post
        return cls(
            windows,
            outside=(start < history.span[0]) | (end > history.span[1] + 1),
            user_outside=(start < history.observed_from[d.user]) | (end > history.observed_until[d.user] + 1),
            short=windows.end < (duration(spec.min_post) if cut else 0),
            activity=activity,
        )

    @property
    def observed(self) -> BoolArray:
        """Whether both windows were observed, and none was cut too short (n,)."""
        return ~(self.outside | self.user_outside | self.short)


def measure(history: History, spec: RewardSpec, *, adjust: bool = False, uses_pre: bool = True) -> Outcomes:
    """Fit the preprocessing on a history, and measure the history with it.

    Args:
        history: Decisions and events.
        spec: What is measured.
        adjust: Whether covariates are fitted as well.
        uses_pre: Whether the window before the decision is needed; otherwise it need not be observed.

    Raises:
        ConfigError: If a goal names an event, the spec an attribute or an arm that the history does not have.
        NotIdentified: If the order of decisions and goal events is not known: see `check_order_is_known`.
    """
    check_order_is_known(history, spec.goals)
    largest = largest_amounts(spec.goals, history)
    around = _Surroundings.build(history, spec, [fit_bits(amount) for amount in largest], uses_pre)
    fitted = FittedPreprocessing.fit(
        history, spec, around.windows, around.observed, around.activity, largest, adjust=adjust
    )
    return _measure(history, spec, around, fitted)


def measure_with(
    history: History, spec: RewardSpec, preprocessing: FittedPreprocessing, *, uses_pre: bool = True
) -> Outcomes:
    """Measure a history with a preprocessing that was fitted on another one.

    Raises:
        ConfigError: If a goal names an event or the spec an attribute that the history does not have.
    """
    around = _Surroundings.build(history, spec, preprocessing.bits, uses_pre)
    return _measure(history, spec, around, preprocessing)


@dataclass(frozen=True)
class GoalAmounts:
    """The amounts of each goal around the n decisions of a history, before they are weighted and summed.

    Attributes:
        before: In the window before, scaled to the post window (G, n).
        after: In the window after, scaled to its full length where it was truncated (G, n).
        occurs: Whether the goal's event occurs in the window after (G, n).
        reason: Why the window after, taken alone, tells nothing: a code of `Reason`, `Reason.IDENTIFIED` where it
            does (n,).
        largest: Upper bounds of the goals' amounts, as in `FittedPreprocessing` (G,).
        limits: Their limits (G,).
    """

    before: FloatArray
    after: FloatArray
    occurs: BoolArray
    reason: IntArray
    largest: FloatArray
    limits: FloatArray


def measure_by_goal(history: History, spec: RewardSpec, *, uses_pre: bool = True) -> GoalAmounts:
    """Measure each goal of a spec by itself, in the windows and with the limits that `measure` has.

    Raises:
        ConfigError: If a goal names an event that the history does not have.
        NotIdentified: If the order of decisions and goal events is not known: see `check_order_is_known`.
    """
    check_order_is_known(history, spec.goals)
    spec = replace(spec, matching=Matching())
    fitted, around = _fit_goals(history, spec, uses_pre)
    return _measure_by_goal(history, spec, fitted, around)


def fit_goals(history: History, spec: RewardSpec) -> FittedPreprocessing:
    """Fit what each goal of a spec is measured with by itself: limits, scales and seasonality."""
    return _fit_goals(history, replace(spec, matching=Matching()), uses_pre=True)[0]


def _fit_goals(history: History, spec: RewardSpec, uses_pre: bool) -> tuple[FittedPreprocessing, _Surroundings]:
    """Fit what the goals of a spec without matching are measured with; return the windows too, which are found once."""
    largest = largest_amounts(spec.goals, history)
    around = _Surroundings.build(history, spec, [fit_bits(amount) for amount in largest], uses_pre)
    fitted = FittedPreprocessing.fit(
        history, spec, around.windows, around.observed, around.activity, largest, adjust=False
    )
    return fitted, around


def measure_by_goal_with(history: History, spec: RewardSpec, fitted: FittedPreprocessing) -> GoalAmounts:
    """Measure each goal of a spec by itself, with what `fit_goals` has fitted on this or on another history."""
    spec = replace(spec, matching=Matching())
    return _measure_by_goal(history, spec, fitted, _Surroundings.build(history, spec, fitted.bits, uses_pre=True))


def _measure_by_goal(
    history: History, spec: RewardSpec, fitted: FittedPreprocessing, around: _Surroundings
) -> GoalAmounts:
    windows = around.windows
    before, after = _goal_amounts(history, spec, windows, fitted)
    first, last = windows.after.rows
    found = (history.are_events([goal.event], GOALS_SETTING) for goal in spec.goals)
    counts = (running_totals(chosen.astype(np.int64)) for chosen in found)
    return GoalAmounts(
        before=before,
        after=after,
        occurs=np.stack([count[last] > count[first] for count in counts]),
        reason=_reasons_after(history, spec, windows, around.short),
        largest=fitted.largest,
        limits=fitted.limits,
    )


def _reasons_after(history: History, spec: RewardSpec, windows: Windows, short: BoolArray) -> IntArray:
    """Return why the window after each decision, taken alone, tells nothing (n,): codes of `Reason`."""
    d, end = history.decisions, windows.boundary + windows.post
    reason = np.full(len(d), Reason.IDENTIFIED, dtype=np.int64)
    if spec.overlap == "exclude":
        reason[Messages.from_history(history).others_active(history, 0, windows.post)] = Reason.OVERLAPPING
    reason[short] = Reason.TOO_SHORT
    late, early = end > history.observed_until[d.user] + 1, windows.boundary < history.observed_from[d.user]
    reason[late | early] = Reason.USER_NOT_OBSERVED
    reason[(end > history.span[1] + 1) | (windows.boundary < history.span[0])] = Reason.OUTSIDE_OBSERVATION
    reason[d.time > history.churned_at[d.user]] = Reason.CHURNED
    return reason


def _measure(history: History, spec: RewardSpec, around: _Surroundings, fitted: FittedPreprocessing) -> Outcomes:
    """Sum the goals in the windows around every decision of a history.

    Every window is a difference of two running totals, whose rows are found by bisection for all decisions at once:
    no loop over users or decisions.
    """
    d, windows = history.decisions, around.windows
    pre, post = _goal_values(history, spec, windows, fitted)
    overlap = Messages.from_history(history).others_active(history, -windows.pre, windows.post)
    treated = history.modules.sends(d.actions)

    reason = np.full(len(d), Reason.IDENTIFIED, dtype=np.int64)
    reason[np.isnan(post) | np.isnan(pre)] = Reason.NO_SEASONALITY
    reason[around.short] = Reason.TOO_SHORT
    reason[around.user_outside] = Reason.USER_NOT_OBSERVED
    reason[around.outside] = Reason.OUTSIDE_OBSERVATION
    reason[d.time > history.churned_at[d.user]] = Reason.CHURNED
    observed = reason == Reason.IDENTIFIED
    pre = np.where(observed & (windows.boundary - windows.pre < history.observed_from[d.user]), np.nan, pre)
    allowed = ~overlap | (spec.controls != "untouched" and spec.overlap != "exclude")
    if spec.controls == "holdout":
        allowed = allowed & in_arms(history, spec.holdout_arms)
    return Outcomes(
        pre=pre,
        post=post,
        treated=treated,
        control=~treated & allowed & observed,
        overlap=overlap,
        observed=observed,
        reason=reason,
        time_bucket=d.time // duration(spec.time_bucket),
        within=fitted.attribute_codes(history, spec.matching.within)[d.user],
        stratum=fitted.stratum(around.activity),
        user=d.user,
        actions=d.actions,
        available_at=d.time + windows.post,
        fold=fold_of_users(history)[d.user],
        p_nothing=_p_nothing(history, spec, treated),
        p_uncensored=p_uncensored(history, censoring_time(spec)),
        covariates=np.zeros((len(d), 0)) if fitted.features is None else fitted.features.covariates(history),
        preprocessing=fitted,
    )


def _p_nothing(history: History, spec: RewardSpec, treated: BoolArray) -> FloatArray:
    """Return the probability of sending nothing (n,): see `Outcomes.p_nothing`."""
    d = history.decisions
    unknown = treated | ~np.isin(d.propensity_source, (LOGGED, BY_DESIGN))
    if spec.controls == "holdout":
        unknown = unknown | in_arms(history, spec.holdout_arms)
    return np.where(unknown, np.nan, d.propensity[:, 0])


def _goal_values(
    history: History, spec: RewardSpec, windows: Windows, fitted: FittedPreprocessing
) -> tuple[FloatArray, FloatArray]:
    """Return goal values before and after (n,): limited, less the seasonal level, weighted, per post window."""
    before, after = _goal_amounts(history, spec, windows, fitted)
    pre, post = np.zeros(len(windows.end)), np.zeros(len(windows.end))
    for goal, first, second in zip(spec.goals, before, after, strict=True):
        pre += goal.weight * first
        post += goal.weight * second
    return pre, post


def _goal_amounts(
    history: History, spec: RewardSpec, windows: Windows, fitted: FittedPreprocessing
) -> tuple[FloatArray, FloatArray]:
    """Return the amounts of each goal before and after (G, n): limited, less the seasonal level, per post window."""
    bits = fitted.bits
    before, after = limited_amounts(spec.goals, fitted.limits, bits, history, windows)
    if fitted.seasonality is not None:
        usual = seasonal_amounts(
            history, spec.goals, bits, fitted.seasonality, spec.seasonality_weeks, windows.pre, windows.end
        )
        for g, (goal, limit) in enumerate(zip(spec.goals, fitted.limits, strict=True)):
            full = goal.mass(0, windows.post)
            before[g] -= np.minimum(usual[0][g] * (full / goal.mass(0, windows.pre)), limit)
            after[g] -= np.minimum(usual[1][g] * (full / goal.mass(np.zeros(len(windows.end)), windows.end)), limit)
    return before, after


def fold_of_users(history: History) -> IntArray:
    """Return a stable hash of every user's id (U,), below `MAX_FOLDS`."""
    return np.asarray(derive(history.user_keys, _FOLD_SALT) % np.uint64(MAX_FOLDS), dtype=np.int64)


def _time_to_next_message(history: History, otherwise: int) -> IntArray:
    """Return the time to the user's next message, strictly after each decision (n,); `otherwise` if there is none."""
    d = history.decisions
    sent = history.modules.sends(d.actions)
    messages = Timeline(d.time[sent], np.searchsorted(d.user[sent], np.arange(history.n_users + 1)))
    row = messages.before(d.user, d.time, inclusive=True)
    found = row < messages.offsets[d.user + 1]
    following = np.append(messages.time, 0)[row]
    return np.where(found, following - d.time, otherwise)
