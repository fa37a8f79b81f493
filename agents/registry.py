"""Agents by name, with their typed settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib.metadata import entry_points
from typing import Any

import torch

from crosschannel.agents.base import Agent
from crosschannel.agents.baselines import Logging, NoSend, NoSettings, Uniform
from crosschannel.agents.beta import BetaConfig, BetaThompson
from crosschannel.agents.bootstrapped_q import BootstrappedQ, BootstrappedQConfig
from crosschannel.agents.ensemble.agent import EnsembleConfig, EnsembleThompson
from crosschannel.agents.linear import (
    BestFixed,
    BestFixedConfig,
    EpsilonGreedy,
    EpsilonGreedyConfig,
    LinearConfig,
    LinearThompson,
)
from crosschannel.agents.neural_linear import NeuralLinear, NeuralLinearConfig
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.serialization import import_class

GROUP = "crosschannel.agents"

Maker = Callable[[ActionSpace, int, Any, int, str], Agent]

AGENTS: dict[str, tuple[Maker, type]] = {
    "ensemble_thompson": (EnsembleThompson, EnsembleConfig),
    "linear_thompson": (LinearThompson, LinearConfig),
    "neural_linear": (NeuralLinear, NeuralLinearConfig),
    "beta_thompson": (BetaThompson, BetaConfig),
    "bootstrapped_q": (BootstrappedQ, BootstrappedQConfig),
    "epsilon_greedy": (EpsilonGreedy, EpsilonGreedyConfig),
    "best_fixed": (BestFixed, BestFixedConfig),
    "uniform": (Uniform, NoSettings),
    "logging": (Logging, NoSettings),
    "no_send": (NoSend, NoSettings),
}


def make_agent(
    name: str,
    modules: ActionSpace,
    context_dim: int,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Agent:
    """An agent by its name, or a user's own class as `package.module:Class` or by the name of its entry point.

    A class of your own is called as `Class(modules, context_dim, settings, seed, device)`, its settings as they stand
    in the configuration. An installed package offers it by an entry point of the group `crosschannel.agents`; the
    names of this package's own agents come first.

    Raises:
        ConfigError: If there is no such agent, or it has no such setting, or the class does not fit.
    """
    settings = dict(settings or {})
    device = resolve_device(device)
    if name in AGENTS:
        maker, config = AGENTS[name]
        return maker(modules, context_dim, _settings(name, config, settings), seed, device)
    agent = _own(name)(modules, context_dim, settings, seed, device)
    if not isinstance(agent, Agent):
        missing = sorted(part for part in _PARTS if not hasattr(agent, part))
        raise ConfigError(f"{name} is not an agent: it lacks {', '.join(missing)}")
    return agent


_PARTS = (
    "modules",
    "act",
    "action_probabilities",
    "observe",
    "update",
    "state_dict",
    "policy_state_dict",
    "load_state_dict",
)


def _settings(name: str, config: type, settings: Mapping[str, Any]) -> Any:
    known = {f.name: f for f in fields(config)}
    typed = {}
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"agent {name!r} has no setting {key!r}. {nearest(key, known)}")
        default = known[key].default
        typed[key] = tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
        if not _fits(typed[key], default) and not (known[key].type == "Floor" and _is_floor(value)):
            expected = f"list of {type(default[0]).__name__}" if isinstance(default, tuple) else type(default).__name__
            raise ConfigError(f"setting {key!r} of agent {name!r} is {value!r}: expected a {expected}")
    return config(**typed)


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the default's type; whole numbers will do for floats."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_fits(item, default[0]) for item in value)
    return type(value) is type(default) or (type(value) is int and isinstance(default, float))


def _is_floor(value: Any) -> bool:
    """Whether a value gives a floor for each of some modules (`agents.choice.floors`)."""
    return isinstance(value, Mapping) and all(_fits(share, 0.0) for share in value.values())


def _own(name: str) -> Callable[..., Any]:
    found = entry_points(group=GROUP)
    path = f"{found[name].module}:{found[name].attr}" if name in found.names else name
    if ":" in path:
        return import_class(path, "agent")
    known = [*AGENTS, *sorted(found.names)]
    raise ConfigError(
        f"there is no agent {name!r}. {nearest(name, known)} Your own is 'package.module:Class', or the name of an "
        f"entry point of the group {GROUP!r}"
    )


def resolve_device(name: str) -> str:
    """The device by its name; `auto` is a GPU if there is one.

    Raises:
        ConfigError: If this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"this machine has no device {name!r}: {str(error).splitlines()[0]}") from None
    return name
