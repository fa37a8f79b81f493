"""Stable-Baselines3 over a native vector env sees to the bit what it sees over as many single envs."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.wrappers import FlatContext, FlatContextVector, RecordOutcomes, RecordOutcomesVector
from tests.envs.wrappers.samples import SINGLE, native

pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed")
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from crosschannel.envs.wrappers.stable_baselines import StableBaselinesVec

N = 5


def over_native(kind: str) -> StableBaselinesVec:
    return StableBaselinesVec(FlatContextVector(RecordOutcomesVector(native(kind, N))))


def test_a_replay_is_refused():
    """Its rewards are those of the logged actions, which Stable-Baselines3 would take for those of its own."""
    with pytest.raises(ConfigError, match="pays the reward of the logged action"):
        over_native("replay").reset()


def test_it_equals_one_env_a_user():
    many = over_native("market")
    ones = DummyVecEnv([lambda: FlatContext(RecordOutcomes(SINGLE["market"]())) for _ in range(N)])
    assert many.observation_space == ones.observation_space
    assert many.action_space == ones.action_space
    many.seed(3)
    ones.seed(3)
    assert np.array_equal(many.reset(), ones.reset())
    rng, ended = np.random.default_rng(0), 0
    for _ in range(30):
        actions = rng.integers(0, many.action_space.nvec, (N, len(many.action_space.nvec)))
        left, right = many.step(actions), ones.step(actions)
        for a, b in zip(left[:3], right[:3], strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
        assert many.env_method("action_masks")[2].tolist() == ones.env_method("action_masks")[2].tolist()
        for mine, theirs in zip(left[3], right[3], strict=True):
            if not mine:
                assert "terminal_observation" not in theirs
                continue
            ended += 1
            assert np.array_equal(mine["terminal_observation"], theirs["terminal_observation"])
            assert mine["TimeLimit.truncated"] == theirs["TimeLimit.truncated"]
            assert mine["outcome"] == theirs["outcome"]
    assert ended > N


def test_dict_observations_equal_one_env_a_user():
    """Whole rows of both parts, also at the ends of episodes."""
    many = StableBaselinesVec(native("market", N))
    ones = DummyVecEnv([SINGLE["market"] for _ in range(N)])
    many.seed(3)
    ones.seed(3)
    left, right = many.reset(), ones.reset()
    rng, ended = np.random.default_rng(0), 0
    for _ in range(20):
        for name in ("context", "action_mask"):
            assert np.array_equal(left[name], right[name])
        actions = rng.integers(0, many.action_space.nvec, (N, len(many.action_space.nvec)))
        (left, *rest), (right, *others) = many.step(actions), ones.step(actions)
        for mine, theirs in zip(rest[2], others[2], strict=True):
            if mine:
                ended += 1
                last, expected = mine["terminal_observation"], theirs["terminal_observation"]
                assert last.keys() == expected.keys()
                assert all(np.array_equal(last[name], expected[name]) for name in last)
    assert ended > N


@pytest.mark.parametrize("agent", [PPO, A2C])
def test_an_agent_with_several_inputs_trains_over_dict_observations(agent):
    env = VecMonitor(StableBaselinesVec(native("market", 8)))
    model = agent("MultiInputPolicy", env, n_steps=16, seed=0, device="cpu")
    model.learn(256)
    assert model.num_timesteps >= 256
    assert len(model.ep_info_buffer) > 0


def test_a_flat_env_trains_with_one_input():
    model = PPO("MlpPolicy", over_native("market"), n_steps=16, batch_size=32, n_epochs=1, seed=0, device="cpu")
    assert model.learn(128).num_timesteps >= 80


@pytest.mark.parametrize("env_id", ["CrossChannelMarket-v0", "CrossChannelReplay-v0"])
def test_stable_baselines_makes_the_registered_envs(env_id):
    env = make_vec_env(env_id, n_envs=2)
    assert set(env.reset()) == {"context", "action_mask"}


def test_a_replay_is_refused_as_soon_as_an_agent_learns():
    model = PPO("MultiInputPolicy", StableBaselinesVec(native("replay", N)), n_steps=16, device="cpu")
    with pytest.raises(ConfigError, match="pays the reward of the logged action"):
        model.learn(64)


def test_attributes_are_those_of_the_vector_env():
    env = over_native("market")
    assert env.get_attr("num_envs", indices=[0, 1]) == [N, N]
    assert env.has_attr("metadata")
    assert not env.has_attr("no_such_name")
    assert env.env_is_wrapped(FlatContext) == [False] * N
    env.set_attr("marked", True)
    assert env.get_attr("marked") == [True] * N
    with pytest.raises(ConfigError, match="share"):
        env.set_attr("marked", False, indices=[1])
    env.reset()
    assert len(env.env_method("action_masks", indices=[0])) == 1
    assert env.env_method("action_masks")[0].shape == (env.env.unwrapped.market.modules.total,)
    env.close()
    assert env.env.closed
