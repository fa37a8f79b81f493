"""Effects of each action on each goal, side by side, with tests of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.reward import Goal, make_reward
from crosschannel.reward.effects import (
    AUTO,
    Check,
    Diagnostics,
    Effect,
    EffectsRequest,
    EventTimes,
    TreatmentEffects,
    diagnose,
    effects_report,
    event_study,
)
from crosschannel.reward.effects.action_effects import (
    ActionEffect,
    action_effects,
    action_effects_by_window,
    action_effects_text,
    by_window_text,
    compare_estimates,
    difference,
)
from crosschannel.reward.effects.estimates import fit_each_action
from crosschannel.reward.effects.inference import two_sided_p_value
from crosschannel.reward.effects.report import NONE, module_for_action_effects, verdict_text
from tests.reward.effects.checks.logs import SPEC as DAILY
from tests.reward.effects.checks.logs import at_random, by_level, daily_log
from tests.reward.samples import rebuilt
from tests.reward.simulated import SPEC, simulate

pytestmark = pytest.mark.numerics

TIMES = EventTimes("1d", leads=3, lags=1)


def two_actions(seed: int, assignment="random") -> History:
    """The simulated log, whose messages are split at random between two actions with equal effects."""
    history = simulate(seed, assignment, users=600).history
    d = history.decisions
    split = np.random.default_rng(seed).integers(1, 3, len(d))
    actions = np.where(d.actions > 0, split[:, None], 0)
    return replace(
        history,
        decisions=replace(d, actions=actions, propensity=np.full((len(d), 1), np.nan), joint=np.full(len(d), np.nan)),
        modules=ActionSpace([Module("channel", ("none", "push", "email"))]),
    )


def even_odds(history: History) -> tuple[np.ndarray, np.ndarray]:
    n = len(history.decisions)
    return np.full((n, 1), 1 / 3), np.full(n, 1 / 3)


def test_each_effect_is_that_of_its_action_alone():
    """A `did` of one action is that of a log in which the other action's decisions are neither sent nor controls."""
    history = two_actions(0)
    spec = replace(SPEC, goals=(Goal("order", 2.0),))
    found = action_effects(history, spec, "channel", TIMES, ("did",))
    assert [(f.action, f.goal, f.kind) for f in found] == [(a, "order (count)", "did") for a in ("push", "email")]
    whole = TreatmentEffects.fit(make_reward("did", SPEC), history)
    for one, effect in zip(found, whole.by_action(history, "channel"), strict=True):
        assert one.effect.value == pytest.approx(effect.value, abs=1e-12)  # per order, whatever the goal's weight
        assert one.effect.se == pytest.approx(effect.se, rel=1e-9)
        assert 0 <= one.pre_trends <= 1
        assert 0 <= one.placebo <= 1
        assert not one.contradicted_by
    assert sum(f.effect.n_treated for f in found) == whole.effect().n_treated


def fits_of(whole: TreatmentEffects, history: History) -> dict[str, TreatmentEffects | None]:
    return {action: fitted for action, _, fitted in fit_each_action(whole.model, whole.outcomes, history, "channel")}


def test_tests_are_those_of_the_action_alone():
    history = two_actions(1)
    fits = fits_of(TreatmentEffects.fit(make_reward("did", SPEC), history), history)
    for f in action_effects(history, SPEC, "channel", TIMES, ("did",)):
        fitted = fits[f.action]
        assert fitted is not None
        assert f.pre_trends == event_study(fitted, history, TIMES).pre_trends().p_value


def test_users_who_are_held_out_are_controls_of_every_action():
    """Nothing is eligible for them by design: effects are those of a log that does not say what was eligible."""
    history = two_actions(3)
    d = history.decisions
    held = d.user % 3 == 0
    actions = np.where(held[:, None], 0, d.actions)
    arm = np.where(held, "holdout", "agent").astype(object)
    silent = replace(history, decisions=replace(d, actions=actions, arm=arm))
    eligible = np.ones((len(d), 3), dtype=bool)
    eligible[held, 1:] = False
    told = replace(silent, decisions=replace(silent.decisions, eligible=eligible))
    spec = replace(SPEC, controls="holdout", holdout_arms=("holdout",))
    wanted, found = (
        TreatmentEffects.fit(make_reward("did", spec), log).by_action(log, "channel") for log in (silent, told)
    )
    assert all(effect.n_controls > 0 and effect.se > 0 for effect in found)
    assert found == wanted


def test_controls_are_the_decisions_at_which_the_action_was_eligible():
    history = two_actions(2)
    d = history.decisions
    eligible = np.ones((len(d), 3), dtype=bool)
    eligible[::2, 2] = d.actions[::2, 0] == 2
    history = replace(history, decisions=replace(d, eligible=eligible))
    whole = TreatmentEffects.fit(make_reward("did", SPEC), history)
    fits = fits_of(whole, history)
    assert fits["email"] is not None
    assert fits["push"] is not None
    eligible_controls = fits["email"].outcomes.control
    assert eligible_controls.sum() == (fits["push"].outcomes.control & eligible[:, 2]).sum()
    # The table of effects and the effects of actions compare the same decisions.
    found = action_effects(history, SPEC, "channel", TIMES, ("did",))
    assert [f.effect for f in found] == whole.by_action(history, "channel")


def test_after_a_dip_the_pre_trend_test_fails_for_each_action_and_the_text_shows_it():
    history = two_actions(3, "dip")
    found = action_effects(history, SPEC, "channel", TIMES)
    did = [f for f in found if f.kind == "did"]
    assert all("pre-trends differ" in f.caveats for f in did)
    text = action_effects_text(found)
    assert (
        "Do not read as causal: push on order (count) by did, email on order (count) by did (pre-trends differ" in text
    )
    assert "8 tests of pre-trends and placebos. The tests of a kind have 5% together (Holm's method)" in text


def test_a_kind_is_contradicted_only_by_one_that_passes_its_own_tests():
    """Two estimates on the same 400 users, ten errors of their difference apart; then one fails a test of its own."""
    noise = np.random.default_rng(0).standard_normal((2, 400)) / 400
    one, other = (
        ActionEffect(
            action="push",
            goal="order",
            kind=kind,
            effect=Effect("push", value, 0.05, n_treated=400, n_controls=400, n_users=400),
            influence=influence,
            pre_trends=0.5,
            placebo=0.5,
        )
        for kind, value, influence in zip(("did", "did_dr"), (0.0, 0.7), noise, strict=True)
    )
    se = np.sqrt(((one.influence - other.influence) ** 2).sum() * 400 / 399)
    assert difference(one, other) == pytest.approx(two_sided_p_value(-0.7 / se, 399))
    compared = compare_estimates((one, other))
    assert [f.contradicted_by for f in compared] == [("did_dr",), ("did",)]
    assert compared[0].caveats == ("did_dr differs and fails no test",)
    compared = compare_estimates((replace(one, pre_trends=0.01), other))
    assert [f.contradicted_by for f in compared] == [("did_dr",), ()]
    assert [f.kinds_differ < 1e-6 for f in compared] == [True, True]
    compared = compare_estimates((replace(one, of_the_log=("earlier messages",)), other))
    assert [f.contradicted_by for f in compared] == [("did_dr",), ()]
    alike = compare_estimates((one, replace(other, effect=replace(other.effect, value=0.0))))
    assert [f.caveats for f in alike] == [(), ()]
    # Kinds that average other decisions may differ for that alone.
    assert np.isnan(difference(one, replace(other, effect=replace(other.effect, n_treated=300))))


def test_what_cannot_be_fitted_is_not_identified():
    """One e-mail only: no fold can learn who gets e-mails."""
    history = two_actions(4)
    d = history.decisions
    email = np.flatnonzero(d.actions[:, 0] == 2)
    actions = d.actions.copy()
    actions[email[1:]] = 1
    found = action_effects(replace(history, decisions=replace(d, actions=actions)), SPEC, "channel", TIMES)
    rare = [f for f in found if f.action == "email"]
    assert [f.caveats for f in rare] == [("not identified",)] * 2
    assert "not identified" in action_effects_text(rare)


def test_few_users_are_a_caveat():
    effect = Effect("push", 3.0, 0.1, n_treated=4, n_controls=900, n_users=4)
    found = ActionEffect(action="push", goal="order", kind="did", effect=effect, influence=np.zeros(4))
    assert found.caveats == ("only 4 users",)


def test_other_windows_scale_on_both_sides():
    history = two_actions(5)
    spec = replace(SPEC, pre="2d")
    by_length = action_effects_by_window(history, spec, "channel", ["12h", "36h"], ("did",))
    for length, pre in (("12h", "24h"), ("36h", "72h")):
        direct = action_effects(history, replace(spec, pre=pre, post=length), "channel", None, ("did",))
        assert [f.effect for f in by_length[length]] == [f.effect for f in direct]
    text = by_window_text(by_length)
    assert "12h" in text
    assert "36h" in text
    assert text.count(" of ") == 4


def test_the_report_has_each_action_with_other_windows_and_the_source_of_propensities():
    history = two_actions(7)
    request = EffectsRequest(by=("all",), times=TIMES, windows=("2d",))
    text = effects_report(history, make_reward("did", SPEC), request)
    for words in (
        "Effect of each channel on each goal, per sent decision with a reward within 1d",
        "odds that are estimated by a logistic regression",
        "tests of pre-trends and placebos. The tests of a kind have",
        "The same by length of the post window",
    ):
        assert words in text, words
    logged = history.with_propensities(*even_odds(history), "logged")
    assert "Effect of each channel" not in effects_report(logged, make_reward("did", SPEC), request)


def test_the_module_is_the_first_where_no_propensities_were_logged():
    history = two_actions(6)
    logged = history.with_propensities(*even_odds(history), "logged")
    assert module_for_action_effects(history, AUTO) == "channel"
    assert module_for_action_effects(logged, AUTO) is None
    assert module_for_action_effects(logged, "channel") == "channel"
    assert module_for_action_effects(history, NONE) is None
    with pytest.raises(ConfigError, match=r"no module 'chanel'\. Did you mean 'channel'"):
        module_for_action_effects(history, "chanel")


def test_what_the_whole_log_fails_is_a_caveat_of_each_effect_and_held_against_no_other():
    """Messages by level, which the log does not say: the tests of each action find nothing of `did`, the log's do."""
    history = daily_log(1, by_level, users=150, logged=False)
    found = action_effects(history, DAILY, "channel")
    did, dr = found
    assert did.failed == ()
    assert did.kinds_differ < 0.001
    whole = diagnose(TreatmentEffects.fit(make_reward("did", DAILY), history), history)
    assert did.of_the_log == whole.failed == ("earlier messages",)
    assert did.caveats == ("fails on the whole log: earlier messages",)
    assert dr.contradicted_by == ()
    assert "No test fails" not in action_effects_text(found)
    # Diagnostics that were computed already are not computed again.
    passed = [replace(whole, kind=kind, checks=()) for kind in ("did", "did_dr")]
    assert action_effects(history, DAILY, "channel", diagnostics=passed)[0].of_the_log == ()


def test_the_verdict_ends_the_report_and_agrees_with_the_effects_of_actions():
    history = daily_log(1, by_level, users=150, logged=False)
    text = effects_report(history, make_reward("did", DAILY), EffectsRequest(by=("all",)))
    assert text.count("Verdict: ") == 1
    assert text.splitlines()[-1].startswith("Verdict: Sent decisions and controls had unequally many messages before")
    assert "No test fails" not in text
    assert "fails no test" not in text


def test_where_nothing_is_identified_the_verdict_says_so_and_what_would_help():
    """A log that lists messages only: no test fails where nothing can be tested."""
    history = two_actions(3)
    listed = rebuilt(history, take_rows(history.decisions, history.decisions.actions[:, 0] > 0), history.events)
    text = effects_report(listed, make_reward("did", SPEC), EffectsRequest(by=("all",)))
    assert "Not identified: all of them." in text
    assert "Do not read as causal" not in text
    assert "Holm" not in text
    verdict = text.splitlines()[-1]
    assert verdict.startswith("Verdict: Not identified: no sent decision has a reward, above all: there is no decision")
    assert "Where a log lists messages only, `slots` adds the times" in verdict
    assert "No test fails" not in text


def test_the_verdict_names_what_single_effects_say_otherwise():
    effect = Effect("push", 0.3, 0.05, n_treated=400, n_controls=400, n_users=400)
    passing = ActionEffect(
        action="push", goal="order", kind="did", effect=effect, influence=np.zeros(400), pre_trends=0.5, placebo=0.5
    )
    sound, failing = Diagnostics((), (), "did"), Diagnostics((Check("pre-trends", "failed", 0.0, ""),), (), "did")
    assert verdict_text(sound, [passing]) == "Verdict: No test fails, which does not prove the effect."
    but = verdict_text(sound, [replace(passing, placebo=0.01)])
    assert but.endswith("But do not read as causal, for caveats of their own: push on order by did.")
    # Another kind's effects may fail no test; those of this kind fail that of the log.
    found = [replace(passing, of_the_log=failing.failed), replace(passing, kind="did_dr")]
    words = "as causal. This is about rewards by `did`; no test fails for push on order by did_dr. What would help: "
    assert words in verdict_text(failing, found)


def test_what_comes_after_the_window_says_nothing_against_the_effect_within_it():
    effect = Effect("push", 0.3, 0.05, n_treated=400, n_controls=400, n_users=400)
    found = ActionEffect(
        action="push",
        goal="order",
        kind="did",
        effect=effect,
        influence=np.zeros(400),
        of_the_log=("after the window",),
    )
    assert "Do not read as what a message is worth (after the window): push" in action_effects_text([found])
    assert "Do not read as causal: push" in action_effects_text([replace(found, placebo=0.01)])


def test_without_controls_nothing_is_held_against_another_kind():
    history = daily_log(1, at_random, users=100, logged=False)
    did, change = action_effects(history, DAILY, "channel", kinds=("did", "change"))
    assert change.caveats[0] == "fails on the whole log: no controls"
    assert did.contradicted_by == ()
