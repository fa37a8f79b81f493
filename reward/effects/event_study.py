"""Event study: the effect of sending by time since the decision; before the decision it shows pre-trends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.times import DAY, duration
from crosschannel.histories.history import History
from crosschannel.reward.effects.estimates import Effect, TreatmentEffects, effects_table
from crosschannel.reward.effects.inference import InfluenceProducts, JointTest, joint_test
from crosschannel.reward.measurement.messages import Messages
from crosschannel.reward.measurement.outcomes import Outcomes, measure, measure_with
from crosschannel.reward.measurement.preprocessing import FittedPreprocessing
from crosschannel.reward.reason import Reason
from crosschannel.reward.spec import Matching, RewardSpec

BASE = -1
# Into how many bins the post window is divided at most.
MAX_LAGS = 4
# How many bins are tested as pre-trends at least, where the log is long enough.
MIN_TESTED_LEADS = 3


@dataclass(frozen=True)
class EventTimes:
    """The bins of time around a decision.

    Attributes:
        bin: Length of a bin. Bin k >= 0 is `(t + k bin, t + (k + 1) bin]`, and before the decision
            `[t + k bin, t + (k + 1) bin)`; bin -1, the last before it, is the base of all others.
        leads: Bins before the decision, the base among them.
        lags: Bins after it.
    """

    bin: str = "1d"
    leads: int = 4
    lags: int = 3

    def __post_init__(self) -> None:
        duration(self.bin)
        if self.leads < 1 or self.lags < 0:
            raise ConfigError(f"leads {self.leads} must be at least 1 (the base), lags {self.lags} at least 0")

    @classmethod
    def default_for(cls, fitted: TreatmentEffects) -> EventTimes:
        """Return bins that fit the windows: the post window is a whole number of them, the pre window is covered.

        A bin is a whole number of days where that divides the post window into at most `MAX_LAGS` bins (shorter ones
        would show the hours of the day), and else the whole post window. `MIN_TESTED_LEADS` bins lie before all events
        that covariates and strata use.
        """
        return cls.default_for_windows(fitted.model.spec, lookback(fitted))

    @classmethod
    def default_for_windows(cls, spec: RewardSpec, back: int) -> EventTimes:
        """Return bins that fit windows, where covariates and strata use events up to `back` microseconds ago."""
        pre, post = duration(spec.pre), duration(spec.post)
        days = [k for k in range(MAX_LAGS, 1, -1) if post % (k * DAY) == 0]
        lags = days[0] if days else 1
        length = post // lags
        leads = max(-(-pre // length), -(-back // length) + MIN_TESTED_LEADS, 1 + MIN_TESTED_LEADS)
        return cls(f"{length // DAY}d" if days else spec.post, leads, lags)

    def label(self, k: int) -> str:
        """Return the name of a bin: its start in days after the decision."""
        return f"{k * duration(self.bin) / DAY:g} d"

    @property
    def offsets(self) -> IntArray:
        """The bins, ascending (k,)."""
        return np.arange(-self.leads, self.lags, dtype=np.int64)


def windows_of_days(days: int) -> EventTimes:
    """Return one bin of whole days before the decision, and one after it."""
    return EventTimes(f"{days}d", 1, 1)


@dataclass(frozen=True)
class EventStudy:
    """Effects by event time.

    Attributes:
        times: The bins.
        kind: The reward kind that estimated them.
        effects: One per bin, in reward units per bin; NaN where the log does not identify it. That of the base is 0.
        influence: The influence of users on all of them.
        lookback: How far before the decision the events lie that covariates and strata use, microseconds.
        notes: What the bins leave out of the reward, one line each.
    """

    times: EventTimes
    kind: str
    effects: list[Effect]
    influence: InfluenceProducts
    lookback: int
    notes: tuple[str, ...]

    @property
    def value(self) -> FloatArray:
        """The effects (k,)."""
        return np.array([effect.value for effect in self.effects])

    @property
    def leads(self) -> BoolArray:
        """Which bins are tested as pre-trends (k,): identified, before the base and before what covariates use."""
        usable = np.array([effect.se > 0 for effect in self.effects])
        ends = (self.times.offsets + 1) * duration(self.times.bin)
        return np.asarray((self.times.offsets < BASE) & (ends <= -self.lookback) & usable)

    def pre_trends(self) -> JointTest:
        """Test jointly that nothing differs before the decision."""
        chosen = self.leads
        return joint_test(self.value[chosen], self.influence.select(chosen))

    def to_pandas(self) -> pd.DataFrame:
        """Return the effects as a tidy table; the label is the bin's start in days after the decision."""
        return effects_table({"event time": self.effects})


def event_study(fitted: TreatmentEffects, history: History, times: EventTimes | None = None) -> EventStudy:
    r"""Estimate the effect in bins before and after the decision, relative to the base bin.

    .. math:: \hat\theta_k = \widehat{ATT} \text{ of } Y_k - Y_{-1}, \qquad k = -K, \dots, L - 1

    each by the model's own reward kind, with the same decisions, cells, controls, covariates and propensities. Without
    messages all are 0 if treated and controls move in parallel; so the leads, k < -1, test what cannot be tested for
    k >= 0. `raw` has no base: it shows the level in each bin.

    An adjusted kind assumes that, given what was known at t, sending does not depend on anything else about the user;
    then it does not depend on the user's past either, and every lead is 0. But a regression on the sum of the last four
    days cannot find a difference within them, whoever gets the messages: there leads are near 0 by construction. So
    only bins before all events that covariates and strata of past activity use are tested, against a base that lies
    within them; this is the test on a lagged outcome that was not adjusted for of Imbens & Rubin (2015), "Causal
    inference for statistics, social, and biomedical sciences", chapter 21. Logged propensities balance everything that
    came before the decision, so with them each lead is 0 if they are the true ones. Features without a window ("days
    since") use earlier events still, which costs the test power and does not change its level.

    Bins sum events as the goals do, each with the goal's limit (a quantile is learned from the bins next to the
    decision), but credit does not decay and windows are not truncated: `EventStudy.notes` lists what differs.

    Where overlapping decisions are excluded, bin k uses the decisions (of both sides) with no other message between
    it and the base, so that no bin holds the effect of another message, and far ones rest on fewer decisions. A lead is
    then about users whom no message reached since: they are selected on both sides by what was known before the
    decision, which does not cause a difference where there is none, but the lead tests the trends of these users alone.
    A lag beyond the spacing of messages compares decisions that are selected by what happened after them: read lags
    within the post window.
    Freyaldenhoven, Hansen & Shapiro (2019), "Pre-event trends in the panel event-study design", American Economic
    Review.
    """
    times = times or EventTimes.default_for(fitted)
    spec = fitted.model.spec
    around = measure_base(history, spec, times)
    effects, influences = [], []
    for k in times.offsets:
        label = times.label(k)
        if k == BASE:
            effects.append(Effect(label, 0.0, 0.0, n_treated=0, n_controls=0))
            influences.append(np.zeros(fitted.influences.users))
            continue
        bins = bin_outcomes(fitted.outcomes, history, spec, times, around, int(k))
        try:
            effect, influence = TreatmentEffects.fit_outcomes(fitted.model, bins).effect_and_influence(None, label)
        except NotIdentified:  # the odds of a doubly robust kind need both sent and unsent decisions in the bin
            effect = Effect.not_identified(label, n_without=int(fitted.outcomes.treated.sum()))
            influence = np.zeros(fitted.influences.users)
        effects.append(effect)
        influences.append(influence)
    return EventStudy(
        times=times,
        kind=fitted.model.name,
        effects=effects,
        influence=InfluenceProducts.from_users(np.stack(influences, axis=1)),
        lookback=lookback(fitted),
        notes=notes_on_bins(spec, times, lookback(fitted)),
    )


def measure_base(
    history: History, spec: RewardSpec, times: EventTimes, preprocessing: FittedPreprocessing | None = None
) -> Outcomes:
    """Measure the bins next to the decisions, with a preprocessing that was fitted to them or is fitted here."""
    around, alone = shifted(history, 0), _bin_spec(spec, times.bin)
    return measure(around, alone) if preprocessing is None else measure_with(around, alone, preprocessing)


def bin_outcomes(
    outcomes: Outcomes, history: History, spec: RewardSpec, times: EventTimes, around: Outcomes, k: int
) -> Outcomes:
    """Return the outcomes of the same decisions with bin k less the base bin as their change.

    Args:
        outcomes: What the reward measured.
        history: The history.
        spec: The settings of the reward.
        times: The bins.
        around: The bins next to the decisions: see `measure_base`.
        k: The bin; not that of the base.
    """
    length = duration(times.bin)
    moved = measure_shifted(history, spec, times, around, (k if k >= 0 else k + 1) * length)
    first, last = min(k, BASE) * length, max(k + 1, 0) * length
    changed = replace(outcomes, pre=around.pre, post=moved.post if k >= 0 else moved.pre)
    return seen_outcomes(changed, history, spec, moved.observed & around.observed, first, last)


def measure_shifted(history: History, spec: RewardSpec, times: EventTimes, around: Outcomes, shift: int) -> Outcomes:
    """Measure the bins next to a time `shift` microseconds after the decisions, as `around` was: see `measure_base`."""
    return measure_with(shifted(history, shift), _bin_spec(spec, times.bin), around.preprocessing)


def lookback(fitted: TreatmentEffects) -> int:
    """Return how far before a decision the events lie that covariates and strata use, microseconds; 0 if none."""
    features = fitted.outcomes.preprocessing.features
    return max(lookback_of_strata(fitted.model.spec), 0 if features is None else features.lookback)


def lookback_of_strata(spec: RewardSpec) -> int:
    """Return how far before a decision the events lie that strata use, microseconds; 0 without strata."""
    return duration(spec.pre) + duration(spec.matching.activity) if spec.matching.strata > 1 else 0


def moved_back(fitted: TreatmentEffects, history: History, shift: int) -> TreatmentEffects:
    """Move the whole design `shift` microseconds before the decisions: windows, covariates, strata and propensities.

    The decisions, their time buckets and the treatment stay, so the effect should be 0. All that the design uses about
    a decision was known at the moved time: an estimated propensity is that of sending `shift` later, given this. Logged
    propensities stay as they are: they depend on what happened since, but if they are the true ones, controls weighted
    with the odds are like the treated in everything before the decision, the moved windows included. Where overlapping
    decisions are excluded, those with another message since the moved windows began are left out.
    """
    return TreatmentEffects.fit_outcomes(
        fitted.model, moved_outcomes(fitted.outcomes, history, fitted.model.spec, shift)
    )


def moved_outcomes(outcomes: Outcomes, history: History, spec: RewardSpec, shift: int) -> Outcomes:
    """Return the outcomes of the same decisions, measured `shift` microseconds before: see `moved_back`."""
    o = outcomes
    whole = replace(spec, overlap="shared", controls="not_sent", holdout_arms=())
    moved = measure_with(shifted(history, -shift), whole, replace(o.preprocessing, features=None))
    features = o.preprocessing.features
    changed = replace(
        o,
        pre=moved.pre,
        post=moved.post,
        stratum=moved.stratum,
        covariates=o.covariates if features is None else features.covariates(history, -shift),
    )
    return seen_outcomes(changed, history, spec, moved.observed, -(shift + duration(spec.pre)), 0)


def seen_outcomes(
    outcomes: Outcomes, history: History, spec: RewardSpec, seen: BoolArray, first: int, last: int
) -> Outcomes:
    """Return outcomes without the decisions (n,) whose windows were not `seen`.

    If the spec excludes overlap, leave out those with another message from `first` to `last` microseconds around them.
    """
    o = outcomes
    reason = np.where((o.reason == Reason.IDENTIFIED) & ~seen, Reason.OUTSIDE_OBSERVATION, o.reason)
    overlap = o.overlap
    if spec.overlap == "exclude":
        overlap = overlap | messages_between(history, first, last)
        reason = np.where((reason == Reason.IDENTIFIED) & overlap, Reason.OVERLAPPING, reason)
    control = o.control & (reason == Reason.IDENTIFIED)
    return replace(o, observed=o.observed & seen, reason=reason, overlap=overlap, control=control)


def messages_between(history: History, first: int, last: int) -> BoolArray:
    """Return whether another message is active within `first` to `last` microseconds of each decision (n,)."""
    return Messages.from_history(history).others_active(history, first, last)


def shifted(history: History, shift: int) -> History:
    """Return the history with its decisions `shift` microseconds later and without churn, to measure windows there."""
    decisions = replace(history.decisions, time=history.decisions.time + shift)
    return replace(history, decisions=decisions, churn_events=())


def _bin_spec(spec: RewardSpec, length: str) -> RewardSpec:
    """Return the spec with windows of a bin, in which every event counts alike and none is cut short."""
    goals = tuple(replace(goal, credit="uniform", half_life=None) for goal in spec.goals)
    return replace(
        spec,
        goals=goals,
        funnel=None,
        pre=length,
        post=length,
        overlap="shared",
        controls="not_sent",
        holdout_arms=(),
        matching=Matching(),
    )


def notes_on_bins(spec: RewardSpec, times: EventTimes, back: int) -> tuple[str, ...]:
    """Return what the bins leave out of the reward, in words; covariates and strata use events `back` ago."""
    bin_ = times.bin
    limited = [goal.event for goal in spec.goals if goal.clip is not None or goal.winsor is not None]
    decaying = [goal.event for goal in spec.goals if goal.decay is not None]
    notes = []
    if back:
        notes.append(f"bins within {back / DAY:g} d before the decision are not tested: covariates or strata use them")
    if limited and not duration(bin_) == duration(spec.pre) == duration(spec.post):
        notes.append(
            f"the limit of {', '.join(limited)} holds for each bin of {bin_}: the bins do not add up to the window"
        )
    if decaying:
        notes.append(f"the credit of {', '.join(decaying)} decays in the reward, not in the bins")
    if spec.overlap == "truncate":
        notes.append("the reward's windows end at the next message; bins hold the effect of later messages as well")
    if duration(spec.post) % duration(bin_):
        notes.append(f"the post window of {spec.post} is not a whole number of bins of {bin_}")
    return tuple(notes)
