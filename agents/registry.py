"""Built-in agents by name: their settings, and their classes, which are imported only when an agent is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from crosschannel.agents.base import Agent
from crosschannel.agents.settings import (
    BestFixedSettings,
    BetaThompsonSettings,
    BootstrappedQSettings,
    EnsembleThompsonSettings,
    EpsilonGreedySettings,
    LinearThompsonSettings,
    NeuralLinearSettings,
    NoSettings,
)
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.serialization import from_dict, import_class

#: PyTorch ends the process, or writes beyond its memory, where sizes overflow.
MAX_CONTEXT_DIM = 1_000_000
ENTRY_POINT_GROUP = "crosschannel.agents"


class BuiltInAgent(NamedTuple):
    """An agent of this package.

    Attributes:
        settings: The dataclass of its settings.
        path: Its class as `package.module:Class`.
    """

    settings: type[Any]
    path: str


AGENTS: Mapping[str, BuiltInAgent] = {
    "ensemble_thompson": BuiltInAgent(EnsembleThompsonSettings, "crosschannel.agents.ensemble.agent:EnsembleThompson"),
    "linear_thompson": BuiltInAgent(LinearThompsonSettings, "crosschannel.agents.linear.agent:LinearThompson"),
    "neural_linear": BuiltInAgent(NeuralLinearSettings, "crosschannel.agents.linear.neural_linear:NeuralLinear"),
    "beta_thompson": BuiltInAgent(BetaThompsonSettings, "crosschannel.agents.beta:BetaThompson"),
    "bootstrapped_q": BuiltInAgent(BootstrappedQSettings, "crosschannel.agents.bootstrapped_q:BootstrappedQ"),
    "epsilon_greedy": BuiltInAgent(EpsilonGreedySettings, "crosschannel.agents.linear.agent:EpsilonGreedy"),
    "best_fixed": BuiltInAgent(BestFixedSettings, "crosschannel.agents.linear.agent:BestFixed"),
    "uniform": BuiltInAgent(NoSettings, "crosschannel.agents.baselines:Uniform"),
    "logging": BuiltInAgent(NoSettings, "crosschannel.agents.baselines:Logging"),
    "no_send": BuiltInAgent(NoSettings, "crosschannel.agents.baselines:NoSend"),
}

#: Built-in agents that do not learn a funnel, and so no hazards that a limit on a cost event needs.
AGENTS_WITHOUT_FUNNEL = frozenset(AGENTS) - {"ensemble_thompson", "linear_thompson"}


def agent_settings(name: str) -> type[Any] | None:
    """Return the dataclass of an agent's settings, or None for a user's own agent, whose settings are free.

    Raises:
        ConfigError: If there is no such agent.
    """
    if name in AGENTS:
        return AGENTS[name].settings
    _class_path(name)
    return None


def check_settings(name: str, settings: Any = None) -> Any:
    """Check an agent's name and settings without making the agent.

    Args:
        name: A built-in agent, the entry point of an installed package, or `package.module:Class`.
        settings: A mapping of plain values as in YAML, in which what is absent keeps its default; or the settings
            object of a built-in agent.

    Returns:
        The settings object of a built-in agent, and the plain values of a user's own agent.

    Raises:
        ConfigError: If there is no such agent, or it has no such setting, or a value is not allowed.
    """
    known = agent_settings(name)
    if known is not None:
        if isinstance(settings, known):
            return settings
        return from_dict(known, {} if settings is None else settings, f"{name}.settings")
    _agent_class(name)
    return dict(settings or {})


def make_agent(
    name: str,
    modules: ActionSpace,
    context_dim: int,
    settings: Any = None,
    seed: int = 0,
    device: str = "cpu",
) -> Agent:
    """Make an agent by its name, a user's own class included.

    A user's own class is named as `package.module:Class`, or an installed package offers it as an entry point of the
    group `crosschannel.agents`. It is called as `Class(modules, context_dim, settings, seed, device)`, with the plain
    values of the configuration as its settings. The names of built-in agents take precedence.

    Args:
        name: The agent.
        modules: The action space.
        context_dim: Number of context features.
        settings: A mapping of plain values as in YAML, or the settings object of a built-in agent.
        seed: Seed of everything random in the agent.
        device: Where it computes: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`.

    Raises:
        ConfigError: If there is no such agent, or it has no such setting, or the class does not implement `Agent`.
    """
    checked = check_settings(name, settings)
    if not 1 <= context_dim <= MAX_CONTEXT_DIM:
        raise ConfigError(f"context_dim is {context_dim}: an agent needs 1 to {MAX_CONTEXT_DIM:,} context features")
    agent = _agent_class(name)(modules, context_dim, checked, seed, resolve_device(device))
    if not isinstance(agent, Agent):
        missing = sorted(part for part in _AGENT_METHODS if not hasattr(agent, part))
        raise ConfigError(f"{name} is not an agent: it lacks {', '.join(missing)}")
    return agent


_AGENT_METHODS = (
    "modules",
    "act",
    "action_probabilities",
    "observe",
    "update",
    "state_dict",
    "policy_state_dict",
    "load_state_dict",
)


def _agent_class(name: str) -> Callable[..., Any]:
    return import_class(AGENTS[name].path if name in AGENTS else _class_path(name), "agent")


def _class_path(name: str) -> str:
    """The path `package.module:Class` of a user's own agent, which may be the name of an entry point."""
    found = entry_points(group=ENTRY_POINT_GROUP)
    path = f"{found[name].module}:{found[name].attr}" if name in found.names else name
    if ":" in path:
        return path
    known = [*AGENTS, *sorted(found.names)]
    raise ConfigError(
        f"unknown agent {name!r}. {nearest(name, known)} Name your own agent as 'package.module:Class', or as an "
        f"entry point of the group {ENTRY_POINT_GROUP!r}"
    )


def resolve_device(name: str) -> str:
    """Return the name of a device that this machine has; `auto` is a GPU if there is one.

    Raises:
        ConfigError: If this machine has no such device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"this machine has no device {name!r}: {str(error).splitlines()[0]}") from None
    return name
