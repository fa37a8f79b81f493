"""Diagnostics of causal validity: pre-trends, placebos, overlap and controls, with a verdict in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, ObjectArray
from crosschannel.core.errors import NotIdentified
from crosschannel.core.times import DAY, duration
from crosschannel.core.wording import counted
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import KNOWN_SOURCES
from crosschannel.reward.effects.checks.after_window import after_window
from crosschannel.reward.effects.checks.alike_controls import alike_controls
from crosschannel.reward.effects.checks.check import PRE_TRENDS
from crosschannel.reward.effects.checks.check import SIGNIFICANCE_LEVEL as SIGNIFICANCE_LEVEL
from crosschannel.reward.effects.checks.check import Check as Check
from crosschannel.reward.effects.checks.earlier_messages import earlier_messages
from crosschannel.reward.effects.checks.hours_before import hours_before
from crosschannel.reward.effects.checks.verdict import Diagnostics as Diagnostics
from crosschannel.reward.effects.checks.verdict import failures as failures
from crosschannel.reward.effects.estimates import Effect, TreatmentEffects
from crosschannel.reward.effects.event_study import EventStudy, event_study, moved_back
from crosschannel.reward.effects.groups import attribute_groups
from crosschannel.reward.effects.inference import JointTest, detectable, joint_test, two_sided_p_value
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.models import DidReward
from crosschannel.reward.odds import ESTIMATED, LOGGED

# Groups of an attribute with fewer users on either side are left out of the placebo on controls.
MIN_USERS = 10
#: Kinds of rewards that are biased where treated and controls do not move in parallel, whatever the propensities.
NEED_PARALLEL_TRENDS = ("did", "did_regression")


def diagnose(fitted: TreatmentEffects, history: History, events: EventStudy | None = None) -> Diagnostics:
    """Run every diagnostic that the log allows.

    The placebo on holdout needs an arm without messages; without one it is left out. The placebo on controls is
    reported among the facts, and the verdict names it: controls that differ by an attribute call for `matching`, and
    bias an effect where messages go to other shares of its groups than the controls have.

    Args:
        fitted: The model, fitted on the history.
        history: The history.
        events: Its event study; estimated if left out.
    """
    events = event_study(fitted, history) if events is None else events
    trends = pre_trend_check(events)
    checks = [
        trends,
        placebo_in_time(fitted, history),
        placebo_on_holdout(fitted, history),
        earlier_messages(fitted, history),
        *controls_alike(fitted, history),
        hours_before(fitted, history),
        later_messages(fitted),
    ]
    if trends.status == "passed":
        checks.append(after_window(fitted, history, failures(checks)))
    on_controls = placebo_on_controls(fitted, history)
    kind = fitted.model.name
    unused = kind == DidReward.name and history.propensity_source in KNOWN_SOURCES
    why = fitted.counts.why_unidentified(fitted.model.spec)
    return Diagnostics.build(checks, facts_of(fitted), kind, on_controls, history.cautions, unused, why)


def pre_trend_check(events: EventStudy) -> Check:
    """Test the leads jointly, and state the difference in a single bin that this test would have detected."""
    name, test = PRE_TRENDS, events.pre_trends()
    if np.isnan(test.p_value):
        used = f" and before the {events.lookback / DAY:g} d that covariates or strata use" if events.lookback else ""
        text = f"no bin before the base{used} is identified: set more leads, or use a log that begins earlier"
        return Check(name, "not tested", np.nan, text)
    numbers = f"F test of {test.freedom} bins over {counted(test.clusters, 'user')}, p = {test.p_value:.2g}"
    if test.p_value < SIGNIFICANCE_LEVEL:
        worst = max(
            (e for e, lead in zip(events.effects, events.leads, strict=True) if lead), key=lambda e: abs(e.value / e.se)
        )
        text = f"treated and controls differ before the message ({numbers}; at {worst.label} by {worst.value:.3g})"
        return Check(name, "failed", test.p_value, text)
    size = detectable(events.influence.select(events.leads)).max()
    text = f"no difference found ({numbers}); one of {size:.2g} in a single bin would be detected with 80 % power"
    return Check(name, "passed", test.p_value, text)


def explain_pre_trends(events: EventStudy, pre: str, *, known_propensities: bool) -> str:
    """Return what a failed pre-trend test points at, and what to do, in sentences; nothing where it did not fail.

    A log whose messages follow events before the pre window alone fails this test although `did` is right: its leads
    within the pre window are 0. Leads that differ within it are a trend that the reward takes for an effect.

    Args:
        events: The event study.
        pre: Length of the reward's pre window.
        known_propensities: Whether the log has propensities that are not estimated.
    """
    if not events.pre_trends().p_value < SIGNIFICANCE_LEVEL:
        return ""
    length = duration(events.times.bin)
    inside = events.leads & (events.times.offsets * length >= -duration(pre))
    test = joint_test(events.value[inside], events.influence.select(inside))
    if np.isnan(test.p_value):
        why = f"No bin within the pre window ({pre}) can be tested, where a difference would be a bias."
    elif test.p_value < SIGNIFICANCE_LEVEL:
        why = (
            f"They differ within the pre window ({pre}, p = {test.p_value:.2g}) too: what made the log send there is "
            "part of the rewards."
        )
    else:
        why = (
            f"They differ before the pre window ({pre}) and not within it (p = {test.p_value:.2g}), as where the log "
            "chooses users by what they did earlier. The rewards are right if nothing within the pre window decided "
            "who got a message, which only those who made the log know."
        )
    if known_propensities and events.kind in NEED_PARALLEL_TRENDS:
        why += " This log has propensities: rewards by `reward.kind: did_dr` do not need parallel trends."
    return why


def placebo_in_time(fitted: TreatmentEffects, history: History) -> Check:
    """Move the whole design back by `pre + post`, to a time before the message: the effect there should be 0.

    For a kind that adjusts without logged propensities this asks more than the effect itself needs: it fails as well
    where messages answer what happened since the moved time, even if the covariates hold that by the time of sending.
    """
    return check_placebo_in_time(
        time_placebo(fitted, history), fitted.model.adjust, fitted.outcomes.preprocessing.features is not None
    )


def check_placebo_in_time(effect: Effect, adjust: bool = False, has_covariates: bool = False) -> Check:
    """State what an effect before the message says, for a kind that adjusts or not."""
    name = "placebo in time"
    if not effect.se > 0:
        return Check(name, "not tested", np.nan, "too few decisions have observed windows that far back")
    what = "windows and covariates" if adjust else "windows"
    check = _zero_check(name, effect, f"{what} moved back by pre + post")
    if check.status == "failed" and has_covariates:
        text = f"{check.text}; it fails also where messages answer what covariates include only after the moved time"
        return replace(check, text=text)
    return check


def time_placebo(fitted: TreatmentEffects, history: History) -> Effect:
    """Estimate the effect where there is none: both windows end at least `pre` before the decision."""
    spec = fitted.model.spec
    try:
        moved = moved_back(fitted, history, duration(spec.pre) + duration(spec.post))
    except NotIdentified:
        return Effect.not_identified("placebo in time", n_without=int(fitted.outcomes.treated.sum()))
    return moved.effect(None, "placebo in time")


def _zero_check(name: str, effect: Effect, what: str) -> Check:
    p = two_sided_p_value(effect.value / effect.se, effect.n_users - 1)
    text = f"{what}: {effect.value:.3g}, 95 % interval {effect.low:.3g} to {effect.high:.3g}, p = {p:.2g}"
    return Check(name, "failed" if p < SIGNIFICANCE_LEVEL else "passed", p, text)


def placebo_on_holdout(fitted: TreatmentEffects, history: History) -> Check | None:
    """Treat users who were held out as if they had been sent messages: none was, so the effect should be 0.

    They are compared with the decisions of the other arms at which nothing was sent, and no other message fell into
    the windows. Users are held out at random, so a difference means that whether something was sent depended on how
    the user's activity was about to change: such decisions are not valid controls of the treated either. None where no
    arm is held out.
    """
    held = rows_held_out(fitted, history)
    if fitted.model.name in WITHOUT_CONTROLS or not held.any():
        return None
    return check_placebo_on_holdout(holdout_placebo(fitted, held))


def check_placebo_on_holdout(effect: Effect) -> Check:
    """State what an effect of being held out says."""
    name = "placebo on holdout"
    if not effect.se > 0:
        return Check(name, "not tested", np.nan, "too few decisions without a message to compare with those held out")
    return _zero_check(name, effect, "users held out, as if sent to")


def rows_held_out(fitted: TreatmentEffects, history: History) -> BoolArray:
    """Return the decisions (n,) of the arms held out: those that the spec names, or else those without any message.

    A decision without an arm belongs to none.
    """
    arm = history.decisions.arm
    if arm is None:
        return np.zeros(len(history.decisions), dtype=bool)
    reached = np.unique(np.asarray(arm).astype(str)[fitted.outcomes.treated])
    return in_held_out_arms(arm, fitted.model.spec.holdout_arms, reached)


def in_held_out_arms(
    arm: ObjectArray, named: Sequence[str], reached: Sequence[str] | npt.NDArray[np.str_]
) -> BoolArray:
    """Return the decisions (n,) whose arm (n,) is named, or without names is none of those that messages reached."""
    text = np.asarray(arm).astype(str)
    assigned = ~pd.isna(arm) & (text != "")
    return np.asarray(assigned & (np.isin(text, named) if named else ~np.isin(text, reached)))


def holdout_placebo(fitted: TreatmentEffects, held: BoolArray) -> Effect:
    """Estimate the effect of being held out (n,) on decisions at which nothing was sent."""
    outcomes = holdout_outcomes(fitted.outcomes, held)
    try:
        return TreatmentEffects.fit_outcomes(fitted.model, outcomes).effect(None, "held out")
    except NotIdentified:
        return Effect.not_identified("held out", n_without=int((held & ~fitted.outcomes.treated).sum()))


def holdout_outcomes(outcomes: Outcomes, held: BoolArray) -> Outcomes:
    """Return the decisions at which nothing was sent, those held out (n,) as treated and the others as controls."""
    o = outcomes
    held = held & ~o.treated
    others = ~held & ~o.treated & o.observed & ~o.overlap
    # Weighted with 1 / P(nothing), what was not sent to represents everyone: odds of p / (1 + p) for nothing.
    p_nothing = np.where(held, np.nan, o.p_nothing / (1.0 + o.p_nothing))
    return replace(o, treated=held, control=others, p_nothing=p_nothing).select(held | others)


def placebo_on_controls(fitted: TreatmentEffects, history: History) -> Check | None:
    """Divide controls by a user attribute: those of one cell should change alike, whatever their region or age.

    A joint F test that no group differs from the others, for each attribute that cells and covariates have not taken
    out; its level is divided by their number. Errors count users as independent. If something moves all users of a
    region together, intervals are too short; then groups differ by more than their errors, and this test detects it.
    None where users have no such attribute.
    """
    within = fitted.model.spec.matching.within
    users = history.users
    names = [] if users is None else [str(c) for c in users.columns if c != "user_id" and c not in within]
    if fitted.model.name in WITHOUT_CONTROLS or not names:
        return None
    return check_controls({attribute: _equal_changes(fitted, history, attribute) for attribute in names})


def check_controls(tests: dict[str, JointTest]) -> Check:
    """State what the tests say whether controls differ by any attribute."""
    name = "placebo on controls"
    tests = {attribute: test for attribute, test in tests.items() if not np.isnan(test.p_value)}
    if not tests:
        return Check(name, "not tested", np.nan, "no user attribute divides the controls into groups of enough users")
    worst = min(tests, key=lambda attribute: tests[attribute].p_value)
    p = min(1.0, tests[worst].p_value * len(tests))
    numbers = f"F test of {tests[worst].freedom} differences over {counted(tests[worst].clusters, 'user')}, p = {p:.2g}"
    if p < SIGNIFICANCE_LEVEL:
        text = (
            f"controls of a cell change differently by {worst} ({numbers}): compare within it, "
            f"`matching: {{within: [{worst}]}}`; if something moves all users of one {worst} alike, intervals are too "
            "short as well"
        )
        return Check(name, "failed", p, text)
    text = f"controls of a cell change alike, whatever their {', '.join(tests)} (least so by {worst}: {numbers})"
    return Check(name, "passed", p, text)


def _equal_changes(fitted: TreatmentEffects, history: History, attribute: str) -> JointTest:
    """Test jointly that the model's residuals of the controls' changes are the same in every group by an attribute."""
    o = fitted.outcomes.select(fitted.outcomes.control & fitted.frame.identified)
    residual = fitted.frame.reward[fitted.outcomes.control & fitted.frame.identified]
    groups = sorted((users[o.user] for _, users in attribute_groups(history, attribute)), key=np.count_nonzero)[:-1]
    did = DidReward(fitted.model.spec)
    values, influences = [], []
    for group in groups:
        divided = divided_controls(o, residual, group)
        effect, influence = TreatmentEffects.fit_outcomes(did, divided).effect_and_influence()
        if effect.se > 0 and effect.n_users >= MIN_USERS:
            values.append(effect.value)
            influences.append(influence)
    if not values:
        return JointTest(np.nan, 0, 0, np.nan)
    return joint_test(np.array(values), np.stack(influences, axis=1))


def divided_controls(controls: Outcomes, residual: FloatArray, group: BoolArray) -> Outcomes:
    """Return controls (n,) with the model's residuals (n,) as their change, and one group (n,) of them as treated."""
    return replace(controls, pre=np.zeros(len(controls)), post=residual, treated=group, control=~group)


def controls_alike(fitted: TreatmentEffects, history: History) -> list[Check]:
    """Weight controls like the sent decisions, by propensity and by past activity: see `check_alike_controls`.

    Only for `did`: the adjusted kinds take such differences out, by a model that has an error of its own.
    """
    if fitted.model.name != DidReward.name:
        return []
    return alike_controls(fitted.outcomes, fitted.frame, history, fitted.model.spec)


def later_messages(fitted: TreatmentEffects) -> Check | None:
    """Check whether decisions that lost their reward to a later message can be accounted for; None where none could.

    `overlap: exclude` keeps a decision if nothing is sent in the rest of its window, which may depend on what the
    message did. With propensities, `Outcomes.ipc_weight` makes the remaining decisions represent the others; without,
    the effect is about those that no later message followed, and it is not known how far these differ.
    """
    return check_later_messages(fitted.counts.unknown)


def check_later_messages(unknown: int) -> Check | None:
    """State how many decisions may have been censored without a known probability; None for none."""
    if not unknown:
        return None
    text = f"the log has no propensities of the later messages that could have censored {unknown:,} decisions"
    return Check("later messages", "not tested", np.nan, text)


def facts_of(fitted: TreatmentEffects) -> tuple[str, ...]:
    """Describe the share of overlapping windows, the controls behind a reward, and what was left out and why."""
    o, kind = fitted.outcomes, fitted.model.name
    lines = fitted.counts.lines(kind, len(fitted.model.spec.matching.levels))
    if kind == "did_dr":
        lines += (f"propensities: {ESTIMATED if np.isnan(o.p_nothing[o.control]).any() else LOGGED}",)
    return lines
