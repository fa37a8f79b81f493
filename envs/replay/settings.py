"""What the single and the vector form of the replay share: modes, options, spaces, and what matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.envs.replay.order import PassOrder
from crosschannel.envs.replay.rejection import Acceptance, bound, check_rejectable
from crosschannel.histories.features import CLIP

MODES = ("logged", "reject")
OUT_OF_TURN = -1


def known_mode(mode: str) -> str:
    """The mode itself.

    Raises:
        ConfigError: If replay has no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"replay has no mode {mode!r}. {nearest(mode, MODES)}")
    return mode


def prepared_mode(log: ReplayLog, mode: str, largest_weight: float | None) -> float:
    """The bound on weights with which a log is replayed in a mode; infinity in mode `logged`, which has none.

    Raises:
        ConfigError: If rejection is not exact on this log, or a bound is given without need.
    """
    if mode == "reject":
        check_rejectable(log)
        return bound(log, largest_weight)
    if largest_weight is not None:
        raise ConfigError(f"largest_weight is {largest_weight}, but mode {mode!r} weighs nothing: leave it out")
    return float("inf")


def known_render_mode(mode: str | None, known: Sequence[str]) -> str | None:
    """The render mode itself.

    Raises:
        ConfigError: If the env does not declare it.
    """
    if mode is not None and mode not in known:
        raise ConfigError(f"there is no render mode {mode!r}. {nearest(mode, known)}")
    return mode


def check_distribution_mode(mode: str) -> None:
    """Raises `ConfigError` in a mode that takes no distributions."""
    if mode != "reject":
        raise ConfigError(f"step_distribution is for mode 'reject'; this replay's mode is {mode!r}")


def check_logged_mode(mode: str) -> None:
    """Raises `ConfigError` in a mode in which the agent's action decides what is paid."""
    if mode != "logged":
        raise ConfigError(f"step_logged is for mode 'logged'; this replay's mode is {mode!r}")


def known_options(options: dict[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """The options of `reset`, {} if there are none.

    Raises:
        ConfigError: If one is unknown.
    """
    for name in options or {}:
        if name not in known:
            raise ConfigError(f"reset has no option {name!r}. {nearest(name, known)}")
    return options or {}


def begins_anew(options: dict[str, Any]) -> bool:
    """Whether these options of `reset` choose users or their order."""
    return "among" in options or "order" in options


def replay_spaces(log: ReplayLog) -> tuple[spaces.Dict, spaces.MultiDiscrete]:
    """Observation and action space of one env that replays a log."""
    observation = spaces.Dict(
        {
            "context": spaces.Box(-CLIP, CLIP, (log.context.shape[1],), np.float32),
            "action_mask": spaces.MultiBinary(log.modules.total),
        }
    )
    return observation, spaces.MultiDiscrete(np.array(log.modules.sizes, dtype=np.int64))


def draw_order(log: ReplayLog, rng: np.random.Generator, block: int, options: dict[str, Any]) -> PassOrder:
    """An order in all passes, `block` users at a time, of the users that the options choose."""
    among = log.users_of(options["among"]) if "among" in options else None
    return PassOrder(log.user_keys, int(rng.integers(2**63)), block, among, options.get("order", "shuffled"))


def acceptance_of(log: ReplayLog, tally: FloatArray, largest: float) -> Acceptance:
    """The acceptance from a tally (3,) of judged slots, accepted ones and the sum of weights."""
    judged, kept, weight = tally.tolist()
    mean = weight / judged if judged else float("nan")
    return Acceptance(int(judged), int(kept), mean, largest, log.propensity_source)


def terminal_mask(modules: ActionSpace) -> BoolArray:
    """The mask (sum of actions,) under which only sending nothing is eligible."""
    return np.asarray(modules.feasible_mask(np.zeros((1, modules.total), dtype=bool))[0])


def matching(modules: ActionSpace, chosen: IntArray, executed: IntArray) -> BoolArray:
    """For each module, whether the chosen action equals the executed one, (N, M).

    Where nothing is sent the later modules make no choice, so that they match only if neither sends or both do.
    """
    first, second = modules.sends(chosen), modules.sends(executed)
    both, neither = first & second, ~(first | second)
    same = np.empty(chosen.shape[::-1], dtype=bool)  # module by module, so that each operation is along the rows
    for m, row in enumerate(same):
        np.equal(chosen[:, m], executed[:, m], out=row)
        row &= both
        row |= neither
    return same.T
