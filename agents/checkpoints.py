"""Checkpoints and policies: one file from which an agent is rebuilt alone, written whole or not at all."""

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

VERSION = 6
CHECKPOINT, POLICY = "checkpoint", "policy"


def save_agent(agent: Agent, path: Path, recipe: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> None:
    """Writes an agent's whole state: a checkpoint, to learn on from.

    Args:
        agent: The agent.
        path: The file; an interruption leaves the old one or the new one, never a half.
        recipe: How it was made: the arguments `name, context_dim, settings, seed` of `make_agent`.
        extra: Plain values and tensors to keep beside it.
    """
    _write(path, CHECKPOINT, agent, recipe, {"agent": agent.state_dict(), "extra": dict(extra or {})})


def save_policy(agent: Agent, path: Path, recipe: Mapping[str, Any], features: Mapping[str, Any]) -> None:
    """Writes what deciding needs: no observed rows, so that the file is small.

    Args:
        agent: The agent.
        path: The file; an interruption leaves the old one or the new one, never a half.
        recipe: How it was made, as for `save_agent`.
        features: A plain description of how its contexts are built (`ContextFeatures.state_dict`).
    """
    _write(path, POLICY, agent, recipe, {"agent": agent.policy_state_dict(), "features": dict(features)})


def _write(path: Path, kind: str, agent: Agent, recipe: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    head = {"version": VERSION, "kind": kind, "recipe": dict(recipe), "modules": agent.modules.to_dict()}
    temporary = path.with_name(path.name + ".tmp")
    torch.save({**head, **content}, temporary)
    os.replace(temporary, path)


def _read(path: Path, kind: str) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such {kind}; train.py writes one")
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a file of another kind fails in any of many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path} is not a {kind}: {reason}") from None
    version = state.get("version") if isinstance(state, dict) else None
    if version != VERSION:
        raise ConfigError(
            f"{path} has {kind} version {version}; this program reads version {VERSION}: train anew, or open it "
            "with the version of the program that wrote it"
        )
    if state["kind"] != kind:
        raise ConfigError(f"{path} is a {state['kind']}, not a {kind}")
    return state


def restore_agent(agent: Agent, path: Path) -> dict[str, Any]:
    """Puts a saved state into an agent that was made alike; gives what was kept beside it.

    Raises:
        ConfigError: If the file is absent, of another version, or was written with other modules.
    """
    state = _read(path, CHECKPOINT)
    if ActionSpace.from_dict(state["modules"]) != agent.modules:
        raise ConfigError(
            f"{path} has learned {ActionSpace.from_dict(state['modules'])}, not {agent.modules}: actions must not have "
            "changed between a checkpoint and the run that goes on from it; `load_agent(path, modules=...)` opens it "
            "with other actions"
        )
    agent.load_state_dict(state["agent"])
    return dict(state["extra"])


def load_agent(path: Path, device: str = "cpu", modules: ActionSpace | None = None) -> Agent:
    """Rebuilds an agent from its checkpoint alone, if need be with another set of actions.

    Actions that the checkpoint knows keep what was learned, wherever they now stand; new ones begin with the agent's
    prior, and where they have labels, with what these have earned; retired ones are no longer chosen, but stay in the
    agent's memory, so that they may come back.

    Args:
        path: The file.
        device: Where it shall compute.
        modules: The actions that there are now; by default those of the checkpoint. The modules must stay the same.

    Raises:
        ConfigError: If the file is absent or of another version, or modules have changed other than by their actions.
    """
    return _rebuilt(_read(path, CHECKPOINT), device, modules)


def load_policy(path: Path, device: str = "cpu", modules: ActionSpace | None = None) -> tuple[Agent, dict[str, Any]]:
    """Rebuilds an agent to decide with, if need be with another set of actions, as `load_agent` does.

    Args:
        path: The file.
        device: Where it shall compute.
        modules: The actions that there are now; by default those of the file.

    Returns:
        The agent, and the description of how its contexts are built (`ContextFeatures.from_state_dict`).

    Raises:
        ConfigError: If the file is absent or of another version, or modules have changed other than by their actions.
    """
    state = _read(path, POLICY)
    return _rebuilt(state, device, modules), dict(state["features"])


def _rebuilt(state: Mapping[str, Any], device: str, modules: ActionSpace | None) -> Agent:
    recipe = state["recipe"]
    modules = modules or ActionSpace.from_dict(state["modules"])
    agent = make_agent(recipe["name"], modules, recipe["context_dim"], recipe["settings"], recipe["seed"], device)
    agent.load_state_dict(state["agent"])
    return agent
