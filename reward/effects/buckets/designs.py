"""What a report on effects estimates, as comparisons of treated decisions and controls within one bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.times import DAY, duration
from crosschannel.histories.history import History
from crosschannel.reward.effects.buckets.sums import Units
from crosschannel.reward.effects.checks.after_window import MESSAGES, length_after, outcomes_after
from crosschannel.reward.effects.checks.after_window import NAME as AFTER
from crosschannel.reward.effects.checks.alike_controls import edges_of_activity
from crosschannel.reward.effects.checks.earlier_messages import NAME as EARLIER
from crosschannel.reward.effects.checks.earlier_messages import earlier_outcomes
from crosschannel.reward.effects.checks.hours_before import NAME as HOURS_BEFORE
from crosschannel.reward.effects.checks.hours_before import TIMES as HOURS
from crosschannel.reward.effects.checks.hours_before import has_fine_times, outcomes_before
from crosschannel.reward.effects.diagnostics import divided_controls, holdout_outcomes, in_held_out_arms
from crosschannel.reward.effects.estimates import (
    GROUPINGS,
    TreatmentEffects,
    name_of_period,
    of_action,
    periods_of,
)
from crosschannel.reward.effects.event_study import (
    BASE,
    EventTimes,
    bin_outcomes,
    measure_base,
    moved_outcomes,
    windows_of_days,
)
from crosschannel.reward.effects.groups import AttributeGroups
from crosschannel.reward.measurement.outcomes import Outcomes, measure, measure_with
from crosschannel.reward.measurement.preprocessing import FittedPreprocessing
from crosschannel.reward.models import DidReward, FittedDid
from crosschannel.reward.spec import RewardSpec

MAIN, EVENT_TIME = "all", "event time"
IN_TIME, ON_HOLDOUT, ON_CONTROLS = "placebo in time", "placebo on holdout", "controls by"
#: Which effect: the grouping as in `GROUPINGS` or the test, its place there, and its label.
Key = tuple[str, int, str]


@dataclass(frozen=True)
class Design:
    """A comparison of treated decisions with controls, and the groups of the treated whose effects are wanted.

    Attributes:
        name: The comparison.
        outcomes: The decisions.
        groups: The groups (n,); None for all treated decisions.
    """

    name: tuple[str, int]
    outcomes: Outcomes
    groups: Mapping[Key, BoolArray | None]


@dataclass(frozen=True)
class Plan:
    """What is estimated, and with what it is measured: the same in every bucket.

    Attributes:
        spec: What is measured, without a funnel.
        by: Groupings, each one of `GROUPINGS`.
        times: Bins of the event study.
        preprocessing: What rewards are measured with.
        of_goals: What each goal is measured with by itself.
        of_bins: What the bins of the event study are measured with.
        length_after: Length of the time after the window that is tested, microseconds; None for none.
        of_after: What windows of this length are measured with.
        of_hours: What the hours before a message are measured with; None where the log has no such times.
        attributes: Groups of users by each attribute.
        reached: Arms that got messages.
        weight: Unit of the weights of decisions: see `Units`.
        activity: Quantiles that divide decisions by past activity.
    """

    spec: RewardSpec
    by: tuple[str, ...]
    times: EventTimes
    preprocessing: FittedPreprocessing
    of_goals: tuple[FittedPreprocessing, ...]
    of_bins: FittedPreprocessing
    length_after: int | None
    of_after: FittedPreprocessing | None
    of_hours: FittedPreprocessing | None
    attributes: Mapping[str, AttributeGroups]
    reached: tuple[str, ...]
    weight: float
    activity: FloatArray

    @classmethod
    def fit(
        cls,
        sample: History,
        spec: RewardSpec,
        by: tuple[str, ...],
        times: EventTimes,
        largest: FloatArray,
        attributes: Mapping[str, AttributeGroups],
        reached: tuple[str, ...],
        weight: float,
    ) -> Plan:
        """Fit limits, strata, attribute values and seasonality to a sample of users; scales to all users.

        Raises:
            ConfigError: If the spec or a grouping names what the history does not have.
            NotIdentified: If the order of decisions and goal events is not known.
        """
        check_groupings(by, sample, tuple(attributes))
        did = TreatmentEffects.fit(DidReward(spec), sample)
        length = length_after(sample, spec)
        of_after = of_hours = None
        if has_fine_times(sample, spec):
            of_hours = measure_base(sample, spec, HOURS).preprocessing
        if length is not None:
            of_after = measure_base(sample, spec, windows_of_days(length // DAY)).preprocessing
        goals = (measure(sample, replace(spec, goals=(goal,))).preprocessing for goal in spec.goals)
        return cls(
            spec=spec,
            by=by,
            times=times,
            preprocessing=replace(did.outcomes.preprocessing, largest=largest),
            of_goals=tuple(replace(one, largest=largest[g : g + 1]) for g, one in enumerate(goals)),
            of_bins=replace(measure_base(sample, spec, times).preprocessing, largest=largest),
            length_after=length,
            of_after=None if of_after is None else replace(of_after, largest=largest),
            of_hours=None if of_hours is None else replace(of_hours, largest=largest),
            attributes=attributes,
            reached=reached,
            weight=weight,
            activity=edges_of_activity(did.outcomes, did.frame, sample, spec),
        )

    @property
    def units(self) -> Units:
        """The units of exact sums."""
        return Units(self.preprocessing.unit(self.spec), self.weight)

    def measure(self, history: History) -> Outcomes:
        """Measure a bucket."""
        return measure_with(history, self.spec, self.preprocessing)

    @property
    def divides_controls(self) -> tuple[str, ...]:
        """The attributes by which controls are compared."""
        return tuple(name for name in self.attributes if name not in self.spec.matching.within)


def check_groupings(by: tuple[str, ...], history: History, attributes: tuple[str, ...]) -> None:
    """Refuse groupings that are not known.

    Raises:
        ConfigError: If there is no such grouping, module or attribute.
    """
    for name in by:
        kind, _, detail = name.partition(":")
        if kind not in {one.partition(":")[0] for one in GROUPINGS}:
            raise ConfigError(f"there is no grouping {name!r}. {nearest(kind, GROUPINGS)}")
        if kind == "module" and detail not in history.modules.names:
            raise ConfigError(f"there is no module {detail!r}. {nearest(detail, history.modules.names)}")
        if kind == "attribute" and detail not in attributes:
            raise ConfigError(f"the users have no attribute {detail!r}. {nearest(detail, attributes)}")
        if kind == "period":
            duration(detail or "1w")


def designs_of(history: History, plan: Plan) -> Iterator[Design]:
    """Yield the comparisons that need no estimate of another one, for the decisions of a bucket."""
    o, spec = plan.measure(history), plan.spec
    yield Design((MAIN, 0), o, {(MAIN, 0, "all"): None, **_groups(o, plan)})
    for name in plan.by:
        kind, _, detail = name.partition(":")
        if kind == "goal":
            yield from _goals(history, o, plan)
        elif kind in ("action", "module"):
            yield from _actions(history, o, spec, (detail,) if detail else history.modules.names)
        elif kind == "attribute":
            assert history.users is not None  # `check_groupings` says so
            for g, (label, users) in enumerate(plan.attributes[detail].masks(history.users[detail])):
                yield Design((name, g), o.select(users[o.user]), {(name, g, label): None})
    around = measure_base(history, spec, plan.times, plan.of_bins)
    for place, k in enumerate(plan.times.offsets.tolist()):
        if k != BASE:
            bins = bin_outcomes(o, history, spec, plan.times, around, k)
            yield Design((EVENT_TIME, place), bins, {(EVENT_TIME, place, plan.times.label(k)): None})
    moved = moved_outcomes(o, history, spec, duration(spec.pre) + duration(spec.post))
    yield Design((IN_TIME, 0), moved, {(IN_TIME, 0, IN_TIME): None})
    yield Design((EARLIER, 0), earlier_outcomes(o, history, spec), {(EARLIER, 0, EARLIER): None})
    if plan.of_hours is not None:
        hours = outcomes_before(o, history, spec, plan.of_hours)
        yield Design((HOURS_BEFORE, 0), hours, {(HOURS_BEFORE, 0, HOURS_BEFORE): None})
    if plan.length_after is not None:
        goals, messages = outcomes_after(o, history, spec, plan.length_after, plan.of_after)
        yield Design((AFTER, 0), goals, {(AFTER, 0, AFTER): None})
        yield Design((MESSAGES, 0), messages, {(MESSAGES, 0, MESSAGES): None})
    if history.decisions.arm is not None:
        held = in_held_out_arms(history.decisions.arm, spec.holdout_arms, plan.reached)
        yield Design((ON_HOLDOUT, 0), holdout_outcomes(o, held), {(ON_HOLDOUT, 0, "held out"): None})


def _groups(o: Outcomes, plan: Plan) -> dict[Key, BoolArray | None]:
    """Return the groups by calendar time in which something was sent."""
    found: dict[Key, BoolArray | None] = {}
    for name in plan.by:
        kind, _, detail = name.partition(":")
        if kind in ("period", "time_bucket"):
            period = plan.spec.time_bucket if kind == "time_bucket" else detail or "1w"
            code = periods_of(o, plan.spec, period)
            for c in np.unique(code[o.treated]).tolist():
                found[name, c, name_of_period(c, period)] = code == c
    return found


def _goals(history: History, o: Outcomes, plan: Plan) -> Iterator[Design]:
    for g, (goal, preprocessing) in enumerate(zip(plan.spec.goals, plan.of_goals, strict=True)):
        alone = measure_with(history, replace(plan.spec, goals=(goal,)), preprocessing)
        key = ("goal", g, f"{goal.event} x {goal.weight:g}")
        yield Design(("goal", g), replace(o, pre=alone.pre, post=alone.post), {key: None})


def _actions(history: History, o: Outcomes, spec: RewardSpec, names: tuple[str, ...]) -> Iterator[Design]:
    for name in names:
        for code, label in enumerate(history.modules[name].actions):
            of_this = of_action(o, history, spec, history.modules.names.index(name), code)
            yield Design((f"module:{name}", code), of_this, {(f"module:{name}", code, label): None})


def divided_designs(history: History, plan: Plan, fitted: FittedDid) -> Iterator[Design]:
    """Yield the comparisons of controls by their users' attributes, given the reward that was fitted to all buckets."""
    if history.users is None or not plan.divides_controls:
        return
    o = plan.measure(history)
    frame = fitted.transform_outcomes(o)
    rows = o.control & frame.identified
    controls, residual = o.select(rows), frame.reward[rows]
    for name in plan.divides_controls:
        for g, (label, users) in enumerate(plan.attributes[name].masks(history.users[name])):
            design = divided_controls(controls, residual, users[controls.user])
            yield Design((f"{ON_CONTROLS} {name}", g), design, {(f"{ON_CONTROLS} {name}", g, label): None})
