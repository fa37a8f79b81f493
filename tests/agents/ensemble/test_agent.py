"""Thompson ensembles: exact propensities, equal bits, and decisions that beat what they should beat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crosschannel.agents import Batch, EnsembleThompson, make_agent
from crosschannel.agents.ensemble.mixtures import vote_shares_on_device
from crosschannel.agents.sampling import sample_actions, vote_shares
from crosschannel.core.action_space import ActionSpace
from tests.agents.samples import NESTED, PLAIN, SMALL, TABLES, Problem, everything, observations_of, random_batch

pytestmark = pytest.mark.numerics


def trained(modules: ActionSpace = PLAIN, seed: int = 0, updates: int = 2, **settings: object) -> EnsembleThompson:
    agent = make_agent("ensemble_thompson", modules, 4, {**SMALL, **settings}, seed)
    assert isinstance(agent, EnsembleThompson)
    agent.observe(random_batch(800, modules, seed=seed))
    agent.update(updates)
    return agent


@pytest.mark.parametrize("modules", [PLAIN, NESTED], ids=["plain", "nested"])
def test_reported_probabilities_are_the_frequencies_of_decisions(modules: ActionSpace) -> None:
    agent = trained(modules, floor=0.1)
    rng = np.random.default_rng(1)
    mask = rng.random((5, modules.total)) < 0.7
    n = 8000
    rows = np.repeat(np.arange(5), n)
    seen = observations_of(mask)
    joint = modules.all_joint_probabilities(agent.action_probabilities(seen))
    decisions = agent.act(seen[rows])
    index = modules.joint_index(decisions.actions)
    np.testing.assert_allclose(decisions.joint, joint[rows, index])
    frequency = np.zeros_like(joint)
    np.add.at(frequency, (rows, index), 1 / n)
    assert (np.abs(frequency - joint) <= 4 * np.sqrt(joint * (1 - joint) / n) + 1e-12).all()
    np.testing.assert_allclose(joint.sum(1), 1.0)


def test_without_mixtures_probabilities_are_the_members_votes() -> None:
    agent = trained(floor=0.2, exploration_scale=1.0, mixtures=0)
    seen = observations_of(everything(300, PLAIN))
    winners = [estimates.argmax(2) for estimates in agent.expected_rewards(seen)]
    for p, winner, size in zip(agent.action_probabilities(seen), winners, PLAIN.sizes, strict=True):
        share = np.stack([(winner == a).mean(0) for a in range(size)], 1)
        np.testing.assert_allclose(p, 0.8 * share + 0.2 / size)


def test_with_an_exploration_scale_of_0_every_mixture_votes_for_the_mean() -> None:
    seen = observations_of(everything(300, PLAIN))
    certain, half, full = (
        trained(floor=0.0, exploration_scale=s).action_probabilities(seen)[0] for s in (0.0, 0.5, 1.0)
    )
    best = trained().act(seen, explore=False).actions[:, 0]
    assert (certain[np.arange(300), best] == 1).all()
    assert full.max(1).mean() < half.max(1).mean() < 1


def test_without_exploring_the_best_action_on_the_mean_is_certain() -> None:
    agent = trained(NESTED)
    mask = np.random.default_rng(2).random((300, NESTED.total)) < 0.7
    seen = observations_of(mask)
    decisions = agent.act(seen, explore=False)
    assert (decisions.joint == 1).all()
    np.testing.assert_array_equal(decisions.actions, agent.act(seen, explore=False).actions)
    means = [estimates.mean(0, dtype=np.float64) for estimates in agent.expected_rewards(seen)]
    closed = NESTED.feasible_mask(mask)
    for m, mean in enumerate(means):
        eligible = NESTED.conditional_mask(m, closed, decisions.actions)
        best = np.where(eligible, mean, -np.inf).max(1)
        asked = NESTED.sends(decisions.actions) if m else np.ones(300, dtype=bool)
        chosen = mean[np.arange(300), decisions.actions[:, m]]
        np.testing.assert_allclose(chosen[asked], best[asked], rtol=1e-5)


def test_the_pieces_in_which_rows_are_seen_do_not_matter() -> None:
    agent = trained()
    seen = observations_of(everything(5000, PLAIN))
    whole = agent.action_probabilities(seen)
    parts = [agent.action_probabilities(seen[rows]) for rows in (slice(0, 1), slice(1, 700), slice(700, 5000))]
    for m, p in enumerate(whole):
        apart = np.concatenate([part[m] for part in parts])
        assert (np.abs(p - apart).max(1) > 1e-9).mean() < 0.002  # a near-tie may tip by a rounding error


def test_training_twice_gives_equal_bits_and_another_seed_others() -> None:
    seen = observations_of(everything(100, PLAIN))
    first, again = (trained().expected_rewards(seen) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    other = make_agent("ensemble_thompson", PLAIN, 4, SMALL, 9)
    other.observe(random_batch(800))
    other.update(2)
    assert not np.allclose(first[0], other.expected_rewards(seen)[0])  # type: ignore[attr-defined]


def test_global_random_states_are_neither_used_nor_touched() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    trained().act(observations_of(everything(10, PLAIN)))
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


def test_edges() -> None:
    agent = make_agent("ensemble_thompson", PLAIN, 4, SMALL)
    nobody = observations_of(everything(0, PLAIN))
    assert len(agent.act(nobody)) == len(agent.act(nobody, explore=False)) == 0
    assert agent.update(5) == {}
    only_nothing = random_batch(50)
    only_nothing.actions[:] = 0
    agent.observe(only_nothing)
    scalars = agent.update(5)
    assert np.isfinite(scalars["loss"])
    assert np.isnan(scalars["loss/offer"])
    only_none = np.zeros((20, PLAIN.total), dtype=bool)
    assert (agent.act(observations_of(only_none)).actions == 0).all()


def test_updates_report_what_they_did() -> None:
    scalars = trained().update(3)
    assert set(scalars) == {"loss", "loss/channel", "loss/offer", "reward_scale"}
    assert scalars["reward_scale"] == pytest.approx(1.0, abs=0.1)
    assert 0.5 < scalars["loss"] < 1.5


def test_the_last_rows_count_too() -> None:
    """Rows too few to have the heads fitted again at once are added when no more come."""
    seen = observations_of(everything(50, PLAIN))
    agent = trained(updates=20)
    before = agent.expected_rewards(seen)[0]
    agent.observe(random_batch(20, seed=77))
    agent.update(1)
    np.testing.assert_array_equal(agent.expected_rewards(seen)[0], before)
    agent.update(1)
    after = agent.expected_rewards(seen)[0]
    assert not np.allclose(after, before)
    agent.update(1)
    np.testing.assert_array_equal(agent.expected_rewards(seen)[0], after)


@pytest.mark.parametrize("settings", [{"half_life": 1000.0}, {"capacity": 2000}], ids=["forgetting", "window"])
def test_what_no_longer_holds_is_forgotten(settings: dict[str, object]) -> None:
    """After 8,000 rows under which email earns, 3,000 under which it costs: an agent that forgets turns round."""
    values = []
    for how in ({}, settings):
        agent = make_agent("ensemble_thompson", PLAIN, 4, {**SMALL, "effect_scale": 1.0, **how}, 0)
        for seed, effect in enumerate([1.0] * 8 + [-1.0] * 3):
            batch = random_batch(1000, seed=seed)
            batch.rewards[:] = 0.3 * batch.rewards + effect * (batch.actions[:, 0] == 1)
            agent.observe(batch)
            agent.update(1)
        estimates = agent.expected_rewards(observations_of(everything(300, PLAIN)))[0].mean((0, 1))  # type: ignore[attr-defined]
        values.append(estimates[1] - estimates[0])
    assert values[0] > 0.2
    assert values[1] < -0.6


@pytest.mark.parametrize("modules", [PLAIN, NESTED], ids=["plain", "nested"])
def test_votes_are_counted_as_the_plain_formula_says(modules: ActionSpace) -> None:
    rng = np.random.default_rng(3)
    for m, size in enumerate(modules.sizes):
        values = rng.integers(0, 4, (6, 500, size)).astype(np.float32)  # small integers: many are equal
        mask = rng.random((500, size)) < 0.7
        shares = vote_shares_on_device(
            torch.from_numpy(values).permute(2, 0, 1), torch.from_numpy(mask), modules.groups(m), floor=0.1
        ).numpy()
        np.testing.assert_allclose(shares, vote_shares(modules, m, values, mask, 0.1), atol=1e-12)


def test_in_a_table_each_row_is_voted_on_by_its_own() -> None:
    agent = trained(TABLES, exploration_scale=1.0, mixtures=0, floor={"channel": 0.3, "hour": 0.1})
    mask = np.random.default_rng(3).random((400, TABLES.total)) < 0.7
    seen = observations_of(mask)
    parts = TABLES.split(TABLES.feasible_mask(mask))
    estimates, shares = agent.expected_rewards(seen), agent.action_probabilities(seen)
    for m, (values, floor) in enumerate(zip(estimates, (0.3, 0.1, 0.02, 0.02), strict=True)):
        assert values.shape == (5, 400, *TABLES.shape(m))
        np.testing.assert_allclose(shares[m], vote_shares(TABLES, m, values, parts[m], floor), atol=1e-12)


def in_the_evening(n: int, seed: int, channels: tuple[int, ...]) -> Batch:
    """The best hour depends on the channel: pushes earn in the morning, e-mails in the evening."""
    batch = random_batch(n, TABLES, seed)
    channel = np.random.default_rng(seed).choice(channels, n)
    actions = np.column_stack([channel, batch.actions[:, 1:]])
    rewards = 0.5 * ((channel == 1) == (actions[:, 1] == 1)) + batch.rewards
    return replace(batch, actions=actions, rewards=rewards)


def test_the_best_action_may_depend_on_an_earlier_choice() -> None:
    agent = make_agent("ensemble_thompson", TABLES, 4, SMALL, 0)
    agent.observe(in_the_evening(6000, 0, (1, 2)))
    agent.update(20)
    hour = agent.action_probabilities(observations_of(everything(200, TABLES)))[1].mean(0)
    assert hour[1, 1] > 0.9
    assert hour[2, 0] > 0.9


def test_rows_of_a_table_learn_from_each_other() -> None:
    """Every choice of an hour has been seen under e-mail only: it is believed to be good under a push, too."""
    agent = make_agent("ensemble_thompson", TABLES, 4, SMALL, 0)
    agent.observe(in_the_evening(6000, 0, (1,)))
    agent.update(20)
    mean = agent.expected_rewards(observations_of(everything(200, TABLES)))[1].mean((0, 1))  # type: ignore[attr-defined]
    assert mean[1, 1] - mean[1, 0] > 0.4
    assert 0.05 < mean[2, 1] - mean[2, 0] < mean[1, 1] - mean[1, 0]


def learned(problem: Problem, n: int, steps: int, seed: int, **settings: object) -> EnsembleThompson:
    agent = make_agent("ensemble_thompson", PLAIN, 8, settings, seed)
    agent.observe(problem.log(n, seed))
    agent.update(steps)
    assert isinstance(agent, EnsembleThompson)
    return agent


def test_it_learns_where_effects_are_plain() -> None:
    """Effects as large as the noise, half of them not linear: the network must find what the linear path cannot."""
    problem = Problem.make(0, scale=0.5, noise=0.5)
    agent = learned(problem, 20_000, 400, seed=0)
    assert problem.regret(agent) < 0.12 < problem.regret_of_fixed()
    assert problem.regret(agent, explore=True) < 0.2


def test_it_learns_where_rewards_are_nearly_all_noise() -> None:
    """Effects of about a twentieth of the noise: better than the best fixed action, and not overfitted."""
    problem = Problem.make(1, scale=0.03, noise=0.5)
    agent = learned(problem, 50_000, 150, seed=1)
    assert problem.regret(agent) < 0.75 * problem.regret_of_fixed()
    assert problem.regret(agent, explore=True) < 0.6


@pytest.mark.slow
def test_it_learns_over_many_seeds() -> None:
    """Mean regret over 6 seeds: a third of the best fixed action's where effects are plain, else three quarters."""
    for scale, n, steps, share in ((0.5, 20_000, 800, 0.34), (0.03, 50_000, 1500, 0.75)):
        problems = [Problem.make(seed, scale, 0.5) for seed in range(6)]
        found = np.mean([p.regret(learned(p, n, steps, seed)) for seed, p in enumerate(problems)])
        assert found < share * np.mean([p.regret_of_fixed() for p in problems])


@pytest.mark.slow
def test_more_data_bring_it_nearer_to_the_best() -> None:
    regrets = [
        np.mean([(p := Problem.make(s, 0.1, 0.5)).regret(learned(p, n, 1500, s)) for s in range(5)])
        for n in (3_000, 30_000, 300_000)
    ]
    assert regrets[0] > regrets[1] + 0.02 > regrets[2] + 0.04


def test_drawing_from_its_probabilities_is_what_acting_does() -> None:
    agent = trained()
    seen = observations_of(everything(50, PLAIN))
    rng = np.random.default_rng([0, 1])
    assert (sample_actions(PLAIN, agent.action_probabilities(seen), rng).actions == agent.act(seen).actions).all()
