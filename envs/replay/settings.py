"""Shared by both forms of the replay: default log, modes, options, spaces, and the comparison of actions."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.envs.replay.order import PassOrder
from crosschannel.envs.replay.rejection import Acceptance, bound, check_rejectable
from crosschannel.histories.features import MAX_ABS_FEATURE, ContextFeatures
from crosschannel.reward import DidReward, RewardSpec

MODES = ("logged", "reject")
#: Number of the pass of a user who is replayed out of turn.
OUT_OF_TURN = -1

DEFAULT_MARKET = MarketConfig(users=200, days=14, seed=0)
DEFAULT_REWARD = RewardSpec(goals=DEFAULT_MARKET.goals, pre="2d", post="1d", min_controls=10)


@cache
def default_log() -> ReplayLog:
    """Return two weeks of 200 simulated users with DiD rewards, the same log at every call."""
    history, _ = simulate_history(Market(DEFAULT_MARKET))
    rewards = DidReward(DEFAULT_REWARD).fit_transform(history)
    return ReplayLog.build(history, rewards, ContextFeatures.fit(history))


def check_mode(mode: str) -> str:
    """Check and return the mode.

    Raises:
        ConfigError: If replay has no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"replay has no mode {mode!r}. {nearest(mode, MODES)}")
    return mode


def rejection_bound(log: ReplayLog, mode: str, largest_weight: float | None) -> float:
    """Check that a log can be replayed in a mode, and return the bound on weights; infinity in mode `logged`.

    Raises:
        ConfigError: If rejection is not exact on this log, or a bound is given for mode `logged`.
    """
    if mode == "reject":
        check_rejectable(log)
        return bound(log, largest_weight)
    if largest_weight is not None:
        raise ConfigError(f"largest_weight is {largest_weight}, but mode {mode!r} uses no weights: leave it out")
    return float("inf")


def check_distribution_mode(mode: str) -> None:
    """Raise `ConfigError` in a mode that takes no distributions."""
    if mode != "reject":
        raise ConfigError(f"step_distribution is for mode 'reject'; this replay's mode is {mode!r}")


def check_logged_mode(mode: str) -> None:
    """Raises `ConfigError` in a mode in which the agent's action decides what is paid."""
    if mode != "logged":
        raise ConfigError(f"step_logged is for mode 'logged'; this replay's mode is {mode!r}")


def check_options(options: dict[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """Check and return the options of `reset`; {} if there are none.

    Raises:
        ConfigError: If one is unknown.
    """
    for name in options or {}:
        if name not in known:
            raise ConfigError(f"reset has no option {name!r}. {nearest(name, known)}")
    return options or {}


def chooses_users(options: dict[str, Any]) -> bool:
    """Return whether these options of `reset` choose users or their order."""
    return "among" in options or "order" in options


def replay_spaces(log: ReplayLog) -> tuple[spaces.Dict, spaces.MultiDiscrete]:
    """Return observation and action space of an env that replays a log."""
    observation = spaces.Dict(
        {
            "context": spaces.Box(-MAX_ABS_FEATURE, MAX_ABS_FEATURE, (log.context.shape[1],), np.float32),
            "action_mask": spaces.MultiBinary(log.modules.total),
        }
    )
    return observation, spaces.MultiDiscrete(np.array(log.modules.sizes, dtype=np.int64))


def draw_order(log: ReplayLog, rng: np.random.Generator, block: int, options: dict[str, Any]) -> PassOrder:
    """Draw the order of the users that the options choose, `block` users at a time."""
    among = log.users_of(options["among"]) if "among" in options else None
    seed = int(rng.integers(2**63))
    return PassOrder(log.user_keys, seed=seed, block=block, among=among, order=options.get("order", "shuffled"))


def acceptance_of(log: ReplayLog, tally: FloatArray, largest: float) -> Acceptance:
    """Return the acceptance, given a tally (3,) of judged slots, accepted slots and the sum of weights."""
    judged, kept, weight = tally.tolist()
    mean = weight / judged if judged else float("nan")
    return Acceptance(
        judged=int(judged), accepted=int(kept), weight=mean, largest_weight=largest, propensities=log.propensities
    )


def terminal_mask(modules: ActionSpace) -> BoolArray:
    """Return the mask (sum of actions,) with which only sending nothing is eligible."""
    return np.asarray(modules.feasible_mask(np.zeros((1, modules.total), dtype=bool))[0])


def matching(modules: ActionSpace, chosen: IntArray, executed: IntArray) -> BoolArray:
    """Return for each module whether the chosen action equals the executed one, (N, M).

    Later modules make no choice where nothing is sent: all modules match if neither action sends a message, and no
    module if only one of them does.
    """
    first, second = modules.sends(chosen), modules.sends(executed)
    both, neither = first & second, ~(first | second)
    same = np.empty(chosen.shape[::-1], dtype=bool)  # module by module, so that each operation is along the rows
    for m, row in enumerate(same):
        np.equal(chosen[:, m], executed[:, m], out=row)
        row &= both
        row |= neither
    return same.T
