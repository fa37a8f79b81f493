"""Checkpoints and policies: one file that holds all that rebuilds an agent, written atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from crosschannel.agents.base import Agent
from crosschannel.agents.registry import make_agent
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError

CHECKPOINT_VERSION = 7
CHECKPOINT, POLICY = "checkpoint", "policy"


def save_agent(agent: Agent, path: Path, agent_spec: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> None:
    """Write an agent's whole state, from which it can resume learning: a checkpoint.

    Args:
        agent: The agent.
        path: The file; an interruption leaves the old file or the new one, never a partial one.
        agent_spec: The arguments `name, context_dim, settings, seed` of `make_agent` that made the agent.
        extra: Plain values and tensors to store beside it.
    """
    _write(path, CHECKPOINT, agent, agent_spec, {"agent": agent.state_dict(), "extra": dict(extra or {})})


def save_policy(agent: Agent, path: Path, agent_spec: Mapping[str, Any], features: Mapping[str, Any]) -> None:
    """Write the part of an agent's state that decisions need, without observed rows, so that the file is small.

    Args:
        agent: The agent.
        path: The file; an interruption leaves the old file or the new one, never a partial one.
        agent_spec: The arguments that made the agent, as for `save_agent`.
        features: A plain description of how its contexts are built (`ContextFeatures.state_dict`).
    """
    _write(path, POLICY, agent, agent_spec, {"agent": agent.policy_state_dict(), "features": dict(features)})


def _write(path: Path, kind: str, agent: Agent, agent_spec: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    head = {
        "version": CHECKPOINT_VERSION,
        "kind": kind,
        "agent_spec": dict(agent_spec),
        "modules": agent.modules.to_dict(),
    }
    temporary = path.with_name(path.name + ".tmp")
    torch.save({**head, **content}, temporary)
    os.replace(temporary, path)


def _read(path: Path, kind: str) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such {kind}; train.py writes one")
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many types for a file of another kind
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path} is not a {kind}: {reason}") from None
    version = state.get("version") if isinstance(state, dict) else None
    if version != CHECKPOINT_VERSION:
        raise ConfigError(
            f"{path} has {kind} version {version}; this program reads version {CHECKPOINT_VERSION}: train again, or "
            "open it with the version of the program that wrote it"
        )
    if state["kind"] != kind:
        raise ConfigError(f"{path} is a {state['kind']}, not a {kind}")
    return state


def restore_agent(agent: Agent, path: Path) -> dict[str, Any]:
    """Load a saved state into an agent that was made with the same arguments; return what was stored beside it.

    Raises:
        ConfigError: If the file is absent, has another version, or was written with other modules.
    """
    state = _read(path, CHECKPOINT)
    if ActionSpace.from_dict(state["modules"]) != agent.modules:
        raise ConfigError(
            f"{path} was written with {ActionSpace.from_dict(state['modules'])}, not {agent.modules}: a run resumes "
            "with the same actions only; `load_agent(path, modules=...)` loads it with other actions"
        )
    agent.load_state_dict(state["agent"])
    return dict(state["extra"])


def load_agent(path: Path, device: str = "cpu", modules: ActionSpace | None = None) -> Agent:
    """Rebuild an agent from its checkpoint, optionally with another set of actions.

    Actions of the checkpoint keep what was learned, wherever they now stand. New actions start from the agent's
    prior, or if they have labels, from the rewards of actions with the same labels. Retired actions are no longer
    chosen, but the agent keeps what it learned of them, in case they return.

    Args:
        path: The file.
        device: Where the agent computes.
        modules: The present action space, by default that of the checkpoint. Only actions may differ, not modules.

    Raises:
        ConfigError: If the file is absent or has another version, or more than the actions has changed.
    """
    return _rebuild(_read(path, CHECKPOINT), device, modules)


def load_policy(path: Path, device: str = "cpu", modules: ActionSpace | None = None) -> tuple[Agent, dict[str, Any]]:
    """Rebuild an agent that can make decisions but not learn, optionally with another set of actions (`load_agent`).

    Args:
        path: The file.
        device: Where the agent computes.
        modules: The present action space, by default that of the file. Only actions may differ, not modules.

    Returns:
        The agent, and the description of how its contexts are built (`ContextFeatures.from_state_dict`).

    Raises:
        ConfigError: If the file is absent or has another version, or more than the actions has changed.
    """
    state = _read(path, POLICY)
    return _rebuild(state, device, modules), dict(state["features"])


def _rebuild(state: Mapping[str, Any], device: str, modules: ActionSpace | None) -> Agent:
    modules = modules or ActionSpace.from_dict(state["modules"])
    agent = make_agent(modules=modules, device=device, **state["agent_spec"])
    agent.load_state_dict(state["agent"])
    return agent
