"""The settings of a funnel: what they may say, and what a refusal suggests."""

from __future__ import annotations

import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import from_dict, to_dict
from crosschannel.pipeline.configuration import load_config, override, read_config, write_config
from crosschannel.reward import FunnelSpec, Goal, RewardSpec
from crosschannel.reward.funnel import components
from crosschannel.reward.kinds import make_reward
from tests.reward.funnel.worlds import EXCLUSION, SPEC, simulate

GOALS = (Goal("order"), Goal("visit", 0.1), Goal("complaint", -3.0))


def spec(**settings: object) -> RewardSpec:
    return RewardSpec(goals=GOALS, funnel=from_dict(FunnelSpec, settings))


def test_engagement_is_one_event_or_one_for_each_channel():
    names = ("email", "push")
    assert FunnelSpec("opened").channels(names) == {"email": "opened", "push": "opened"}
    assert FunnelSpec({"push": "opened"}).channels(names) == {"push": "opened"}
    assert FunnelSpec().channels(names) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engagment": "opened"}, "unknown key 'engagment'. Did you mean 'engagement'"),
        ({"engagement": ["opened"]}, "engagement: expected"),
        ({"engagement": {"email": ""}}, "engagement: the name of an event is empty"),
        ({"window": "soon"}, "soon"),
        ({"costs": "complaint"}, "costs: expected a list"),
        ({"costs": ["complaints"]}, "funnel.costs: 'complaints' is not a goal's event. Did you mean 'complaint'"),
        ({"costs": ["complaint", "complaint"]}, "names an event twice"),
        ({"costs": ["order"]}, "the goal 'order' has the weight 1.0: costs are below 0"),
        ({"surrogates": {"orders": ["visit"]}}, "funnel.surrogates: 'orders' is not a goal's event. Did you mean 'ord"),
        ({"surrogates": {"order": []}}, "surrogates: 'order' has none"),
        ({"surrogates": {"order": ["visit", "visit"]}}, "surrogates of 'order': .* names an event twice"),
        ({"surrogates": {"complaint": ["visit"]}, "costs": ["complaint"]}, "has surrogates and is a cost event"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        spec(**settings)


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        ((Goal("order"), Goal("bad", -1.0, measure="value")), "counts once"),
        ((Goal("order"), Goal("bad", -1.0, clip=0.5)), "counts once"),
        ((Goal("order"), Goal("bad", -1.0, credit="exponential", half_life="1h")), "counts once"),
        ((Goal("order"), Goal("bad", -1.0), Goal("bad", -2.0)), "is the event of 2 goals"),
        ((Goal("bad", -1.0),), "all goals are cost events"),
    ],
)
def test_a_cost_event_is_counted_once(goals, message):
    with pytest.raises(ConfigError, match=message):
        RewardSpec(goals=goals, funnel=FunnelSpec(costs=("bad",)))


@pytest.mark.parametrize(
    ("funnel", "goals", "message"),
    [
        (FunnelSpec({"emial": "opened:email"}), GOALS, "there is no channel 'emial'. Did you mean 'email'"),
        (FunnelSpec({"none": "opened:email"}), GOALS, "there is no channel 'none'"),
        (FunnelSpec("clicked"), GOALS, r"reward\.funnel\.engagement: the history has no event 'clicked'"),
        (
            FunnelSpec({"email": "clicked"}),
            GOALS,
            r"reward\.funnel\.engagement\.email: the history has no event 'clicked'",
        ),
        (FunnelSpec(surrogates={"order": ("cart",)}), GOALS, r"reward\.funnel\.surrogates\.order: .* no event 'cart'"),
        (FunnelSpec(), (Goal("ordr"),), r"reward\.goals: the history has no event 'ordr'"),
        (FunnelSpec(costs=("complaint",)), (Goal("*"), Goal("complaint", -1.0)), "counts 'complaint' as well"),
        (FunnelSpec(surrogates={"order": ("visit", "order")}), GOALS, "'order' stands for the goal itself"),
        (FunnelSpec(surrogates={"order": ("*",)}), GOALS, r"'\*' stands for the goal itself"),
    ],
)
def test_what_does_not_fit_the_history_is_refused(funnel, goals, message):
    history = simulate(EXCLUSION, 0, 60)
    model = make_reward("did", RewardSpec(goals=goals, pre="1d", post="1d", funnel=funnel))
    with pytest.raises(ConfigError, match=message):
        components(model, history, model.measure(history))


def test_components_need_a_funnel():
    history = simulate(EXCLUSION, 0, 60)
    model = make_reward("did", RewardSpec(goals=GOALS, pre="1d", post="1d"))
    with pytest.raises(ConfigError, match="has no `funnel`"):
        components(model, history, model.measure(history))
    assert model.fit_transform(history).components is None


def test_a_funnel_is_written_and_read_back(tmp_path):
    assert from_dict(RewardSpec, to_dict(SPEC)) == SPEC
    for name in ("market", "starbucks_rewards"):
        config = load_config(name)
        assert config.reward.funnel is not None
        write_config(config, tmp_path / "config.yaml")
        assert read_config(tmp_path / "config.yaml") == config


def test_other_goals_keep_the_parts_of_the_funnel_that_fit_them():
    config = load_config("market")
    fewer = override(config, {"reward.goals": [{"event": "visit:*"}, {"event": "unsubscribed", "weight": -1.0}]})
    assert fewer.reward.funnel == FunnelSpec(config.reward.funnel.engagement, costs=("unsubscribed",))
    harmless = override(config, {"reward.goals": [{"event": "order:*"}, {"event": "unsubscribed", "weight": 1.0}]})
    assert harmless.reward.funnel.costs == ()
    assert harmless.reward.funnel.surrogates == config.reward.funnel.surrogates
    alone = override(config, {"reward.goals": [{"event": "unsubscribed", "weight": -1.0}]})
    assert alone.reward.funnel.costs == ()


def test_a_funnel_of_its_own_must_fit_other_goals():
    with pytest.raises(ConfigError, match="'unsubscribed' is not a goal's event"):
        override(load_config("market"), {"reward.goals": [{"event": "visit:*"}], "reward.funnel.window": "2d"})


def test_a_configuration_goes_without_its_funnel():
    assert override(load_config("market"), {"reward.funnel": None}).reward.funnel is None
