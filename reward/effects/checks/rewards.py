"""Whether rewards may be read as what messages change, so that values of policies may rest on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from crosschannel.core.times import duration
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import KNOWN_SOURCES
from crosschannel.reward.effects.checks.after_window import NAME as AFTER
from crosschannel.reward.effects.checks.alike_controls import BY_PROPENSITY
from crosschannel.reward.effects.checks.check import MIN_SHARE, PRE_TRENDS, SIGNIFICANCE_LEVEL, Check
from crosschannel.reward.effects.checks.remedies import remedies
from crosschannel.reward.effects.diagnostics import Diagnostics, diagnose
from crosschannel.reward.effects.estimates import TreatmentEffects
from crosschannel.reward.effects.event_study import EventStudy, event_study
from crosschannel.reward.effects.inference import joint_test
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS

#: Values are refused where a test fails at this level, all tests together (Holm's method): one right log in a hundred.
REFUSAL_LEVEL = 0.01
WITHIN = "bins within the pre window"
#: Tests of the time before the message, which says nothing certain of the windows of the reward.
OF_THE_TIME_BEFORE = (PRE_TRENDS, "placebo in time")


@dataclass(frozen=True)
class RewardTests:
    """The tests of what rewards assume, on the decisions that they were learned from.

    Attributes:
        events: The event study.
        diagnostics: All diagnostics.
        within: The test of the bins within the pre window; None where nothing could excuse differences in the time
            before: see `run_reward_tests`.
    """

    events: EventStudy
    diagnostics: Diagnostics
    within: Check | None

    @property
    def harmless_before(self) -> bool:
        """Whether differences in the time before are compatible with right rewards.

        They are if neither the bins within the pre window nor controls by propensity clearly differ. Both are tested
        together with all else that may refuse values, so that right rewards are refused at `REFUSAL_LEVEL`.
        """
        if self.within is None:
            return False
        others = (check for check in self.diagnostics.checks if check.name not in OF_THE_TIME_BEFORE)
        return not {BY_PROPENSITY, WITHIN} & {check.name for check in _clear_failures([*others, self.within])}

    @property
    def refused(self) -> tuple[Check, ...]:
        """The tests that clearly fail, so that no value may rest on the rewards."""
        if self.diagnostics.kind in WITHOUT_CONTROLS:
            return ()
        checks = self.diagnostics.checks
        if self.within is not None and self.harmless_before:
            checks = (*(check for check in checks if check.name not in OF_THE_TIME_BEFORE), self.within)
        return _clear_failures(checks)

    @property
    def refusal(self) -> str:
        """Why the rewards are not what messages change; empty where no test clearly fails."""
        names = ", ".join(f"{check.name} p = {check.p_value:.2g}" for check in self.refused)
        return f"the rewards fail tests of what they assume: {names}" if names else ""

    @property
    def refusal_in_short(self) -> str:
        """The same for each value of a table: the test that fails most clearly, and how many more do."""
        failed = self.refused
        if not failed:
            return ""
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        return f"the rewards fail tests of what they assume: {failed[0].name}{more}"

    @property
    def remedies(self) -> tuple[str, ...]:
        """What would identify what messages change, where a test clearly fails, as sentences."""
        names = [check.name for check in self.refused]
        if names == [AFTER]:  # it says nothing of messages where another test fails, be it less clearly
            names = list(self.diagnostics.failed)
        return remedies(names, self.diagnostics.unused_propensities, self.diagnostics.kind)

    @property
    def fails_only_before(self) -> bool:
        """Whether all tests that fail are of the time before, where differences are compatible with right rewards."""
        return self.harmless_before and all(
            check.name in OF_THE_TIME_BEFORE for check in self.diagnostics.checks if check.status == "failed"
        )

    @property
    def sentences(self) -> tuple[str, ...]:
        """What each test that fails found, as sentences."""
        return tuple(f"{c.name}: {c.text}." for c in self.diagnostics.checks if c.status == "failed")


def _clear_failures(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return the checks that fail at `REFUSAL_LEVEL`, all tests together, by Holm's method."""
    tested = sorted((check for check in checks if not np.isnan(check.p_value)), key=lambda check: check.p_value)
    failed = list[Check]()
    for place, check in enumerate(tested):
        if check.p_value * (len(tested) - place) >= REFUSAL_LEVEL:
            break
        if check.status != "passed":  # a difference that is certain may be too small to matter
            failed.append(check)
    return tuple(sorted(failed, key=lambda check: check.name == AFTER))  # causes before what may follow from them


def run_reward_tests(fitted: TreatmentEffects, history: History) -> RewardTests:
    """Run the diagnostics of rewards, and the test that decides whether differences in the time before contradict them.

    They do unless the log has propensities, controls that were as likely to get a message as the sent decisions change
    as all controls do, and the bins within the pre window do not differ: then the log chose users by what they did
    before that window, which `did` takes out.

    Args:
        fitted: The model, fitted on the history.
        history: The history.
    """
    events = event_study(fitted, history)
    found = diagnose(fitted, history, events)
    known = history.propensity_source in KNOWN_SOURCES
    excusable = known and any(c.name == BY_PROPENSITY for c in found.checks)
    within = check_within(events, fitted) if excusable else None
    return RewardTests(events, found, within)


def check_within(events: EventStudy, fitted: TreatmentEffects) -> Check | None:
    """Test that bins within the pre window do not differ from the base; None where none can be tested.

    A difference is no failure that would, over the post window, be less than `MIN_SHARE` of the effect.
    """
    spec, effect = fitted.model.spec, fitted.effect()
    inside = events.leads & (events.times.offsets * duration(events.times.bin) >= -duration(spec.pre))
    p = joint_test(events.value[inside], events.influence.select(inside)).p_value
    if np.isnan(p):
        return None
    largest = float(np.abs(events.value[inside]).max()) * duration(spec.post) / duration(events.times.bin)
    text = f"a bin differs from the last one before the message by up to {largest:.3g} per post window, p = {p:.2g}"
    fails = p < SIGNIFICANCE_LEVEL and not largest < MIN_SHARE * abs(effect.value)
    return Check(WITHIN, "failed" if fails else "passed", p, text)
