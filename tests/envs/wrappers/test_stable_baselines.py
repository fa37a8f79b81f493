"""Stable-Baselines3 over a native vector env sees to the bit what it sees over as many single envs."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.wrappers import FlatContext, FlatContextVector, RecordOutcomes, RecordOutcomesVector
from tests.envs.wrappers.samples import SINGLE, native

pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed")
from stable_baselines3.common.vec_env import DummyVecEnv

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
