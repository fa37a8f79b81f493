"""Convert between Python objects and what YAML, JSON and checkpoints can hold.

Dataclasses become plain mappings and back, with every fault and its place; classes are named by their path; and random
generators are saved as text, so that checkpoints can be read with `weights_only=True`.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crosschannel.core.errors import ConfigError, nearest

T = TypeVar("T")

#: Seed of estimators that draw random numbers, so that a run that is repeated finds the same numbers.
ESTIMATOR_SEED = 0


def from_dict(cls: type[T], data: Any, place: str = "") -> T:
    """Build a dataclass from a mapping; missing keys keep their defaults.

    Args:
        cls: The dataclass.
        data: A mapping with the names of its fields.
        place: Where the data stand, for error messages: `agent.settings`, or a file followed by a colon.

    Raises:
        ConfigError: With a line for each unknown key, missing key, value of a wrong type, and refusal by a dataclass.
    """
    faults: list[str] = []
    value = _dataclass(cls, data, place, faults)
    if faults:
        raise ConfigError("\n".join(faults))
    return typing.cast(T, value)


def convert(hint: Any, value: Any, place: str = "") -> Any:
    """Convert a value of YAML or JSON to an annotated type.

    Args:
        hint: The type, as in the annotation of a dataclass's field.
        value: The value.
        place: The place of the value, for error messages.

    Raises:
        ConfigError: With a line for each fault.
    """
    faults: list[str] = []
    found = _convert(hint, value, place, faults)
    if faults:
        raise ConfigError("\n".join(faults))
    return found


def to_dict(value: Any) -> Any:
    """Return a dataclass as mappings, lists, numbers and text, for YAML and JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types that an annotation allows: those of a union, or the one it names."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _dataclass(cls: Any, data: Any, place: str, faults: list[str]) -> Any:
    """Build a dataclass; if a part of it is wrong, add its fault and return None."""
    if not isinstance(data, Mapping):
        faults += _faults_at(place, f"expected a mapping with the keys of {cls.__name__}, got {shortened(data)}")
        return None
    before = len(faults)
    hints = typing.get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key in known:
            values[key] = _convert(hints[key], value, _inside(place, key), faults)
        else:
            faults += _faults_at(place, f"unknown key {key!r}. {nearest(key, known)}")
    for f in fields(cls):
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            faults += _faults_at(place, f"the key {f.name!r} is missing")
    if len(faults) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as error:
        faults += _faults_at(place, error)
        return None


def _convert(hint: Any, value: Any, place: str, faults: list[str]) -> Any:
    allowed = alternatives(hint)
    if len(allowed) > 1:
        if value is None and type(None) in allowed:
            return None
        allowed = tuple(one for one in allowed if one is not type(None))
        # Only these types are written as mappings, so a fault inside a mapping is reported as theirs.
        mappings = tuple(one for one in allowed if _written_as_mapping(one))
        found, trial = None, list[str]()
        for one in mappings if isinstance(value, Mapping) and mappings else allowed:
            trial = []
            found = _convert(one, value, place, trial)
            if not trial:
                break
        faults += trial
        return found
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return _dataclass(hint, value, place, faults)
    if origin is typing.Literal:
        if value not in arguments:
            listed = ", ".join(map(repr, arguments))
            faults += _faults_at(place, f"{shortened(value)} is not one of {listed}{_suggestion(value, arguments)}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, place, faults)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            faults += _faults_at(place, f"expected a mapping, got {shortened(value)}")
            return None
        return {str(key): _convert(arguments[1], item, _inside(place, key), faults) for key, item in value.items()}
    return _scalar(hint, value, place, faults)


def _tuple(arguments: tuple[Any, ...], value: Any, place: str, faults: list[str]) -> Any:
    if not isinstance(value, list | tuple):
        faults += _faults_at(place, f"expected a list, got {shortened(value)}")
        return None
    types_of: Sequence[Any] = arguments
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        types_of = arguments[:1] * len(value)
    elif len(value) != len(arguments):
        faults += _faults_at(place, f"expected {len(arguments)} entries, got {shortened(value)}")
        return None
    return tuple(
        _convert(one, item, f"{place}[{i}]", faults) for i, (one, item) in enumerate(zip(types_of, value, strict=True))
    )


def _scalar(hint: Any, value: Any, place: str, faults: list[str]) -> Any:
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and not isinstance(value, bool):
        # Text as well: YAML writes the number `inf` as `.inf`, and reads `inf` as text.
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    faults += _faults_at(place, f"expected {_NAMES.get(hint, getattr(hint, '__name__', hint))}, got {shortened(value)}")
    return None


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}


def _inside(place: str, key: object) -> str:
    """Return the place of a key: `section.key`, or `file: key` in the place `file:`."""
    return f"{place}{' ' if place.endswith(':') else '.' if place else ''}{key}"


def _faults_at(place: str, fault: object) -> list[str]:
    """Return a fault's lines, each with its place."""
    begin = f"{place.removesuffix(':')}: " if place else ""
    return [begin + line for line in str(fault).splitlines()]


def _written_as_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return is_dataclass(hint) or (isinstance(origin, type) and issubclass(origin, Mapping))


def _suggestion(value: object, known: tuple[Any, ...]) -> str:
    hint = nearest(value, known)
    return f". {hint}" if hint.startswith("Did you mean") else ""


def shortened(value: object) -> str:
    """Return the value as text for a message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def refuse_class(name: str, allowed: Collection[str], source: str) -> None:
    """Refuse a class outside this package that data name, such as a run that somebody else has made.

    Args:
        name: The name of a part of this package, of an installed package's entry point, or `package.module:Class`.
        allowed: The classes that the user's own command names.
        source: The data, for the error message.

    Raises:
        ConfigError: If the name is that of a class which is not allowed.
    """
    if ":" in name and name not in allowed:
        raise ConfigError(
            f"{source} names the class {name!r}, which would be imported and run. If you know where it comes from, "
            f"allow it: --allow-class {name}"
        )


def names_class(path: str) -> bool:
    """Return whether a text has the form `package.module:Class`."""
    return path.count(":") == 1 and all(part.isidentifier() for part in re.split(r"[.:]", path))


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
        raise ConfigError(f"the {what} {path!r} cannot be imported: {error}{_where(error, module)}") from None
    if not isinstance(found, type):
        raise ConfigError(f"the {what} {path!r} is of type {type(found).__name__}: name a class")
    return found


def _where(error: Exception, module: str) -> str:
    """Return where a module has to be, if it is what could not be found."""
    if (
        not isinstance(error, ModuleNotFoundError)
        or error.name is None
        or not f"{module}.".startswith(f"{error.name}.")
    ):
        return ""
    return ". Install its package, or name the folder that has it: `export PYTHONPATH=.` for the current one"


def reproducible(make: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that makes estimators whose random numbers are the same each time.

    scikit-learn's estimators draw from NumPy's global generator unless `random_state` is set; one that is None is set
    here. Whoever draws random numbers elsewhere has to do the same.

    Args:
        make: The estimator's class, or a function that makes one.
    """

    def made() -> Any:
        estimator = make()
        if getattr(estimator, "random_state", ESTIMATOR_SEED) is None:
            estimator.random_state = ESTIMATOR_SEED
        return estimator

    return made


def generator_state(rng: np.random.Generator) -> str:
    """Return the state of a generator as text; its integers are too long for a tensor."""
    return json.dumps(rng.bit_generator.state)


def restore_generator(rng: np.random.Generator, state: str) -> None:
    """Set a generator to a state that `generator_state` returned."""
    saved: dict[str, Any] = json.loads(state)
    rng.bit_generator.state = saved


def finite_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with None for what is not a finite number, which JSON does not have; `number_values` reads it."""
    return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in record.items()}


def number_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record that `finite_values` wrote, with NaN for None."""
    return {name: math.nan if x is None else x for name, x in record.items()}
