"""What messages do after the window: orders that they bring forward, complaints that are logged late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import History
from crosschannel.histories.logs import EventLog
from crosschannel.reward import Goal, RewardSpec
from crosschannel.reward.effects import diagnose
from crosschannel.reward.effects.checks.after_window import NAME, after_window, check_after_window, length_after
from crosschannel.reward.effects.checks.alike_controls import BY_PROPENSITY
from crosschannel.reward.effects.checks.rewards import run_reward_tests
from crosschannel.reward.effects.estimates import Effect
from crosschannel.reward.effects.report import verdict_text
from tests.reward.effects.checks.logs import SPEC, at_random, by_level, daily_log, did, saturdays_to_the_active

LATE = RewardSpec(goals=(Goal("order"), Goal("complaint", weight=-10.0)), pre="1d", post="1d")


def with_complaints(history: History, share: float = 0.05, days: float = 2.5) -> History:
    """Add a complaint some days after a share of the messages: .5 reward units each, where a message makes .3."""
    d, e = history.decisions, history.events
    sent = np.flatnonzero(history.modules.sends(d.actions))
    rng = np.random.default_rng(0)
    rows = sent[rng.random(len(sent)) < share]
    time = d.time[rows] + int(days * DAY) + rng.integers(1, HOUR, len(rows))
    rows, time = rows[time < history.span[1]], time[time < history.span[1]]
    user, when = np.concatenate([e.user, d.user[rows]]), np.concatenate([e.time, time])
    event = np.concatenate([e.event, np.ones(len(rows), dtype=np.int64)])
    order = np.lexsort((when, user))
    events = EventLog(user=user[order], time=when[order], event=event[order], value=np.ones(len(order)))
    return replace(
        History.from_arrays(
            d,
            events,
            modules=history.modules,
            user_ids=history.user_ids,
            event_names=("order", "complaint"),
            span=history.span,
        )
    )


def test_harm_that_is_logged_after_the_window_refuses_values():
    """Within the day a message makes .3; with what is logged two days later it loses .2."""
    history = with_complaints(daily_log(0, at_random, users=600))
    tests = run_reward_tests(did(history, LATE), history)
    assert [check.name for check in tests.diagnostics.checks if check.status == "failed"] == [NAME]
    assert NAME in tests.refusal
    assert any("`reward.post`" in remedy for remedy in tests.remedies)
    verdict = diagnose(did(history, LATE), history).verdict
    assert verdict.startswith("Messages take back half of the effect or more after the window: do not read the effect")
    longer = replace(LATE, pre="4d", post="4d")
    assert after_window(did(history, longer), history).status == "passed"


def test_where_controls_differ_the_cause_comes_first_and_no_longer_window_is_proposed():
    """Promotions on Saturdays to the active, with logged propensities, and complaints two days later."""
    log = daily_log(1, saturdays_to_the_active, users=600, days=42, saturday=3.0)
    history = with_complaints(log, share=0.15)
    tests = run_reward_tests(did(history, LATE), history)
    assert {BY_PROPENSITY, NAME} <= set(tests.diagnostics.failed)
    assert [check.name for check in tests.refused][-1] == NAME
    assert not any("`reward.post`" in text for text in (*tests.remedies, *tests.sentences))
    assert any("`--reward.kind did_dr`" in remedy for remedy in tests.remedies)
    text = verdict_text(tests.diagnostics)
    assert "Controls that were as likely to get a message" in text
    assert "messages take back" not in text
    assert "`--reward.kind did_dr`" in text


def test_right_rewards_pass():
    """At the level of 5 %, one-sided: at most 4 of 40 logs with a probability of .99."""
    failed = 0
    for seed in range(20):
        for rule in (at_random, by_level):
            history = daily_log((1, seed), rule, users=120)
            failed += after_window(did(history), history).status == "failed"
    assert failed <= 4


def test_what_it_says():
    effect = Effect("all", 0.3, 0.02, n_treated=900, n_controls=900, n_users=300)
    later = replace(effect, value=-0.2, se=0.02)
    none = replace(effect, value=0.0, se=0.01)
    found = check_after_window(effect, later, none, 5 * DAY)
    assert found.status == "failed"
    assert "in the 5 d after the window sent decisions gain -0.2" in found.text
    assert "what a message does is far from over" in found.text
    # Where controls differ by another test, so may the time after.
    text = check_after_window(effect, later, none, 5 * DAY, ("controls by propensity",)).text
    assert "need not be what messages do, since controls differ by other tests (controls by propensity)" in text
    assert "far from over" not in text
    # A cap on messages explains it: a message leaves two thirds of a message fewer.
    assert check_after_window(effect, later, replace(none, value=-2 / 3), 5 * DAY).status == "passed"
    # What fewer messages take is as uncertain as the effect is: -.3 + .4 x .3 = -.18, with an error of .02 or .12.
    fewer, later_too = replace(none, value=-0.4), replace(later, value=-0.3)
    assert check_after_window(effect, later_too, fewer, 5 * DAY).status == "failed"
    assert check_after_window(replace(effect, se=0.3), later_too, fewer, 5 * DAY).status == "passed"
    # Less than half of the effect, the same direction, and noise.
    assert check_after_window(effect, replace(later, value=-0.1), none, 5 * DAY).status == "passed"
    assert check_after_window(effect, replace(later, value=0.2), none, 5 * DAY).status == "passed"
    assert check_after_window(effect, replace(later, se=0.2), none, 5 * DAY).status == "passed"
    assert check_after_window(effect, replace(later, se=np.nan), none, 5 * DAY) is None


@pytest.mark.parametrize(
    ("days", "spec", "expected"),
    [
        (21, SPEC, 5 * DAY),
        (60, SPEC, 6 * DAY),
        (4, SPEC, None),
        (21, replace(SPEC, overlap="exclude"), None),
    ],
)
def test_the_time_after_fits_the_log_and_the_window(days, spec, expected):
    assert length_after(daily_log(0, at_random, users=5, days=days), spec) == expected
