"""Logs in which a part of the funnel is missing: nothing fails, and nothing is made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import NotIdentified
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.reward import FunnelSpec, make_reward
from crosschannel.reward.effects.funnel_section import funnel_section
from crosschannel.reward.funnel import FunnelEffects, exclusion_test, surrogate_tests
from crosschannel.reward.funnel.surrogacy import HOLDS, NOT_TESTED
from crosschannel.reward.reason import Reason
from tests.reward.funnel.worlds import EVENTS, EXCLUSION, FUNNEL, SPEC, simulate

NO_SURROGATES = replace(FUNNEL, surrogates={})


def report(history: History, funnel: FunnelSpec = FUNNEL) -> tuple[FunnelEffects, str]:
    model = make_reward("did", replace(SPEC, funnel=funnel))
    outcomes = model.measure(history)
    return FunnelEffects.fit(model, history, outcomes), funnel_section(model, history, outcomes)


def with_actions(history: History, sent: bool) -> History:
    actions = np.zeros_like(history.decisions.actions)
    actions[:, 0] = sent
    return replace(history, decisions=replace(history.decisions, actions=actions))


def test_a_log_without_open_events_has_values_and_hazards_alone():
    history = simulate(EXCLUSION, 0, 150)
    closed = ~np.isin(history.events.event, [EVENTS.index("opened:email"), EVENTS.index("opened:push")])
    effects, text = report(replace(history, events=take_rows(history.events, closed)))
    assert np.isnan(effects.components.engaged).all()
    test = exclusion_test(effects)
    assert set(test.verdicts.values()) == {NOT_TESTED}
    of = effects.of()
    assert np.isnan([of["engagement"].value, of["gain"].value, of["direct"].value]).all()
    assert np.isfinite([of["value"].value, of["hazard of complaint"].value]).all()
    assert "its direct effect is estimated, not assumed away" in text


def test_a_funnel_may_name_nothing():
    effects, text = report(simulate(EXCLUSION, 0, 60), FunnelSpec())
    assert effects.components.cost.shape == (240, 0)
    assert surrogate_tests(effects) == []
    assert "engagement" in text


def test_a_log_in_which_nothing_is_sent():
    effects, text = report(with_actions(simulate(EXCLUSION, 0, 60), sent=False))
    assert (effects.components.engaged_reason == Reason.NOT_SENT).all()
    assert exclusion_test(effects).channels == ()
    assert "cannot be tested" in surrogate_tests(effects)[0].sentence
    assert "all" in text


def test_a_log_in_which_everything_is_sent_has_no_controls():
    history = with_actions(simulate(EXCLUSION, 0, 60), sent=True)
    effects, _ = report(history, NO_SURROGATES)
    assert (effects.components.value_reason == Reason.FEW_CONTROLS).all()
    assert np.isfinite(effects.components.engaged).any()
    assert np.isfinite(effects.components.cost).all()
    model = make_reward("did", SPEC)
    with pytest.raises(NotIdentified, match="no window without a message tells"):
        model.fit_transform(history)
    assert "not identified: no window without" in funnel_section(model, history, model.measure(history))


def test_one_user_alone():
    history = simulate(EXCLUSION, 1, 60)
    effects, text = report(history.select_users(np.arange(60) == 3), NO_SURROGATES)
    assert len(effects.components) == 4
    assert set(exclusion_test(effects).verdicts.values()) <= {NOT_TESTED}
    assert "engagement" in text


def test_users_without_events_or_decisions():
    history = simulate(EXCLUSION, 1, 60)
    some = history.events.user % 3 == 0
    effects, _ = report(replace(history, events=take_rows(history.events, some)))
    engaged = effects.components.engaged
    quiet = history.decisions.user % 3 != 0
    assert np.nanmax(engaged[quiet]) == 0
    assert np.nanmax(engaged[~quiet]) == 1
    decided = history.decisions.user < 50
    fewer = replace(history, decisions=take_rows(history.decisions, decided))
    assert len(report(fewer)[0].components) == 200


@pytest.mark.parametrize("kind", ["raw", "change", "did", "did_regression", "did_dr"])
def test_every_kind_has_average_components(kind):
    effects = FunnelEffects.fit(make_reward(kind, SPEC), simulate(EXCLUSION, 2, 200))
    for part, effect in effects.of().items():
        assert np.isfinite([effect.value, effect.se, effect.low, effect.high]).all(), part
        assert effect.low < effect.value < effect.high
    assert set(exclusion_test(effects).verdicts) == {"email", "push", "in_app"}


def test_strata_and_attributes_of_the_reward_are_those_of_its_components():
    """Where the reward compares within strata already, these are the ones that groups are tested in."""
    history = simulate(EXCLUSION, 3, 800)
    spec = replace(SPEC, matching=replace(SPEC.matching, strata=2, activity="3d"))
    effects = FunnelEffects.fit(make_reward("did", spec), history)
    assert exclusion_test(effects).verdicts["email"] == HOLDS
    frame = make_reward("did", spec).fit_transform(history)
    assert frame.components is not None
    np.testing.assert_array_equal(np.isfinite(frame.components.value), frame.identified)


def test_the_report_on_effects_has_the_funnel_and_only_where_it_is_declared():
    from crosschannel.reward.effects import EffectsRequest, effects_report

    history = simulate(EXCLUSION, 4, 150)
    text = effects_report(history, make_reward("did", SPEC), EffectsRequest(by=("all", "goal")))
    for words in (
        "Funnel: share of messages",
        "email: nothing contradicts exclusion",
        "Surrogates of order",
        "hazard of",
    ):
        assert words in text
    plain = effects_report(history, make_reward("did", replace(SPEC, funnel=None)), EffectsRequest(by=("all",)))
    assert "Funnel" not in plain
    assert "order x 1" in text
