"""Checkpoints and policies: one file that holds all that rebuilds an agent, with a checksum, written atomically."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from crosschannel.agents.base import Agent, ExtendableAgent, Observations
from crosschannel.agents.registry import make_agent
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError, CrosschannelError
from crosschannel.core.files import replacing
from crosschannel.core.serialization import refuse_class

CHECKPOINT_VERSION = 15
CHECKPOINT, POLICY, FIT = "checkpoint", "policy", "fit"
_KEYS = ("version", "kind", "agent_spec", "modules", "agent", "extra")
#: The checksum is the comment that a zip archive, which a file of torch is, may have at its end.
_SEAL = b"sha256:"
_SEAL_LENGTH = len(_SEAL) + 64


def save_agent(agent: Agent, path: Path, agent_spec: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> None:
    """Write an agent's whole state, from which it can resume learning: a checkpoint.

    Args:
        agent: The agent.
        path: The file; an interruption leaves the old file or the new one, never a partial one.
        agent_spec: The arguments `name, context_dim, settings, seed` of `make_agent` that made the agent.
        extra: Plain values and tensors to store beside it.

    Raises:
        OutputError: If the file cannot be written.
    """
    _write(path, CHECKPOINT, agent, agent_spec, agent.state_dict(), extra)


def save_policy(
    agent: Agent, path: Path, agent_spec: Mapping[str, Any], extra: Mapping[str, Any] | None = None
) -> None:
    """Write the part of an agent's state that decisions need, without observed rows, so that the file is small.

    Args:
        agent: The agent.
        path: The file; an interruption leaves the old file or the new one, never a partial one.
        agent_spec: The arguments that made the agent, as for `save_agent`.
        extra: Plain values and tensors to store beside it, such as how its contexts are built.

    Raises:
        ConfigError: If a number of the policy is not finite: the agent has diverged.
        OutputError: If the file cannot be written.
    """
    state = agent.policy_state_dict()
    if place := _not_finite(state):
        raise ConfigError(
            f"{path} is not written: {place} of the agent's policy is not a finite number, so learning has diverged. "
            "Check the rewards for extreme values (a goal's `clip` limits them), or lower the learning rate"
        )
    _write(path, POLICY, agent, agent_spec, state, extra)


def restore_agent(agent: Agent, path: Path) -> dict[str, Any]:
    """Load a saved state into an agent that was made with the same arguments; return what was stored beside it.

    Raises:
        ConfigError: If the file is absent, damaged, has another version, or was written with other modules.
    """
    state = _read(path, CHECKPOINT)
    with _understood(path, CHECKPOINT):
        modules = ActionSpace.from_dict(state["modules"])
        if modules != agent.modules:
            raise ConfigError(
                f"{path} was written with {modules}, not {agent.modules}: a run resumes with the same actions only; "
                "`load_agent(path, modules=...)` loads it with other actions"
            )
        agent.load_state_dict(state["agent"])
        return dict(state["extra"])


def read_extra(path: Path, kind: str) -> dict[str, Any]:
    """Return what was stored beside an agent, without making the agent.

    Args:
        path: The file.
        kind: `checkpoint` or `policy`.

    Raises:
        ConfigError: If the file is absent, damaged or has another version.
    """
    state = _read(path, kind)
    with _understood(path, kind):
        return dict(state["extra"])


def load_agent(
    path: Path, device: str = "cpu", modules: ActionSpace | None = None, allow_classes: Collection[str] = ()
) -> Agent:
    """Rebuild an agent from its checkpoint, optionally with another set of actions.

    Actions of the checkpoint keep what was learned, wherever they now stand. New actions start from the agent's
    prior, or if they have labels, from the rewards of actions with the same labels. Retired actions are no longer
    chosen, but the agent keeps what it learned of them, in case they return.

    Args:
        path: The file.
        device: Where the agent computes.
        modules: The present action space, by default that of the checkpoint. Only actions may differ, not modules.
        allow_classes: Classes `package.module:Class` outside this package that may be imported if the file names one.

    Raises:
        ConfigError: If the file is absent, damaged or has another version, names a class that is not allowed, or more
            than the actions has changed.
    """
    return _rebuild(path, _read(path, CHECKPOINT), device, modules, allow_classes)


def load_policy(
    path: Path, device: str = "cpu", modules: ActionSpace | None = None, allow_classes: Collection[str] = ()
) -> tuple[Agent, dict[str, Any]]:
    """Rebuild an agent that can make decisions but not learn, optionally with another set of actions (`load_agent`).

    Args:
        path: The file.
        device: Where the agent computes.
        modules: The present action space, by default that of the file. Only actions may differ, not modules.
        allow_classes: Classes `package.module:Class` outside this package that may be imported if the file names one.

    Returns:
        The agent, and what was stored beside it.

    Raises:
        ConfigError: If the file is absent, damaged or has another version, names a class that is not allowed, has a
            number that is not finite, or more than the actions has changed.
    """
    state = _read(path, POLICY)
    if place := _not_finite(state["agent"]):
        raise ConfigError(f"{path} cannot decide: {place} of the policy is not a finite number. Train again")
    agent = _rebuild(path, state, device, modules, allow_classes)
    with _understood(path, POLICY):
        return agent, dict(state["extra"])


def save_fit(
    agent: ExtendableAgent, path: Path, agent_spec: Mapping[str, Any], extra: Mapping[str, Any] | None = None
) -> None:
    """Write an agent's policy with the sums that it was solved from, so that later rows can be added to them.

    Args:
        agent: The agent.
        path: The file; an interruption leaves the old file or the new one, never a partial one.
        agent_spec: The arguments that made the agent, as for `save_agent`.
        extra: Plain values and tensors to store beside it.

    Raises:
        ConfigError: If the agent has no fit.
        OutputError: If the file cannot be written.
    """
    _write(path, FIT, agent, agent_spec, {**agent.policy_state_dict(), "fit": agent.fit_state_dict()}, extra)


def load_fit(
    path: Path, device: str = "cpu", allow_classes: Collection[str] = ()
) -> tuple[ExtendableAgent, dict[str, Any]]:
    """Rebuild an agent to which later rows can be added, and return it with what was stored beside it.

    Raises:
        ConfigError: If the file is absent, damaged or has another version, or names a class that is not allowed.
    """
    state = _read(path, FIT)
    fit = state["agent"].pop("fit", None)
    agent = _rebuild(path, state, device, None, allow_classes)
    with _understood(path, FIT):
        if not isinstance(agent, ExtendableAgent):
            raise ConfigError(f"the agent {type(agent).__name__} cannot be extended")
        agent.load_fit_state_dict(fit)
        return agent, dict(state["extra"])


def _rebuild(
    path: Path, state: Mapping[str, Any], device: str, modules: ActionSpace | None, allow_classes: Collection[str]
) -> Agent:
    with _understood(path, state["kind"]):
        refuse_class(str(state["agent_spec"]["name"]), allow_classes, str(path))
        stored = ActionSpace.from_dict(state["modules"])
        modules = modules or stored
        agent = make_agent(modules=modules, device=device, **state["agent_spec"])
        agent.load_state_dict(state["agent"])
        # A state of other shapes fails at the first decision.
        mask = np.ones((1, modules.total), dtype=np.bool_)
        width = int(state["agent_spec"]["context_dim"])
        agent.action_probabilities(Observations(np.zeros((1, width), dtype=np.float32), mask))
        return agent


def _write(
    path: Path,
    kind: str,
    agent: Agent,
    agent_spec: Mapping[str, Any],
    state: Mapping[str, Any],
    extra: Mapping[str, Any] | None,
) -> None:
    content = {
        "version": CHECKPOINT_VERSION,
        "kind": kind,
        "agent_spec": dict(agent_spec),
        "modules": agent.modules.to_dict(),
        "agent": state,
        "extra": dict(extra or {}),
    }
    with replacing(path) as draft, draft.open("w+b") as file:
        try:
            torch.save(_unshared(content), file)
        except RuntimeError as error:  # torch hides why a write failed
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        # The archive's last two bytes are the length of its comment.
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", _SEAL_LENGTH))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(_SEAL + digest.encode())


def _read(path: Path, kind: str) -> dict[str, Any]:
    """Return the content of a file of a kind, after its checksum was compared.

    Raises:
        ConfigError: If the file is absent, damaged, of another kind or of another version.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such {kind}; train.py writes one")
    try:
        with path.open("rb") as file:
            if not _is_whole(file):
                raise ConfigError(
                    f"{path} is not a {kind} as it was written: its checksum is absent or does not fit, so the file is "
                    "damaged, of another kind, or of an earlier version of the program. Restore it, or train again"
                )
            file.seek(0)
            state: Any = torch.load(file, weights_only=True, map_location="cpu")
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # torch raises many types for a file of another kind
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path} is not a {kind}: {reason}") from None
    version = state.get("version") if isinstance(state, dict) else None
    if type(version) is not int or version != CHECKPOINT_VERSION:
        raise ConfigError(
            f"{path} has {kind} version {repr(version)[:20]}; this program reads version {CHECKPOINT_VERSION}: train "
            "again, or open it with the version of the program that wrote it"
        )
    if not isinstance(state.get("kind"), str) or state["kind"] != kind:
        raise ConfigError(f"{path} is a {str(state.get('kind'))[:20]}, not a {kind}")
    if absent := [key for key in _KEYS if key not in state]:
        raise ConfigError(f"{path} is not a whole {kind}: it lacks {', '.join(absent)}")
    return dict(state)


def _is_whole(file: IO[bytes]) -> bool:
    """Return whether a file ends with the checksum of all that stands before it."""
    left = file.seek(0, os.SEEK_END) - _SEAL_LENGTH
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (part := file.read(min(left, 1 << 20))):
        digest.update(part)
        left -= len(part)
    return file.read() == _SEAL + digest.hexdigest().encode()


@contextmanager
def _understood(path: Path, kind: str) -> Iterator[None]:
    """Turn what a file of other content lets fail into one error that names the file."""
    try:
        yield
    except ConfigError as error:
        if str(path) in str(error):
            raise
        raise ConfigError(f"{path}: {error}") from None
    except CrosschannelError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, IndexError, RuntimeError) as error:
        reason = str(error).splitlines() or [""]
        raise ConfigError(
            f"{path} is not a {kind} that this program can use ({type(error).__name__}: {reason[0]}): train again"
        ) from error


def _unshared(value: Any) -> Any:
    """Return plain values that share no object but equal texts, so that equal values are written as equal bytes."""
    if isinstance(value, Mapping):
        return {_unshared(key): _unshared(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_unshared(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return sys.intern(value) if type(value) is str else value


def _not_finite(value: Any, place: str = "") -> str:
    """Return the place of the first number that is not finite, or nothing."""
    if isinstance(value, Mapping):
        found = (_not_finite(item, f"{place}.{key}" if place else str(key)) for key, item in value.items())
    elif isinstance(value, list | tuple):
        found = (_not_finite(item, f"{place}[{k}]") for k, item in enumerate(value))
    elif isinstance(value, torch.Tensor):
        return place if value.is_floating_point() and not bool(torch.isfinite(value).all()) else ""
    else:
        return place if isinstance(value, float) and not math.isfinite(value) else ""
    return next(filter(None, found), "")
