"""Event study: the effect of sending by time since the decision; what comes before it are pre-trends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from histories.errors import ConfigError
from histories.history import History
from histories.modules import BoolArray, FloatArray, IntArray
from histories.times import DAY, duration
from histories.windows import Timeline
from reward.effects import Effect, Study, tidy
from reward.frame import IDENTIFIED, OUTSIDE, OVERLAPPING
from reward.goals import Goal
from reward.inference import JointTest, joint_test
from reward.outcomes import RewardSpec, measure
from reward.spec import Matching

BASE = -1


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
    """

    times: EventTimes
    kind: str
    effects: list[Effect]
    influence: FloatArray

    @property
    def value(self) -> FloatArray:
        """The effects (k,)."""
        return np.array([effect.value for effect in self.effects])

    @property
    def leads(self) -> BoolArray:
        """Which bins are tested as pre-trends: identified, and before the base (k,)."""
        usable = np.array([effect.se > 0 for effect in self.effects])
        return np.asarray((self.times.offsets < BASE) & usable)

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

    each by the study's own reward kind, with the same decisions, cells, controls and covariates. Without messages
    all are 0 if treated and controls move in parallel; so the leads, k < -1, test what cannot be tested for k >= 0.
    `raw` has no base: it shows the level in each bin.

    Where overlapping decisions are excluded, bin k uses the decisions (of both sides) with no other message between
    it and the base, so that each bin is clean, and far ones rest on fewer decisions. A lag beyond the spacing of
    messages then compares decisions that are chosen by what happened after them: read lags within the post window.
    Freyaldenhoven, Hansen & Shapiro (2019), "Pre-event trends in the panel event-study design", American Economic
    Review.
    """
    times = times or EventTimes()
    length = duration(times.bin)
    spec = _plain(study.model.spec, times.bin)
    base, _, in_span = windows(history, spec, 0)
    effects, influences = [], []
    for k in times.offsets:
        label = f"{k * length / DAY:g} d"
        if k == BASE:
            effects.append(Effect(label, 0.0, 0.0, 0, 0))
            influences.append(np.zeros(study.influences.users))
            continue
        before, after, seen = windows(history, spec, int(k if k >= 0 else k + 1) * length)
        first, last = min(int(k), BASE) * length, max(int(k) + 1, 0) * length
        moved = moved_study(study, history, base, after if k >= 0 else before, seen & in_span, first, last)
        effect, influence = moved.effect_and_influence(None, label)
        effects.append(effect)
        influences.append(influence)
    return EventStudy(times, study.model.name, effects, np.stack(influences, axis=1))


def moved_study(
    study: Study, history: History, pre: FloatArray, post: FloatArray, seen: BoolArray, first: int, last: int
) -> Study:
    """The study with other values before and after, for the decisions (n,) that were `seen`.

    If it excludes overlap, also without other messages from `first` to `last` microseconds around the decision.
    """
    o = study.outcomes
    reason, overlap = np.where((o.reason == IDENTIFIED) & ~seen, OUTSIDE, o.reason), o.overlap
    if study.model.spec.overlap == "exclude":
        overlap = overlap | messages_between(history, first, last)
        reason = np.where((reason == IDENTIFIED) & overlap, OVERLAPPING, reason)
    outcomes = replace(
        o,
        pre=pre,
        post=post,
        observed=o.observed & seen,
        reason=reason,
        overlap=overlap,
        control=o.control & (reason == IDENTIFIED),
    )
    return Study.of_outcomes(study.model, outcomes)


def windows(history: History, spec: RewardSpec, shift: int) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Goal values (n,) before and after moments `shift` microseconds away from the decisions, and whether observed."""
    d = history.decisions
    alone = replace(spec, overlap="shared", controls="not_sent", holdout_arms=(), matching=Matching(), gone_events=())
    moved = measure(replace(history, decisions=replace(d, time=d.time + shift)), alone)
    return moved.pre, moved.post, moved.observed


def messages_between(history: History, first: int, last: int) -> BoolArray:
    """Whether the user got another message within `first` to `last` microseconds of each decision (n,)."""
    d = history.decisions
    sent = history.modules.sent(d.actions)
    offsets = np.searchsorted(d.user[sent], np.arange(history.n_users + 1)).astype(np.int64)
    messages = Timeline(d.time[sent], offsets)
    # A message at the far end itself has no time to act within the bin.
    count = messages.before(d.user, d.time + last) - messages.before(d.user, d.time + first)
    inside = sent & (first <= 0 < last)
    return np.asarray(count - inside > 0)


def _plain(spec: RewardSpec, length: str) -> RewardSpec:
    """The spec with windows of a bin, in which every event counts alike and none is cut short."""
    goals = tuple(Goal(goal.event, goal.weight, goal.measure, goal.clip) for goal in spec.goals)
    overlap = "shared" if spec.overlap == "truncate" else spec.overlap
    return replace(spec, goals=goals, pre=length, post=length, overlap=overlap)
