"""Can the effects be believed? Pre-trends, placebos, overlap and controls, with a verdict in plain words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import NotIdentified
from crosschannel.core.times import DAY, duration
from crosschannel.histories.history import History
from crosschannel.reward.effects.estimates import Effect, Study, strata
from crosschannel.reward.effects.event_study import EventStudy, event_study, moved_back
from crosschannel.reward.effects.inference import JointTest, detectable, joint_test, two_sided_p_value
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS
from crosschannel.reward.frame import IDENTIFIED, REASONS
from crosschannel.reward.models import DidReward
from crosschannel.reward.odds import ESTIMATED, LOGGED

# Levels of an attribute with fewer users on either side are left out of the placebo on controls.
FEWEST_USERS = 10
LEVEL = 0.05
FAILURES = {
    "pre-trends": "pre-trends differ",
    "placebo in time": "there is an effect before the message",
    "placebo on holdout": "decisions at which nothing was sent differ from those of the users held out",
}

Status = Literal["passed", "failed", "not tested"]


@dataclass(frozen=True)
class Check:
    """One diagnostic.

    Attributes:
        name: Which.
        status: `passed` says no more than that nothing was found.
        p_value: Its p-value; NaN where it has none.
        words: What it found, for the reader.
    """

    name: str
    status: Status
    p_value: float
    words: str


@dataclass(frozen=True)
class Diagnostics:
    """All diagnostics of a study.

    Attributes:
        checks: The tests.
        facts: What is not a test: overlap, controls, decisions left out; one line each.
        kind: The reward kind.
    """

    checks: tuple[Check, ...]
    facts: tuple[str, ...]
    kind: str

    @property
    def verdict(self) -> str:
        """One sentence: whether the effect may be read as causal, and if not, why."""
        if self.kind in WITHOUT_CONTROLS:
            return f"`{self.kind}` compares with nobody: do not read the average as causal."
        failed = [FAILURES.get(check.name, check.name) for check in self.checks if check.status == "failed"]
        open_ = [check.name for check in self.checks if check.status == "not tested"]
        if failed:
            rest = f" Not tested: {', '.join(open_)}." if open_ else ""
            return f"{' and '.join(failed).capitalize()}: do not read the effect as causal.{rest}"
        if open_:
            return f"Not tested: {', '.join(open_)}. Nothing else speaks against the effect, and nothing proves it."
        return "Nothing speaks against the effect; no test can prove it."

    def to_pandas(self) -> pd.DataFrame:
        """One row a check."""
        rows = [(c.name, c.status, c.p_value, c.words) for c in self.checks]
        return pd.DataFrame(rows, columns=["check", "status", "p_value", "words"])


def diagnose(study: Study, history: History, events: EventStudy | None = None) -> Diagnostics:
    """Runs every diagnostic that the log admits. `events` is the study's event study, if there is one already.

    The placebo on holdout needs an arm without messages; without one it is left out. The placebo on controls is told
    among the facts: controls that differ by an attribute call for `matching`, but do not make an effect wrong.
    """
    events = event_study(study, history) if events is None else events
    checks = (
        pre_trend_check(events),
        placebo_in_time(study, history),
        placebo_on_holdout(study, history),
        later_messages(study),
    )
    alike = placebo_on_controls(study, history)
    facts = (*facts_of(study), *([] if alike is None else [f"{alike.name}: {alike.words}"]))
    return Diagnostics(tuple(c for c in checks if c is not None), facts, study.model.name)


def pre_trend_check(events: EventStudy) -> Check:
    """Joint test over the tested leads, with the difference in a single bin that this joint test would have seen."""
    name, test = "pre-trends", events.pre_trends()
    if np.isnan(test.p_value):
        seen = (
            f" and before the {events.lookback / DAY:g} d that covariates or strata look at" if events.lookback else ""
        )
        words = f"no bin before the base{seen} is identified: ask for more leads, or the log begins too late"
        return Check(name, "not tested", np.nan, words)
    numbers = f"F test of {test.freedom} bins over {test.clusters:,} users, p = {test.p_value:.2g}"
    if test.p_value < LEVEL:
        worst = max(
            (e for e, lead in zip(events.effects, events.leads, strict=True) if lead), key=lambda e: abs(e.value / e.se)
        )
        found = f"treated and controls differ before the message ({numbers}; at {worst.label} by {worst.value:.3g})"
        return Check(name, "failed", test.p_value, found)
    size = detectable(events.influence[:, events.leads]).max()
    words = f"no difference found ({numbers}); it finds one of {size:.2g} in a single bin four times in five"
    return Check(name, "passed", test.p_value, words)


def placebo_in_time(study: Study, history: History) -> Check:
    """The whole design moved back by `pre + post`, to a time before the message: the effect there should be 0.

    For a kind that adjusts without logged propensities this asks more than the effect itself needs: it fails as well
    where messages answer what happened since the moved time, even if the covariates hold that by the time of sending.
    """
    name, effect = "placebo in time", time_placebo(study, history)
    if not effect.se > 0:
        return Check(name, "not tested", np.nan, "too few decisions have observed windows that far back")
    what = (
        "windows and covariates moved back by pre + post" if study.model.adjust else "windows moved back by pre + post"
    )
    check = _zero_check(name, effect, what)
    if check.status == "failed" and study.outcomes.gauge.features is not None:
        words = f"{check.words}; it fails also where messages answer what covariates learn only after the moved time"
        return replace(check, words=words)
    return check


def time_placebo(study: Study, history: History) -> Effect:
    """The effect that the design finds where there is none: both windows end at least `pre` before the decision."""
    spec = study.model.spec
    try:
        moved = moved_back(study, history, duration(spec.pre) + duration(spec.post))
    except NotIdentified:
        return Effect("placebo in time", np.nan, np.nan, 0, 0, int(study.outcomes.treated.sum()))
    return moved.effect(None, "placebo in time")


def _zero_check(name: str, effect: Effect, what: str) -> Check:
    p = two_sided_p_value(effect.value / effect.se, effect.n_users - 1)
    found = f"{what}: {effect.value:.3g}, 95 % from {effect.low:.3g} to {effect.high:.3g}, p = {p:.2g}"
    return Check(name, "failed" if p < LEVEL else "passed", p, found)


def placebo_on_holdout(study: Study, history: History) -> Check | None:
    """Users who were held out, taken as if they had been sent to: nobody was, so the effect should be 0.

    They are compared with the decisions of the other arms at which nothing was sent, and no other message fell into
    the windows. Users are held out at random, so a difference means that whom nothing was sent to was chosen by what
    their activity was about to do: such decisions are no fair controls of the treated either. None where no arm is
    held out.
    """
    name, held = "placebo on holdout", held_out(study, history)
    if study.model.name in WITHOUT_CONTROLS or not held.any():
        return None
    effect = holdout_placebo(study, held)
    if not effect.se > 0:
        return Check(name, "not tested", np.nan, "too few decisions without a message to compare with those held out")
    return _zero_check(name, effect, "users held out, as if sent to")


def held_out(study: Study, history: History) -> BoolArray:
    """Decisions (n,) of the arms that are held out: those that the spec names, or else those without any message.

    A decision without an arm is of none.
    """
    arm = history.decisions.arm
    if arm is None:
        return np.zeros(len(history.decisions), dtype=bool)
    text = np.asarray(arm).astype(str)
    named = study.model.spec.holdout_arms
    reached = np.unique(text[study.outcomes.treated])
    assigned = ~pd.isna(arm) & (text != "")
    return np.asarray(assigned & (np.isin(text, named) if named else ~np.isin(text, reached)))


def holdout_placebo(study: Study, held: BoolArray) -> Effect:
    """The effect of being held out (n,) on decisions at which nothing was sent."""
    o = study.outcomes
    held = held & ~o.treated
    others = ~held & ~o.treated & o.observed & ~o.overlap
    # What was not sent to represents everyone if it is weighted with 1 / P(nothing): odds of p / (1 + p) for nothing.
    chance = np.where(held, np.nan, o.p_nothing / (1.0 + o.p_nothing))
    outcomes = replace(o, treated=held, control=others, p_nothing=chance).select(held | others)
    try:
        return Study.of_outcomes(study.model, outcomes).effect(None, "held out")
    except NotIdentified:
        return Effect("held out", np.nan, np.nan, 0, 0, int(held.sum()))


def placebo_on_controls(study: Study, history: History) -> Check | None:
    """Controls divided by a user attribute: those of one cell should change alike, whatever their region or age.

    A joint F test that no level differs from the others, for each attribute that cells and covariates have not taken
    out; its level is divided by their number. Errors count users as independent. If something moves all users of a
    region together, intervals are too short; then levels differ by more than their errors, and this test sees it.
    None where users have no such attribute.
    """
    name, within = "placebo on controls", study.model.spec.matching.within
    users = history.users
    names = [] if users is None else [str(c) for c in users.columns if c != "user_id" and c not in within]
    if study.model.name in WITHOUT_CONTROLS or not names:
        return None
    tests = {attribute: _alike(study, history, attribute) for attribute in names}
    tests = {attribute: test for attribute, test in tests.items() if not np.isnan(test.p_value)}
    if not tests:
        return Check(name, "not tested", np.nan, "no user attribute divides the controls into groups of enough users")
    worst = min(tests, key=lambda attribute: tests[attribute].p_value)
    p = min(1.0, tests[worst].p_value * len(tests))
    numbers = f"F test of {tests[worst].freedom} differences over {tests[worst].clusters:,} users, p = {p:.2g}"
    if p < LEVEL:
        words = (
            f"controls of a cell change differently by {worst} ({numbers}): compare within it, "
            f"`matching: {{within: [{worst}]}}`; if something moves all users of one {worst} alike, intervals are too "
            "short as well"
        )
        return Check(name, "failed", p, words)
    words = f"controls of a cell change alike, whatever their {', '.join(tests)} (least so by {worst}: {numbers})"
    return Check(name, "passed", p, words)


def _alike(study: Study, history: History, attribute: str) -> JointTest:
    """Joint test that what the model leaves of the controls' changes is the same at every level of an attribute."""
    o = study.outcomes.select(study.outcomes.control & study.frame.identified)
    left = study.frame.reward[study.outcomes.control & study.frame.identified]
    levels = sorted((mask[o.user] for _, mask in strata(history, attribute)), key=np.count_nonzero)[:-1]
    plain = DidReward(study.model.spec)
    values, influences = [], []
    for level in levels:
        parted = replace(o, pre=np.zeros(len(o)), post=left, treated=level, control=~level)
        effect, influence = Study.of_outcomes(plain, parted).effect_and_influence()
        if effect.se > 0 and effect.n_users >= FEWEST_USERS:
            values.append(effect.value)
            influences.append(influence)
    if not values:
        return JointTest(np.nan, 0, 0, np.nan)
    return joint_test(np.array(values), np.stack(influences, axis=1))


def later_messages(study: Study) -> Check | None:
    """Whether decisions that lost their reward to a later message can be accounted for; None where none could.

    `overlap: exclude` keeps a decision if nothing is sent in the rest of its window, which may answer what the message
    did. With propensities the decisions kept stand for the others (`Outcomes.stake`); without, it is not known how far
    the effect is about those who happened to be left alone.
    """
    name, o = "later messages", study.outcomes
    kept = o.kept[(o.treated | o.control) & study.frame.identified]
    unknown = np.isnan(kept)
    if not unknown.any():
        return None
    words = f"no propensities say how likely {unknown.sum():,} decisions were to keep their reward from a later message"
    return Check(name, "not tested", np.nan, words)


def facts_of(study: Study) -> tuple[str, ...]:
    """Share of overlapping windows, controls behind a reward, and what was left out and why."""
    o, frame = study.outcomes, study.frame
    sent = o.treated
    ok = sent & frame.identified
    lines = [f"sent decisions: {int(sent.sum()):,}, with a reward {int(ok.sum()):,}"]
    lines += [
        f"  without: {int((o.treated & (frame.reason == code)).sum()):,} ({name})"
        for code, name in _reasons(frame.reason[sent])
    ]
    if o.observed.any():
        lines.append(f"overlap: {o.overlap[sent & o.observed].mean():.1%} of the sent decisions with observed windows")
    if ok.any() and study.model.name not in WITHOUT_CONTROLS:
        low, middle = np.quantile(frame.n_controls[ok], [0.0, 0.5])
        lines.append(
            f"controls: {int(o.control.sum()):,} in all; behind a reward at least {low:,.0f}, median {middle:,.0f}"
            + (" (effective numbers)" if study.model.name == "did_dr" else "")
        )
    if (least := np.nanmin(o.kept[frame.identified], initial=1.0)) < 1:
        lines.append(
            f"later messages: decisions count by the inverse of their chance to be left alone, at least {least:.2g}"
        )
    if len(study.model.spec.matching.levels) > 1:
        found = frame.widened()
        shares = (f"{found.get(k, 0):,} at level {k}" for k in range(len(study.model.spec.matching.levels)))
        lines.append(f"cells, from the narrowest to the widest: {', '.join(shares)}")
    if study.model.name == "did_dr":
        lines.append(f"propensities: {ESTIMATED if np.isnan(o.p_nothing[o.control]).any() else LOGGED}")
    return tuple(lines)


def _reasons(reason: IntArray) -> list[tuple[int, str]]:
    return [(code, REASONS[code]) for code in np.unique(reason).tolist() if code != IDENTIFIED]
