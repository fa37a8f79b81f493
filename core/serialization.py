"""Convert between Python objects and what YAML, JSON and checkpoints can hold.

Dataclasses become mappings and back, classes are named by their path, and random generators are saved as text, so that
checkpoints can be read with `weights_only=True`.
"""

from __future__ import annotations

import functools
import importlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crosschannel.core.errors import ConfigError, nearest

T = TypeVar("T")


def from_dict(cls: type[T], data: Any, place: str = "") -> T:
    """Build a dataclass from a mapping; missing keys keep their defaults.

    Args:
        cls: The dataclass.
        data: A mapping with the names of its fields.
        place: Where the data come from (`configs/market.yaml: reward`), for error messages.

    Raises:
        ConfigError: If a key is unknown, missing without a default, or a value has the wrong type.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{place}: expected a mapping with the keys of {cls.__name__}, got {data!r}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise ConfigError(f"{place}: unknown key {key!r}. {nearest(key, known)}")
        values[key] = _convert(hints[key], value, f"{place}.{key}" if place else str(key))
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{place}: the key {f.name!r} is missing")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _convert(hint: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        alternatives = [a for a in arguments if a is not type(None)]
        for alternative in alternatives[:-1]:
            try:
                return _convert(alternative, value, place)
            except ConfigError:
                continue
        return _convert(alternatives[-1], value, place)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return from_dict(typing.cast(type[Any], hint), value, place)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{place}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{place}: expected a list, got {value!r}")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(arguments[0], item, f"{place}[{i}]") for i, item in enumerate(value))
        if len(value) != len(arguments):
            raise ConfigError(f"{place}: expected {len(arguments)} entries, got {value!r}")
        pairs = enumerate(zip(arguments, value, strict=True))
        return tuple(_convert(a, item, f"{place}[{i}]") for i, (a, item) in pairs)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{place}: expected a mapping, got {value!r}")
        return {str(key): _convert(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
    return _scalar(hint, value, place)


def _scalar(hint: Any, value: Any, place: str) -> Any:
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and not isinstance(value, bool):
        # YAML reads 1e-3 as text, although it is a number.
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{place}: expected {getattr(hint, '__name__', hint)}, got {value!r}")


def to_dict(value: Any) -> Any:
    """Return a dataclass as mappings, lists, numbers and text, for YAML and JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def import_class(path: str, what: str) -> type:
    """Return the class that `package.module:Name` names, such as an agent that a user wrote.

    Args:
        path: Its module and its name.
        what: What it should be (an agent, a reward kind), for error messages.

    Raises:
        ConfigError: If it cannot be imported, or is not a class.
    """
    module, _, name = path.partition(":")
    try:
        found: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the {what} {path!r} cannot be imported: {error}") from None
    if not isinstance(found, type):
        raise ConfigError(f"the {what} {path!r} is of type {type(found).__name__}: name a class")
    return found


def generator_state(rng: np.random.Generator) -> str:
    """Return the state of a generator as text; its integers are too long for a tensor."""
    return json.dumps(rng.bit_generator.state)


def restore_generator(rng: np.random.Generator, state: str) -> None:
    """Set a generator to a state that `generator_state` returned."""
    saved: dict[str, Any] = json.loads(state)
    rng.bit_generator.state = saved
