"""Propensities that are not of their log are refused, right ones hardly ever, and the likely mistake is named."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import InputError
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.propensities.checks import check_propensities, notes_on_estimates
from crosschannel.histories.propensities.estimate import estimate_propensities
from crosschannel.histories.propensities.mistakes import UNKNOWN
from crosschannel.histories.propensities.sources import BY_DESIGN, LOGGED
from tests.histories.propensities.propensity_worlds import (
    MISTAKES,
    RIGHT,
    arms_and_weeks,
    by_user_binary,
    campaign,
    draw,
    history_of,
    users_of,
)

pytestmark = pytest.mark.numerics


def refused(world, seed: int) -> bool:
    check = check_propensities(history_of(world(np.random.default_rng(seed))))
    return bool(check.contradictions or check.no_overlap)


@pytest.mark.parametrize("name", list(RIGHT))
def test_right_propensities_are_accepted(name):
    """Quick: at most one of 12 logs; at a rate of .0027, two or more have a probability of .0005."""
    assert sum(refused(RIGHT[name], seed) for seed in range(12)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RIGHT))
def test_right_propensities_are_hardly_ever_refused(name):
    """400 logs each: heavy-tailed weights, few and dependent users, impossible actions. Below 2 %, of 5 % allowed."""
    assert sum(refused(RIGHT[name], seed) for seed in range(400)) <= 8


@pytest.mark.parametrize("scenario", ["default", "templates"])
def test_the_markets_own_propensities_are_accepted(scenario):
    """Several modules with parents, guardrails and logged eligibility; in templates a tone's depends on the offer."""
    history, _ = simulate_history(Market(MarketConfig(users=1500, days=15, scenario=scenario)))
    check = check_propensities(history)
    assert not check.contradictions
    assert not check.no_overlap
    assert all("of 'tone' was possible in at most" in note for note in check.notes)
    assert bool(check.notes) == (scenario == "templates")


#: Mistakes that every log of these shapes shows, and what the message calls them.
NAMED = {
    "the probability of sending": "the probability of sending on every row",
    "the probability of nothing": "the probability of sending nothing on every row",
    "1 - p": "probabilities of not taking the action",
    "divided by 100": "percentages",
    "of a random action": UNKNOWN,
    "of other rows": UNKNOWN,
    "one where nothing is sent": UNKNOWN,
}


@pytest.mark.parametrize("actions", [2, 4])
@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize("name", list(NAMED))
def test_mistakes_are_found_and_named(name, actions, logged):
    """3,600 decisions of 300 users, seeds 0 to 4."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        world = campaign(rng, actions=actions, logged=logged)
        check = check_propensities(history_of(world, MISTAKES[name](world, rng)))
        with pytest.raises(InputError, match="the propensities are not those of the log's actions") as caught:
            check.refuse_contradictions()
        assert NAMED[name] in str(caught.value)


def test_probabilities_given_that_something_is_sent_are_found_with_two_actions_and_in_long_logs():
    rng = np.random.default_rng(0)
    for world in (campaign(rng), campaign(rng, users=3000, actions=4, logged=True)):
        check = check_propensities(history_of(world, MISTAKES["given that something is sent"](world, rng)))
        assert "probabilities given that something is sent" in check.mistakes["channel"]


def test_messages_that_were_more_likely_than_not_show_the_mistake_too():
    """P(sent) of .8 on every row: all means of four actions are below 1, and eligibility is not logged."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        world = campaign(rng, actions=4, share=0.8)
        check = check_propensities(history_of(world, MISTAKES["the probability of sending"](world, rng)))
        assert "the probability of sending on every row" in check.mistakes["channel"]


def test_rounded_propensities_are_accepted():
    """Two digits, 40,000 decisions: the means are off by more than their errors, but not by the tolerance."""
    world = campaign(np.random.default_rng(0), users=2000, slots=20, actions=3, logged=True, share=0.5)
    kept = world.p >= 0.05
    world = replace(world, user=world.user[kept], policy=world.policy[kept], taken=world.taken[kept], eligible=None)
    assert not check_propensities(history_of(world, np.round(world.p, 2))).contradictions


def test_a_mean_below_one_is_a_note_where_eligibility_is_not_logged():
    """An action that was possible in a third of the decisions, and a log that does not say in which."""
    rng = np.random.default_rng(0)
    user = users_of(300, 10)
    policy = np.where((rng.random(len(user)) < 1 / 3)[:, None], [0.4, 0.3, 0.3], [0.6, 0.4, 0.0])
    world = by_user_binary(rng)
    world = replace(world, user=user, policy=policy, taken=draw(rng, policy))
    check = check_propensities(history_of(world))
    assert not check.contradictions
    assert len(check.notes) == 1
    assert re.match(
        "by its propensities, 'c2' of 'channel' was possible in at most (3[4-9]|4[0-3])% of", check.notes[0]
    )


def test_sending_nothing_that_was_not_always_possible_leaves_no_controls():
    rng = np.random.default_rng(0)
    user = users_of(300, 10)
    policy = np.where((rng.random(len(user)) < 0.5)[:, None], [0.4, 0.3, 0.3], [0.0, 0.6, 0.4])
    world = replace(by_user_binary(rng), user=user, policy=policy, taken=draw(rng, policy))
    check = check_propensities(history_of(world))
    assert not check.contradictions
    assert "'none' of 'channel' was possible in at most" in check.no_controls
    assert not check.no_overlap


@pytest.mark.parametrize("group", ["week", "arm", "source"])
def test_a_mistake_in_one_part_of_the_log_is_found_there(group):
    """A week or an arm whose propensities are a fifth too small, and one decision in six with 1 - p by design."""
    rng = np.random.default_rng(1)
    world = arms_and_weeks(rng)
    history = history_of(world)
    d = history.decisions
    p = d.propensity[:, 0].copy()
    weeks = (d.time - d.time.min()) // (7 * 86_400_000_000)
    part = {"week": weeks == 3, "arm": d.arm == "b", "source": np.arange(len(p)) % 6 == 0}[group]
    p[part] = 1 - p[part] if group == "source" else p[part] / 1.25
    source = np.where(part & (group == "source"), BY_DESIGN, LOGGED)
    check = check_propensities(history.with_propensities(p[:, None], p, source))
    assert check.contradictions
    words = {"week": "in the week of 2024-", "arm": "of the arm 'b'", "source": "whose propensities are by design"}
    assert any(words[group] in str(each) for each in check.contradictions)


def two_modules(rng, joint_is_product: bool):
    """An offer that depends on the channel; the propensities of both may be right one by one and wrong together."""
    user = users_of(400, 10)
    n = len(user)
    channel = draw(rng, np.full((n, 3), [0.4, 0.3, 0.3]))
    chance = np.where(channel == 1, 0.9, 0.1)
    offer = np.where(channel > 0, rng.random(n) < chance, 0).astype(int)
    given = np.where(offer == 1, chance, 1 - chance) if joint_is_product else np.full(n, 0.5)
    p = np.stack([np.array([0.4, 0.3, 0.3])[channel], np.where(channel > 0, given, 1.0)], axis=1)
    base = history_of(by_user_binary(rng, 400, 10))
    modules = ActionSpace([Module("channel", ("none", "email", "push")), Module("offer", ("small", "large"))])
    decisions = replace(
        base.decisions, actions=np.stack([channel, offer], 1), propensity=p, joint=p.prod(1), eligible=None
    )
    return replace(base, modules=modules, decisions=decisions)


def test_the_joint_propensity_is_tested_as_well():
    """The offer's propensity of .5 has a mean of 1, since it is right on average; with the channel's it is wrong."""
    assert not check_propensities(two_modules(np.random.default_rng(0), True)).contradictions
    check = check_propensities(two_modules(np.random.default_rng(0), False))
    assert {each.module for each in check.contradictions} == {None}
    with pytest.raises(InputError, match=r"column 'propensity': .* for the whole action"):
        check.refuse_contradictions()
    only_joint = two_modules(np.random.default_rng(0), True)
    d = only_joint.decisions
    unknown = np.full_like(d.propensity, np.nan)
    assert not check_propensities(only_joint.with_propensities(unknown, d.joint, "logged")).contradictions
    assert check_propensities(only_joint.with_propensities(unknown, 1 - d.joint, "logged")).contradictions


def templates(seed: int, factor: float, users: int = 400):
    """Three of four tones go with each of three offers, all of which are logged as eligible."""
    rng = np.random.default_rng(seed)
    base = history_of(by_user_binary(rng, users, 10))
    n = len(base.decisions)
    of_offer = np.array([0.6, 0.395, 0.005])
    of_tone = np.array([[0.5, 0.3, 0.2, 0.0], [0.0, 0.2, 0.3, 0.5], [0.3, 0.0, 0.4, 0.3]])
    sent = rng.integers(0, 2, n)
    offer = sent * draw(rng, np.tile(of_offer, (n, 1)))
    tone = sent * draw(rng, of_tone[offer])
    p = np.stack([np.full(n, 0.5), np.where(sent, of_offer[offer], 1.0), np.ones(n)], axis=1)
    p[:, 2] = np.where(sent, np.minimum(factor * of_tone[offer, tone], 1.0), 1.0)
    modules = ActionSpace(
        [Module("channel", ("none", "push")), Module("offer", tuple("abc")), Module("tone", tuple("klmn"))]
    )
    decisions = replace(
        base.decisions,
        actions=np.stack([sent, offer, tone], 1),
        propensity=p,
        joint=p.prod(1),
        eligible=np.ones((n, modules.total), bool),
    )
    return check_propensities(replace(base, modules=modules, decisions=decisions))


def test_an_eligible_tone_need_not_go_with_every_offer():
    """Right ones pass; too small ones are refused, and too large ones in a log that is long enough to tell."""
    assert sum(bool(templates(seed, 1.0).contradictions) for seed in range(12)) <= 1
    assert "tone" in {each.module for each in templates(0, 0.8).contradictions}
    assert not templates(0, 1.0, users=4000).contradictions
    assert any("where it was eligible" in each.what for each in templates(0, 1.25, users=4000).contradictions)


def test_joint_probabilities_in_a_later_modules_column_are_named():
    history = two_modules(np.random.default_rng(0), True)
    d = history.decisions
    wrong = np.stack([d.propensity[:, 0], d.joint], axis=1)
    wrong[d.actions[:, 0] == 0, 1] = 1.0
    check = check_propensities(history.with_propensities(wrong, wrong.prod(1), "logged"))
    assert "joint probabilities and not those given the earlier choices" in check.mistakes["offer"]


def test_a_propensity_of_one_for_two_actions_is_no_overlap():
    world = campaign(np.random.default_rng(0))
    check = check_propensities(history_of(world, np.ones(len(world.taken))))
    assert check.no_overlap.startswith("the log has no overlap: 100% of the 3,600 decisions at which 'channel' had alt")
    assert check.no_overlap in check.notes


def test_missing_propensities_are_not_tested_and_estimated_ones_are_for_a_note():
    rng = np.random.default_rng(0)
    world = campaign(rng)
    history = history_of(world)
    n = len(world.taken)
    missing = history.with_propensities(np.full((n, 1), np.nan), np.full(n, np.nan), "missing")
    assert check_propensities(missing) == check_propensities(missing)
    assert not check_propensities(missing).notes
    estimated, _ = estimate_propensities(missing, ContextSpec(windows=("3d",)))
    assert not list(notes_on_estimates(estimated))
    assert not check_propensities(estimated).contradictions
    wrong = history.with_propensities(1 - world.p[:, None], 1 - world.p, "estimated")
    assert not check_propensities(wrong).contradictions
    assert "the estimated propensities of 'channel' do not fit its actions" in "".join(notes_on_estimates(wrong))
