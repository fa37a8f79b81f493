"""Event study: the effect of sending by time since the decision; what comes before it are pre-trends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.times import DAY, duration
from crosschannel.histories.history import History
from crosschannel.reward.effects.estimates import Effect, Study, tidy
from crosschannel.reward.effects.inference import JointTest, joint_test
from crosschannel.reward.frame import IDENTIFIED, OUTSIDE, OVERLAPPING
from crosschannel.reward.measurement.messages import Messages
from crosschannel.reward.measurement.outcomes import Outcomes, RewardSpec, measure
from crosschannel.reward.spec import Matching

BASE = -1
# Bins that the post window is divided into at most, and bins that are tested at least where the log is long enough.
MOST_LAGS, LEAST_TESTED = 4, 3


@dataclass(frozen=True)
class EventTimes:
    """Which bins of time around a decision are looked at.

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
    def fitting(cls, study: Study) -> EventTimes:
        """Bins that fit a study's windows: the post window is a whole number of them, the pre window is covered.

        A bin is a whole number of days where that divides the post window into at most `MOST_LAGS` bins (shorter ones
        would show the hours of the day), and else the whole post window. `LEAST_TESTED` bins lie before all that
        the study's covariates and strata look at.
        """
        pre, post = duration(study.model.spec.pre), duration(study.model.spec.post)
        days = [k for k in range(MOST_LAGS, 1, -1) if post % (k * DAY) == 0]
        lags = days[0] if days else 1
        length = post // lags
        leads = max(-(-pre // length), -(-lookback(study) // length) + LEAST_TESTED, 1 + LEAST_TESTED)
        return cls(f"{length // DAY}d" if days else study.model.spec.post, leads, lags)

    @property
    def offsets(self) -> IntArray:
        """The bins, ascending (k,)."""
        return np.arange(-self.leads, self.lags, dtype=np.int64)


@dataclass(frozen=True)
class EventStudy:
    """Effects by event time.

    Attributes:
        times: The bins.
        kind: The reward kind that estimated them.
        effects: One a bin, in reward units per bin; NaN where the log does not identify it. That of the base is 0.
        influence: Influence of every user code on each (U, k).
        lookback: How far back from the decision covariates and strata look at events, microseconds.
        notes: What the bins leave out of the reward, one line each.
    """

    times: EventTimes
    kind: str
    effects: list[Effect]
    influence: FloatArray
    lookback: int
    notes: tuple[str, ...]

    @property
    def value(self) -> FloatArray:
        """The effects (k,)."""
        return np.array([effect.value for effect in self.effects])

    @property
    def leads(self) -> BoolArray:
        """Which bins are tested as pre-trends (k,): identified, before the base and before what covariates look at."""
        usable = np.array([effect.se > 0 for effect in self.effects])
        ends = (self.times.offsets + 1) * duration(self.times.bin)
        return np.asarray((self.times.offsets < BASE) & (ends <= -self.lookback) & usable)

    def pre_trends(self) -> JointTest:
        """Joint test that nothing differs before the decision."""
        chosen = self.leads
        return joint_test(self.value[chosen], self.influence[:, chosen])

    def to_pandas(self) -> pd.DataFrame:
        """The effects as a tidy table; the label is the bin's start in days after the decision."""
        return tidy({"event time": self.effects})


def event_study(study: Study, history: History, times: EventTimes | None = None) -> EventStudy:
    r"""Estimates the effect in bins before and after the decision, relative to the base bin.

    .. math:: \hat\theta_k = \widehat{ATT} \text{ of } Y_k - Y_{-1}, \qquad k = -K, \dots, L - 1

    each by the study's own reward kind, with the same decisions, cells, controls, covariates and propensities. Without
    messages all are 0 if treated and controls move in parallel; so the leads, k < -1, test what cannot be tested for
    k >= 0. `raw` has no base: it shows the level in each bin.

    What an adjusted kind assumes is that, given what was known at t, sending tells nothing more about the user; then
    it tells nothing about the user's past either, and every lead is 0. But a regression that is given the sum of the
    last four days cannot find a difference within them, whoever is sent to: there leads are near 0 by construction.
    So only bins before all that covariates (and strata of past activity) look at are tested, against a base that lies
    within it; this is the test on a lagged outcome that was not adjusted for of Imbens & Rubin (2015), "Causal
    inference for statistics, social, and biomedical sciences", chapter 21. Propensities that were logged balance all
    that came before the decision, so with them each lead is 0 if they are the true ones. Features without a window
    ("days since") look farther still, which costs the test power and not its level.

    Bins sum events as the goals do, each with the goal's limit (a quantile is learned from the bins next to the
    decision), but credit does not fade and windows are not truncated: `EventStudy.notes` says so.

    Where overlapping decisions are excluded, bin k uses the decisions (of both sides) with no other message between
    it and the base, so that each bin is clean, and far ones rest on fewer decisions. A lead is then about those whom
    no message reached since: they are chosen on both sides by what was known before the decision, which makes no
    difference where there is none, but tests the trends of these users alone. A lag beyond the spacing of messages
    then compares decisions that are chosen by what happened after them: read lags within the post window.
    Freyaldenhoven, Hansen & Shapiro (2019), "Pre-event trends in the panel event-study design", American Economic
    Review.
    """
    times = times or EventTimes.fitting(study)
    length = duration(times.bin)
    spec = _plain(study.model.spec, times.bin)
    around = measure(_shifted(history, 0), spec)
    effects, influences = [], []
    for k in times.offsets:
        label = f"{k * length / DAY:g} d"
        if k == BASE:
            effects.append(Effect(label, 0.0, 0.0, 0, 0))
            influences.append(np.zeros(study.influences.users))
            continue
        moved = measure(_shifted(history, int(k if k >= 0 else k + 1) * length), spec, around.gauge)
        first, last = min(int(k), BASE) * length, max(int(k) + 1, 0) * length
        outcomes = replace(study.outcomes, pre=around.pre, post=moved.post if k >= 0 else moved.pre)
        try:
            bins = refitted(study, history, outcomes, moved.observed & around.observed, first, last)
            effect, influence = bins.effect_and_influence(None, label)
        except NotIdentified:  # the odds of a doubly robust kind need both sent and unsent decisions in the bin
            effect = Effect(label, np.nan, np.nan, 0, 0, int(study.outcomes.treated.sum()))
            influence = np.zeros(study.influences.users)
        effects.append(effect)
        influences.append(influence)
    stacked = np.stack(influences, axis=1)
    return EventStudy(times, study.model.name, effects, stacked, lookback(study), _notes(study, times))


def lookback(study: Study) -> int:
    """How far back from a decision the study's covariates and strata look at events, microseconds; 0 if they do not."""
    matching, features = study.model.spec.matching, study.outcomes.gauge.features
    past = duration(study.model.spec.pre) + duration(matching.activity) if matching.strata > 1 else 0
    return max(past, 0 if features is None else features.lookback)


def moved_back(study: Study, history: History, shift: int) -> Study:
    """The whole design `shift` microseconds before the decisions: windows, covariates, strata and propensities.

    The decisions, their cells and who was sent to stay, so the effect should be 0. Everything that the design knows of
    a decision is what was known at the moved time: an estimated propensity is that of sending `shift` later, given
    this. Logged propensities stay as they are: they depend on what happened since, but if they are the true ones,
    controls weighted with the odds are like the treated in everything before the decision, the moved windows included.
    Where overlapping decisions are excluded, those with another message since the moved windows began are left out.
    """
    o, spec = study.outcomes, study.model.spec
    whole = replace(spec, overlap="shared", controls="not_sent", holdout_arms=())
    moved = measure(_shifted(history, -shift), whole, replace(o.gauge, features=None))
    features = o.gauge.features
    outcomes = replace(
        o,
        pre=moved.pre,
        post=moved.post,
        stratum=moved.stratum,
        covariates=o.covariates if features is None else features.covariates(history, -shift),
    )
    return refitted(study, history, outcomes, moved.observed, -(shift + duration(spec.pre)), 0)


def refitted(study: Study, history: History, outcomes: Outcomes, seen: BoolArray, first: int, last: int) -> Study:
    """The study's model fitted on other outcomes of its decisions, of those (n,) whose windows were `seen`.

    If it excludes overlap, also without other messages from `first` to `last` microseconds around the decision.
    """
    o = outcomes
    reason, overlap = np.where((o.reason == IDENTIFIED) & ~seen, OUTSIDE, o.reason), o.overlap
    if study.model.spec.overlap == "exclude":
        overlap = overlap | messages_between(history, first, last)
        reason = np.where((reason == IDENTIFIED) & overlap, OVERLAPPING, reason)
    control = o.control & (reason == IDENTIFIED)
    changed = replace(o, observed=o.observed & seen, reason=reason, overlap=overlap, control=control)
    return Study.of_outcomes(study.model, changed)


def messages_between(history: History, first: int, last: int) -> BoolArray:
    """Whether another message is in force within `first` to `last` microseconds of each decision (n,)."""
    return Messages.of(history).others(history, first, last)


def _shifted(history: History, shift: int) -> History:
    """The history with its decisions `shift` microseconds later, churn or not, to measure windows around them."""
    decisions = replace(history.decisions, time=history.decisions.time + shift)
    return replace(history, decisions=decisions, churn_events=())


def _plain(spec: RewardSpec, length: str) -> RewardSpec:
    """The spec with windows of a bin, in which every event counts alike and none is cut short."""
    goals = tuple(replace(goal, credit="uniform", half_life=None) for goal in spec.goals)
    return replace(
        spec,
        goals=goals,
        pre=length,
        post=length,
        overlap="shared",
        controls="not_sent",
        holdout_arms=(),
        matching=Matching(),
    )


def _notes(study: Study, times: EventTimes) -> tuple[str, ...]:
    """What the bins leave out of the reward."""
    spec, bin_, back = study.model.spec, times.bin, lookback(study)
    limited = [goal.event for goal in spec.goals if goal.clip is not None or goal.winsor is not None]
    fading = [goal.event for goal in spec.goals if goal.decay is not None]
    notes = []
    if back:
        notes.append(f"bins within {back / DAY:g} d before the decision are not tested: covariates or strata see them")
    if limited and not duration(bin_) == duration(spec.pre) == duration(spec.post):
        notes.append(f"the limit of {', '.join(limited)} holds for each bin of {bin_}: they do not add up")
    if fading:
        notes.append(f"the credit of {', '.join(fading)} fades in the reward, not in the bins")
    if spec.overlap == "truncate":
        notes.append("the reward's windows end at the next message; bins hold what later messages did as well")
    if duration(spec.post) % duration(bin_):
        notes.append(f"the post window of {spec.post} is not a whole number of bins of {bin_}")
    return tuple(notes)
