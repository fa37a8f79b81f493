"""The market as Gymnasium environments: contracts, and many users at once equal to single ones to the bit."""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import crosschannel.envs  # noqa: F401 - registers the ids
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import SCENARIOS, MarketConfig, MarketEnv, MarketVectorEnv, Scenario

ID = "CrossChannelMarket-v0"


@pytest.fixture
def harsh(monkeypatch):
    """A scenario in which users unsubscribe often, so that short tests meet both ends of an episode."""
    return unsubscribing(monkeypatch, "default")


def unsubscribing(monkeypatch, scenario):
    dynamics = SCENARIOS[scenario]().dynamics
    monkeypatch.setitem(SCENARIOS, "harsh", lambda: Scenario(replace(dynamics, hazard=(0.3,) * 4)))
    return MarketConfig(days=5, scenario="harsh")


def check(scenario, seeds):
    env = gym.make(ID, config=MarketConfig(scenario=scenario)).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in seeds:
            env.reset(seed=seed)
            env.action_space.seed(seed)
            env.observation_space.seed(seed)
            check_env(env, skip_render_check=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_check_env_has_no_warning_for_2_seeds(scenario):
    check(scenario, range(2))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_check_env_has_no_warning_for_50_seeds(scenario):
    check(scenario, range(50))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_envs_with_one_seed_give_equal_rollouts(scenario):
    config = MarketConfig(days=18, scenario=scenario)
    left, right = (episode(MarketEnv(config), seed=4) for _ in range(2))
    assert len(left) == len(right) > 2
    for one, other in zip(left, right, strict=True):
        assert np.array_equal(one[0]["context"], other[0]["context"])
        assert np.array_equal(one[0]["action_mask"], other[0]["action_mask"])
        assert one[1:4] == other[1:4]
        assert one[4].keys() == other[4].keys()
        assert all(np.array_equal(one[4][name], other[4][name]) for name in one[4])


def test_make_needs_no_argument():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env, many = gym.make(ID), gym.make_vec(ID, num_envs=3)
    observation, info = env.reset(seed=0)
    assert observation in env.observation_space
    assert info == {}
    assert isinstance(env.unwrapped, MarketEnv)
    assert isinstance(many, MarketVectorEnv)
    assert many.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    batch, _ = many.reset(seed=0)
    assert batch in many.observation_space
    assert np.array_equal(batch["context"][0], observation["context"])


def episode(env, seed):
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    steps = [(observation, 0.0, False, False, {})]
    while not (steps[-1][2] or steps[-1][3]):
        mask = steps[-1][0]["action_mask"]
        action = np.array([rng.choice(np.flatnonzero(mask[:5])), *rng.integers([5, 4, 5, 4, 3])])
        steps.append(env.step(action))
    return steps


def test_an_episode_is_one_user(harsh):
    env = MarketEnv(harsh)
    ends = set()
    for seed in range(25):
        steps = episode(env, seed)
        for observation, reward, terminated, truncated, info in steps[1:]:
            assert observation in env.observation_space
            assert isinstance(reward, float)
            assert not (terminated and truncated)
            assert set(info) == {"true_effect", "incremental", "executed_action", "eligible"}
            assert info["eligible"]
        assert len(steps) <= 6
        assert steps[-1][3] == (len(steps) == 6 and not steps[-1][2])
        ends.add(steps[-1][2])
        with pytest.raises(gym.error.ResetNeeded):
            env.step(np.zeros(6, dtype=np.int64))
    assert ends == {True, False}


def test_equal_seeds_equal_episodes_and_the_next_user_is_another(harsh):
    left, right = MarketEnv(harsh), MarketEnv(harsh)
    for (a, r, *_), (b, q, *_) in zip(episode(left, 4), episode(right, 4), strict=True):
        assert np.array_equal(a["context"], b["context"])
        assert r == q
    first, _ = left.reset(seed=9)
    second, _ = left.reset()
    again, _ = right.reset(seed=9)
    assert np.array_equal(first["context"], again["context"])
    assert not np.array_equal(first["context"], second["context"])


@pytest.mark.parametrize("duplicate", [lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy])
def test_a_copied_env_goes_on_alike(duplicate):
    env = MarketEnv()
    env.reset(seed=3)
    env.step(np.array([1, 0, 0, 0, 0, 0]))
    twin = duplicate(env)
    for _ in range(4):
        left, right = env.step(np.array([2, 1, 1, 1, 1, 1])), twin.step(np.array([2, 1, 1, 1, 1, 1]))
        assert np.array_equal(left[0]["context"], right[0]["context"])
        assert left[1] == right[1]
    assert np.array_equal(env.reset()[0]["context"], twin.reset()[0]["context"])


def test_observations_are_copies():
    env, many = MarketEnv(), MarketVectorEnv(2)
    for current in (env, many):
        first, _ = current.reset(seed=1)
        for array in first.values():
            assert array.flags.owndata or array.base is None
            array[...] = 0
        again, _ = current.reset(seed=1)
        assert again["context"].any()
    first, _ = many.reset(seed=1)
    kept = {name: array.copy() for name, array in first.items()}
    many.step(np.tile([1, 0, 0, 0, 0, 0], (2, 1)))
    assert all(np.array_equal(first[name], kept[name]) for name in first)


def test_ineligible_choices_are_executed_as_none():
    env = MarketEnv()
    observation, _ = env.reset(seed=0)
    channel = int(np.flatnonzero(observation["action_mask"][:5])[-1])
    assert channel > 0
    observation, _, _, _, info = env.step(np.array([channel, 2, 1, 1, 2, 2]))
    assert info["eligible"]
    assert info["executed_action"].tolist() == [channel, 2, 1, 1, 2, 2]
    assert observation["action_mask"].tolist() == [1, 0, 0, 0, 0] + [1] * 21
    _, _, _, _, info = env.step(np.array([channel, 2, 1, 1, 2, 2]))
    assert not info["eligible"]
    assert info["executed_action"].tolist() == [0] * 6
    assert info["true_effect"] == info["incremental"] == 0.0


@pytest.mark.parametrize("scenario", ["refresh", "drift", "confounded_opens"])
def test_vector_equals_single_where_days_differ(scenario):
    """Actions come and go, and tastes move, by each row's own day."""
    config = MarketConfig(days=18, scenario=scenario)
    singles, native = [MarketEnv(config) for _ in range(3)], MarketVectorEnv(3, config)
    for i, env in enumerate(singles):
        env.reset(seed=3 + i)
    native.reset(seed=3)
    rng, masks = np.random.default_rng(1), set()
    for _ in range(17):
        actions = rng.integers(0, [2, 5, 4, 5, 4, 3], (3, 6))
        batch, rewards, _, _, info = native.step(actions)
        for i, env in enumerate(singles):
            observation, reward, ended, _, single = env.step(actions[i])
            assert not ended
            assert np.array_equal(batch["context"][i], observation["context"])
            assert np.array_equal(batch["action_mask"][i], observation["action_mask"])
            assert rewards[i] == reward
            assert info["true_effect"][i] == single["true_effect"]
            masks.add(observation["action_mask"][5:].tobytes())
    assert len(masks) == (2 if scenario == "refresh" else 1)


@pytest.mark.parametrize(
    "scenario",
    [
        *("default", "heavy_tails", "subject_lines", "slow"),
        *(pytest.param(s, marks=pytest.mark.slow) for s in ("direct", "no_opens", "confounded_opens", "machine_opens")),
    ],
)
def test_vector_equals_single_to_the_bit(monkeypatch, scenario):
    n, harsh = 9, unsubscribing(monkeypatch, scenario)
    single = SyncVectorEnv([lambda: MarketEnv(harsh)] * n, autoreset_mode=AutoresetMode.NEXT_STEP)
    native = MarketVectorEnv(n, harsh)
    rng = np.random.default_rng(0)

    def same(left, right):
        for name in ("context", "action_mask"):
            assert left[name].dtype == right[name].dtype
            assert np.array_equal(left[name], right[name])

    same(single.reset(seed=7)[0], native.reset(seed=7)[0])
    resets = terminations = 0
    for step in range(40):
        if step == 25:
            seeds = [None if i % 3 else 100 + i for i in range(n)]
            same(single.reset(seed=seeds)[0], native.reset(seed=seeds)[0])
        actions = rng.integers(0, [5, 5, 4, 5, 4, 3], (n, 6))
        one, other = single.step(actions), native.step(actions)
        same(one[0], other[0])
        for left, right in zip(one[1:4], other[1:4], strict=True):
            assert left.dtype == right.dtype
            assert np.array_equal(left, right)
        assert set(one[4]) == set(other[4])
        for name in one[4]:
            assert one[4][name].dtype == other[4][name].dtype
            assert np.array_equal(one[4][name], other[4][name]), name
        terminations += int(other[2].sum())
        resets += int((~other[4]["_eligible"]).sum()) if other[4] else n
    assert terminations > 5
    assert resets > 10


def test_wrong_calls_say_what_is_wrong():
    env, many = MarketEnv(), MarketVectorEnv(2)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(6, dtype=np.int64))
    with pytest.raises(gym.error.ResetNeeded):
        many.step(np.zeros((2, 6), dtype=np.int64))
    env.reset(seed=0)
    many.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction):
        env.step(np.array([5, 0, 0, 0, 0, 0]))
    with pytest.raises(gym.error.InvalidAction):
        many.step(np.array([[1, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0]]))
    with pytest.raises(gym.error.InvalidAction):
        many.step(np.zeros((3, 6), dtype=np.int64))
    with pytest.raises(ConfigError, match="options"):
        env.reset(options={"user": 1})
    with pytest.raises(ConfigError, match="seeds"):
        many.reset(seed=[1])
    with pytest.raises(ConfigError, match="num_envs"):
        MarketVectorEnv(0)
