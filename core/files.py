"""Write files atomically; read YAML strictly."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from crosschannel.core.errors import ConfigError

#: Maximum number of values of a YAML text, with each value counted as often as aliases repeat it.
MAX_YAML_VALUES = 100_000


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file, and replace the file by it at the end.

    An interruption leaves either the old file or the new one, never a partly written one.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file, None if it is empty.

    Raises:
        ConfigError: If its text is refused by `parse_yaml`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is not text in UTF-8: {error.reason} at byte {error.start}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, place: str) -> Any:
    """Return the content of a YAML text: mappings, lists, text, numbers, booleans and null.

    Values have the types of YAML 1.2: `1e-3` is a number, and `2026-11-24`, `21:00`, `no` and `007` are text.

    Args:
        text: The text.
        place: The place of the text, for error messages.

    Raises:
        ConfigError: If the text is not YAML, has a key twice, has values of another type, refers to itself, or
            grows beyond `MAX_YAML_VALUES` by its aliases.
    """
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{place}:{where} {problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{place}: this is not YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{place}: values are nested too deeply") from None


class _PlainLoader(yaml.SafeLoader):
    """A loader with the types of YAML 1.2, by the patterns below instead of PyYAML's of YAML 1.1."""


_PlainLoader.yaml_implicit_resolvers = {}
_TAG = "tag:yaml.org,2002:"
_DIGITS = list("-+.0123456789")
for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", ["t", "T", "f", "F"]),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", _DIGITS),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", _DIGITS),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", _DIGITS),
    ("merge", r"<<", ["<"]),
):
    _PlainLoader.add_implicit_resolver(_TAG + _name, re.compile(f"^({_pattern})$"), _first)
_KINDS = {_TAG + name for name in ("null", "bool", "int", "float", "merge", "str", "seq", "map")}


def _check_node(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return the number of values of a node; `sizes` has those of the nodes already seen, 0 while counting.

    Raises:
        MarkedYAMLError: If the node has what `parse_yaml` refuses.
    """
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise yaml.MarkedYAMLError(
                problem="an alias refers to a value that contains it", problem_mark=node.start_mark
            )
        return sizes[id(node)]
    if node.tag not in _KINDS:
        raise yaml.MarkedYAMLError(problem=f"values of the kind {node.tag} are not read", problem_mark=node.start_mark)
    sizes[id(node)] = 0
    parts = [node.value] if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        parts = list(zip(*node.value, strict=True))
        _check_keys([key for key, _ in node.value])
    total = 1
    for part in (part for each in parts for part in each):
        total += _check_node(part, sizes)
        if total > MAX_YAML_VALUES:
            problem = f"there are more than {MAX_YAML_VALUES:,} values, counted as often as aliases repeat them"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    sizes[id(node)] = total
    return total


def _check_keys(keys: list[yaml.Node]) -> None:
    first: dict[str, int] = {}
    for key in keys:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be text, not a list or mapping", problem_mark=key.start_mark)
        if key.value in first:
            problem = f"the key {key.value!r} occurs twice, first in line {first[key.value]}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        first[key.value] = key.start_mark.line + 1
