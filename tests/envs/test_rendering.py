"""A program that asks for a render mode without knowing the env gets the env, as from Gymnasium; a typo is refused."""

from __future__ import annotations

import warnings

import gymnasium as gym
import pytest

import crosschannel.envs  # noqa: F401 - registers the environments
from crosschannel.core.errors import ConfigError
from crosschannel.envs.rendering import supported_render_mode

ENVS = ("CrossChannelMarket-v0", "CrossChannelReplay-v0")


def made_as_stable_baselines_does(env_id: str) -> gym.Env:
    """What `make_vec_env` calls: `rgb_array` for any env, and again without a mode after a `TypeError` only."""
    try:
        return gym.make(env_id, render_mode="rgb_array")
    except TypeError:
        return gym.make(env_id)


@pytest.mark.parametrize("env_id", ENVS)
def test_an_env_is_made_for_a_program_that_wants_pixels(env_id):
    with pytest.warns(UserWarning, match="render"):
        env = made_as_stable_baselines_does(env_id)
    env.reset(seed=0)
    assert env.unwrapped.render_mode is None


@pytest.mark.parametrize("env_id", ENVS)
@pytest.mark.parametrize("mode", ["human", "rgb_array", "ansi_list"])
def test_a_vector_env_takes_the_same_modes(env_id, mode):
    with pytest.warns(UserWarning, match="render"):
        env = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point", render_mode=mode)
    assert env.unwrapped.render_mode is None


def test_a_mode_that_the_env_has_passes_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert supported_render_mode("ansi", ["ansi"]) == "ansi"
        assert supported_render_mode(None, []) is None


@pytest.mark.parametrize("known", [["ansi"], []])
def test_a_mode_that_nobody_has_is_refused(known):
    with pytest.raises(ConfigError, match=r"there is no render mode 'ansy'\. Did you mean 'ansi'"):
        supported_render_mode("ansy", known)
