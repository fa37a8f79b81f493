"""The components of a learned funnel are those of its world, and their means over the policy are exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.agents import ALL_DECISIONS, Agent, Observations, as_scalars, as_text, make_agent, policy_table
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.policy import components, preferred_shares, vote
from crosschannel.agents.funnel.values import Effects
from tests.agents.funnel.samples import PLAIN, SPACES, World, contexts, with_components
from tests.agents.funnel.test_policy import WIDTH, N, everything, setup, slots_of

pytestmark = pytest.mark.numerics
WORLD = World(direct_of_push=0.5, noise=0.3)


def learned(batch) -> Agent:
    agent = make_agent("ensemble_thompson", PLAIN, 3, {"members": 32}, seed=1)
    agent.observe(batch)
    agent.update(1)
    agent.update(1)
    return agent


def seen(n: int = 400) -> Observations:
    context = np.random.default_rng(9).standard_normal((n, 3)).astype(np.float32)
    return Observations(context, np.ones((n, PLAIN.total), dtype=bool))


@pytest.fixture(scope="module")
def agent() -> Agent:
    return learned(WORLD.log(40_000))


def row(table, module: str, action: str):
    found = table[(table.segment == ALL_DECISIONS) & (table.module == module) & (table.action == action)]
    assert len(found) == 1
    return found.iloc[0]


def test_the_table_has_the_worlds_components_within_four_standard_errors(agent):
    slots = seen()
    table = policy_table(agent, slots)
    x = slots.context.astype(np.float64)
    for code, channel in ((1, "email"), (2, "push")):
        actions = np.zeros((len(x), 3), dtype=np.int64)
        actions[:, 0] = code
        found = row(table, "channel", channel)
        truth = {"engagement": WORLD.engagement(x, actions).mean(), "direct": WORLD.direct(actions).mean()}
        for name, value in truth.items():
            sd = (found[f"{name}_high"] - found[f"{name}_low"]) / (2 * 1.96)
            assert 0 < sd < 0.05
            assert abs(found[name] - value) < 4 * sd, (channel, name)
    for code, offer in enumerate(PLAIN[2].actions):
        actions = np.full((len(x), 3), [1, 0, code])
        found = row(table, "offer", offer)
        sd = (found.gain_high - found.gain_low) / (2 * 1.96)
        assert abs(found.gain - WORLD.gain(x, actions).mean()) < 4 * sd
    hazards = {tone: row(table, "tone", tone).hazard_complain for tone in PLAIN[1].actions}
    assert hazards["cold"] > 1.5 * hazards["warm"]
    assert row(table, "channel", "push").hazard_complain > 3 * row(table, "channel", "email").hazard_complain


def test_sending_nothing_has_no_components_and_intervals_stay_within_what_is_possible(agent):
    table = policy_table(agent, seen(50))
    parts = ["engagement", "gain", "direct", "hazard_complain"]
    assert table.loc[table.action == "none", parts].isna().all(axis=None)
    others = table[table.action != "none"]
    assert others[parts].notna().all(axis=None)
    assert (others.hazard_complain_low >= 0).all()
    assert (others[["engagement_low", "engagement", "engagement_high"]].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    scalars = as_scalars(table)
    assert scalars["explain/hazard_complain/channel/push"] == row(table, "channel", "push").hazard_complain
    assert scalars["explain/gain/tone/warm"] == row(table, "tone", "warm").gain
    assert "explain/gain/channel/none" not in scalars
    assert "complain " in as_text(table)


@pytest.mark.parametrize("name", SPACES)
def test_components_are_the_means_over_the_policy_by_enumeration(name):
    modules, heads, effects, truth = setup(name)
    slots = slots_of(modules, everything(modules))
    floors = [0.1] * len(modules)
    blend = replace(heads.blend, funnel=1.0, all_sends=0.0)
    direct = Effects.build(Design.build(modules, WIDTH), heads, contexts(N, WIDTH), None, blend=blend)
    found = [part.numpy() for part in components(slots, heads, effects, direct, floors)]
    preferred = [share.numpy() for share in preferred_shares(slots, heads, effects.best(), floors)]
    later = [share.numpy() for share in vote(slots, heads, effects, floors).shares]
    for m in range(len(modules)):
        policy = [np.full((modules.sizes[0], preferred[0].shape[1]), 0.5), *later] if m == 0 else preferred
        # At a policy that prefers one channel a cell that needs another one has no message: its own is left out there.
        with np.errstate(invalid="ignore"):
            hazard = truth.given(m, truth.hazards[0], policy) - heads.organic.numpy()[0]
        parts = (
            truth.parts[:3]
            * np.stack([truth.tested, np.ones_like(truth.tested), np.ones_like(truth.tested)])[:, None, None]
        )
        wanted = np.stack([*(truth.given(m, part, policy) for part in parts), hazard])
        known = np.isfinite(wanted)
        assert known.mean() > 0.3
        np.testing.assert_allclose(found[m][known], wanted[known], rtol=1e-3, atol=1e-4)
    assert np.isnan(found[0][:, :, 0]).all()


def test_a_channel_without_an_event_of_engagement_has_a_direct_effect_only():
    batch = WORLD.log(10_000)
    engaged = np.where(batch.actions[:, 0] == 2, np.nan, batch.components.engaged)
    table = policy_table(learned(with_components(batch, engaged=engaged)), seen(50))
    push, email = row(table, "channel", "push"), row(table, "channel", "email")
    assert np.isnan(push[["engagement", "engagement_low", "gain", "gain_high"]].astype(float)).all()
    assert push.direct == pytest.approx(push.reward + WORLD.price * push.hazard_complain, abs=0.2)
    assert email[["engagement", "gain", "direct"]].notna().all()


def test_an_action_that_is_nowhere_eligible_has_no_components(agent):
    slots = seen(30)
    mask = slots.action_mask.copy()
    mask[:, 2] = False
    table = policy_table(agent, replace(slots, action_mask=mask))
    assert row(table, "channel", "push")[["engagement", "gain", "direct", "hazard_complain"]].isna().all()
    assert row(table, "channel", "email").notna().all()


def test_an_agent_without_a_funnel_has_the_columns_and_no_numbers():
    table = policy_table(make_agent("ensemble_thompson", PLAIN, 3, {"members": 3}), seen(10))
    assert table[["engagement", "gain", "direct", "gain_low", "direct_high"]].isna().all(axis=None)
    assert not [name for name in table if name.startswith("hazard_")]
