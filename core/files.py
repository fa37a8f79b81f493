"""Write files atomically; read and write YAML strictly; write CSV whose text no spreadsheet computes."""

from __future__ import annotations

import csv
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pandas as pd
import yaml

from crosschannel.core.errors import ConfigError, NewerFormat, OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Maximum number of values of a YAML text, with each value counted as often as aliases repeat it.
MAX_YAML_VALUES = 100_000

#: Maximum size of a YAML file; the parser needs seconds for it.
MAX_YAML_BYTES = 2_000_000


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file, and replace the file by it at the end.

    An interruption leaves either the old file or the new one, never a partly written one. Folders that are missing are
    made. A link at the path is replaced by the file; what it leads to stays as it is.

    Raises:
        OutputError: If the file cannot be written.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if temporary.is_symlink():
            temporary.unlink()
        with temporary.open("ab") as held:  # that of a process that was killed is used again
            if sys.platform == "win32":
                held.close()  # what is open there can be neither locked for others alone nor replaced
            elif not lock(held):
                raise OutputError(f"{path} is written by another program at this moment: name another file, or wait")
            try:
                yield temporary
                with temporary.open("r+b") as written:
                    os.fsync(written.fileno())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None


def lock(file: IO[Any]) -> bool:
    """Lock a file for this process without waiting; return False if another has it.

    The lock ends with the process, however that ends, or when the file is closed. A file system without locks has none.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def output_fault(path: Path) -> str | None:
    """Return why a file cannot be written to a path, or None if it can; missing folders are made with the file.

    For the test a small file without a name is written into the folder, so that rights, links, full disks and file
    systems that are read-only show before the work of a program and not after it.
    """
    try:
        if path.is_dir():
            return "it is a folder"
        if path.exists() and not path.is_file():
            return "it is not a regular file"
        with suppress(FileNotFoundError):
            os.lstat(_temporary(path))
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            return f"{folder} is not a folder"
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(bytes(4096))
            trial.flush()
            os.fsync(trial.fileno())
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def check_version(found: object, newest: int, place: str | Path) -> int:
    """Return the version of the format of a file: 1 if the file names none, as those written before versions do.

    Args:
        found: What the file gives as its version; None if nothing.
        newest: The newest version that can be read.
        place: The file, for the error message.

    Raises:
        ConfigError: If it is not a version; `NewerFormat` if it is a newer one.
    """
    version = 1 if found is None else found
    if type(version) is not int or version < 1:
        raise ConfigError(f"{place}: the version {str(version)[:40]!r} is not a whole number from 1 on")
    if version > newest:
        raise NewerFormat(
            f"{place}: the file has version {version} of its format, and this crosschannel reads versions up to "
            f"{newest}: a newer crosschannel wrote it. Install that one, or write the file again with this one"
        )
    return version


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


#: First characters of cells that spreadsheets compute.
_FORMULA = r"[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as a CSV file, with an apostrophe before each text that a spreadsheet would compute.

    These are texts that begin with = + - @, a tab or a line break and are not numbers. `unescape` undoes it: one more
    apostrophe stands before a text that has such a beginning after apostrophes of its own.

    Raises:
        OutputError: If the file cannot be written.
    """
    columns = [table.iloc[:, j] for j in range(table.shape[1])]
    escaped = pd.concat(
        [one if one.dtype.kind in "biufcmM" else _escape(one.astype(object)) for one in columns], axis=1
    )
    escaped.columns = pd.Index(_escape(pd.Series(table.columns, dtype=object)))
    with replacing(path) as draft:
        # The csv module does not quote a carriage return by itself, and readers take it for the end of the row.
        returns = any(one.dtype == object and one.str.contains("\r").eq(True).any() for _, one in escaped.items())
        escaped.to_csv(draft, index=False, quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)


def _escape(texts: pd.Series[Any]) -> pd.Series[Any]:
    computed = texts.str.match(f"'*{_FORMULA}").eq(True) & ~texts.str.fullmatch(_NUMBER).eq(True)
    out = texts.copy()
    out[computed] = "'" + texts[computed]
    return out


def unescape(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Return texts as they were before `write_csv` escaped them; what is not text stays as it is."""
    escaped = texts.str.match(f"'+{_FORMULA}").eq(True)
    return texts.where(~escaped, texts.str.slice(1)) if escaped.any() else texts


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file, None if it is empty.

    Raises:
        ConfigError: If its text is refused by `parse_yaml`.
    """
    try:
        size = path.stat().st_size
        if size > MAX_YAML_BYTES:
            raise ConfigError(f"{path}: the file has {size:,} bytes; at most {MAX_YAML_BYTES:,} are read as YAML")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is not text in UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    return parse_yaml(text, str(path))


def write_yaml(data: Any, path: Path) -> None:
    """Write plain values as YAML, which `read_yaml` and readers of YAML 1.1 read back as they are.

    Raises:
        OutputError: If the file cannot be written.
    """
    text = yaml.dump(data, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


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


_TOO_MANY = f"there are more than {MAX_YAML_VALUES:,} values, counted as often as aliases repeat them"


class _PlainLoader(yaml.SafeLoader):
    """A loader with the types of YAML 1.2, by the patterns below instead of PyYAML's of YAML 1.1."""

    _values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Read one value; stop where there are too many, before all of a large text is parsed."""
        self._values += 1
        if self._values > MAX_YAML_VALUES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=_TOO_MANY, problem_mark=mark)
        return super().compose_node(parent, index)


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


class _PlainDumper(yaml.SafeDumper):
    """A dumper that also quotes text which only YAML 1.2 takes for a number, such as 1e3."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Write a value in full wherever it occurs."""
        return True


_RESOLVERS = (yaml.SafeDumper.yaml_implicit_resolvers, _PlainLoader.yaml_implicit_resolvers)
_PlainDumper.yaml_implicit_resolvers = {
    first: [pattern for known in _RESOLVERS for pattern in known.get(first, [])]
    for first in {*_RESOLVERS[0], *_RESOLVERS[1]}
}


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
            raise yaml.MarkedYAMLError(problem=_TOO_MANY, problem_mark=node.start_mark)
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
