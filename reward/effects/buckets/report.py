"""The text report on the effects of a log in buckets, with a reason for each part that sums cannot give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.core.files import write_csv
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import KNOWN_SOURCES
from crosschannel.reward.effects.buckets.alike import controls_alike
from crosschannel.reward.effects.buckets.designs import (
    EVENT_TIME,
    IN_TIME,
    MAIN,
    ON_CONTROLS,
    ON_HOLDOUT,
    Design,
    Plan,
    designs_of,
    divided_designs,
)
from crosschannel.reward.effects.buckets.passes import Estimates, Run, estimate, select_effects
from crosschannel.reward.effects.checks.after_window import MESSAGES, check_after_window
from crosschannel.reward.effects.checks.after_window import NAME as AFTER
from crosschannel.reward.effects.checks.earlier_messages import NAME as EARLIER
from crosschannel.reward.effects.checks.earlier_messages import check_earlier_messages
from crosschannel.reward.effects.checks.hours_before import NAME as HOURS_BEFORE
from crosschannel.reward.effects.checks.hours_before import check_hours_before
from crosschannel.reward.effects.diagnostics import (
    MIN_USERS,
    Check,
    Diagnostics,
    check_controls,
    check_later_messages,
    check_placebo_in_time,
    check_placebo_on_holdout,
    failures,
    pre_trend_check,
)
from crosschannel.reward.effects.estimates import Effect, effects_table
from crosschannel.reward.effects.event_study import BASE, EventStudy, lookback_of_strata, notes_on_bins
from crosschannel.reward.effects.inference import InfluenceProducts, JointTest, joint_test
from crosschannel.reward.effects.plots import save_figure
from crosschannel.reward.effects.report import (
    EffectsRequest,
    estimates_parts,
    module_for_action_effects,
    picture,
    verdict_text,
)
from crosschannel.reward.models import DidReward, FittedDid
from crosschannel.reward.spec import RewardSpec

KIND = DidReward.name


@dataclass(frozen=True)
class _Divided:
    """The comparisons of controls in a bucket, given the reward that was fitted to all buckets."""

    fitted: FittedDid

    def __call__(self, history: History, plan: Plan) -> Iterator[Design]:
        return divided_designs(history, plan, self.fitted)


def report_over_buckets(
    run: Run, plan: Plan, sample: History, summary: str, request: EffectsRequest, lacks: Sequence[str] = ()
) -> str:
    """Estimate by passes over buckets, write the files that are asked for, and return the text to print.

    Args:
        run: Runs a function over the histories of all buckets.
        plan: What is estimated.
        sample: A sample of users.
        summary: What the log holds.
        request: The content of the report.
        lacks: What the report lacks, one line each: `left_out`.
    """
    found = estimate(run, plan, designs_of, "effects")
    assert found.counts is not None  # the first comparison has them
    assert found.fitted is not None
    table = effects_table(select_effects(found, request.by, sample.modules.names))
    events = event_study_of(found, plan)
    on_controls = None
    if plan.divides_controls:
        divided = estimate(run, plan, _Divided(found.fitted), "controls")
        on_controls = check_controls({name: _equal_changes(divided, name) for name in plan.divides_controls})
    alike = controls_alike(run, plan, found.fitted, found.of(MAIN)[0].value)
    diagnostics = diagnose_estimates(found, events, on_controls, alike, plan)
    unused = sample.propensity_source in KNOWN_SOURCES
    diagnostics = replace(diagnostics, cautions=sample.cautions, unused_propensities=unused)
    if request.csv is not None:
        write_csv(pd.concat([table, events.to_pandas()]), request.csv)
    if request.plot is not None:
        save_figure(picture(sample, events, diagnostics), request.plot)
    parts = estimates_parts(summary, KIND, plan.spec, found.counts, table, events, diagnostics)
    parts += [f"Written: {path}" for path in (request.csv, request.plot) if path is not None]
    if lacks:
        head = "Left out, since the log is in buckets (--whole reads it as a whole, if it fits into memory):"
        parts.append("\n".join([head, *(f"- {line}" for line in lacks)]))
    return "\n\n".join([*parts, verdict_text(diagnostics)])


def event_study_of(found: Estimates, plan: Plan) -> EventStudy:
    """Return the event study from the effects of its bins."""
    times, base = plan.times, int(np.flatnonzero(plan.times.offsets == BASE)[0])
    effects = found.of(EVENT_TIME)
    effects.insert(base, Effect(times.label(BASE), 0.0, 0.0, n_treated=0, n_controls=0))
    products = found.products.get(EVENT_TIME, InfluenceProducts.from_users(np.zeros((0, len(effects) - 1))))
    back = lookback_of_strata(plan.spec)
    return EventStudy(
        times=times,
        kind=KIND,
        effects=effects,
        influence=products.insert(base),
        lookback=back,
        notes=notes_on_bins(plan.spec, times, back),
    )


def diagnose_estimates(
    found: Estimates, events: EventStudy, on_controls: Check | None, alike: Sequence[Check], plan: Plan
) -> Diagnostics:
    """Return the diagnostics of `diagnose` from estimates over buckets.

    Args:
        found: The estimates.
        events: The event study.
        on_controls: The placebo on controls; None where users have no attribute that divides them.
        alike: The checks of controls that are weighted like the sent decisions.
        plan: What is estimated.
    """
    assert found.counts is not None  # the first design has them
    held = [effect for effect in found.of(ON_HOLDOUT) if effect.n_treated + effect.n_without]
    trends = pre_trend_check(events)
    checks = [
        trends,
        check_placebo_in_time(found.of(IN_TIME)[0]),
        check_placebo_on_holdout(held[0]) if held else None,
        check_earlier_messages(found.of(EARLIER)[0]),
        *alike,
        check_hours_before(found.of(HOURS_BEFORE)[0], found.of(MAIN)[0]) if plan.of_hours is not None else None,
        check_later_messages(found.counts.unknown),
    ]
    if plan.length_after is not None and trends.status == "passed":
        later, others = found.of(AFTER)[0], found.of(MESSAGES)[0]
        checks.append(check_after_window(found.of(MAIN)[0], later, others, plan.length_after, failures(checks)))
    return Diagnostics.build(
        checks,
        found.counts.lines(KIND, len(plan.spec.matching.levels)),
        KIND,
        on_controls,
        unidentified=found.counts.why_unidentified(plan.spec),
    )


def _equal_changes(divided: Estimates, attribute: str) -> JointTest:
    """Test jointly that controls change alike in every group by an attribute but the one with the most controls."""
    test = f"{ON_CONTROLS} {attribute}"
    effects = divided.of(test)
    chosen = np.array([effect.se > 0 and effect.n_users >= MIN_USERS for effect in effects], dtype=bool)
    if effects:
        sizes = [effect.n_treated + effect.n_without for effect in effects]
        chosen[np.argsort(sizes, kind="stable")[-1]] = False
    if not chosen.any():
        return JointTest(np.nan, 0, 0, np.nan)
    values = np.array([effect.value for effect in effects])
    return joint_test(values[chosen], divided.products[test].select(chosen))


def left_out(request: EffectsRequest, spec: RewardSpec, sample: History) -> list[str]:
    """Return what a report over buckets lacks that one on the whole log has, each with its reason, one line each."""
    lines = []
    if spec.funnel is not None:
        lines.append("the funnel's components and their tests: their errors rest on surrogates of all users at once")
    if (module := module_for_action_effects(sample, request.effects_of)) is not None:
        lines.append(f"effects of each {module} by did and did_dr: did_dr is a regression on all users at once")
    if request.staggered is not None:
        lines.append(f"first messages of {request.staggered}: groups by first message need all users at once")
    return lines
