"""Which render mode an env has, where a program asks for one that it lacks."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym

from crosschannel.core.errors import ConfigError, nearest

GYMNASIUM_MODES = ("human", "rgb_array", "rgb_array_list", "ansi", "ansi_list")


def supported_render_mode(mode: str | None, known: Sequence[str]) -> str | None:
    """Return the render mode if the env has it; with a warning None if it is one of Gymnasium's other modes.

    Programs ask for a mode without knowing the env: Stable-Baselines3's `make_vec_env` always wants `rgb_array`. As in
    Gymnasium, the env is made nevertheless.

    Raises:
        ConfigError: If neither the env nor Gymnasium has such a mode.
    """
    if mode is None or mode in known:
        return mode
    if mode not in GYMNASIUM_MODES:
        raise ConfigError(f"there is no render mode {mode!r}. {nearest(mode, known or GYMNASIUM_MODES)}")
    gym.logger.warn(f"the env has no render mode {mode!r} (it has {list(known)}): it is made without one")
    return None
