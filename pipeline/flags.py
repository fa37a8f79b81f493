"""The settings of a configuration as flags: each is shown in the help, and overrides the configuration file."""

from __future__ import annotations

import argparse
import functools
import inspect
import re
import textwrap
import typing
from collections import abc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from crosschannel.core.errors import ConfigError
from crosschannel.core.files import parse_yaml
from crosschannel.core.serialization import alternatives, convert, to_dict
from crosschannel.pipeline.command_line import DEFAULT_CONFIG, FLAG_WIDTH, WIDTH, Parser, UsageError, hyphenated
from crosschannel.pipeline.configuration import Config, config_path, override, read_config, with_agent

#: Settings that stand in a file only: the first two are long, and the market's goals are those of the reward.
FILE_ONLY = (("history", "tables"), ("history", "stream"), ("history", "market", "goals"))
AGENT = ("agent", "settings")


@dataclass(frozen=True)
class Setting:
    """One setting of a configuration.

    Attributes:
        path: Names of the sections it is in, and its own.
        hint: Its annotated type.
        value: Its value before flags.
        explanation: What its docstring says.
    """

    path: tuple[str, ...]
    hint: Any
    value: Any
    explanation: str

    @property
    def flag(self) -> str:
        """The flag that sets it."""
        return "--" + ".".join(self.path).replace("_", "-")

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        return any(typing.get_origin(one) is tuple for one in alternatives(self.hint))

    @property
    def is_detail(self) -> bool:
        """Whether only `--help-all` shows it."""
        return len(self.path) > 2 and self.path[:2] != AGENT

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        allowed = [one for one in alternatives(self.hint) if one is not type(None)]
        if self.is_list:
            element = typing.get_args(next(one for one in allowed if typing.get_origin(one) is tuple))[0]
            return "TEXT" if typing.get_origin(element) is typing.Literal else _METAVARS.get(element, "YAML")
        if typing.get_origin(allowed[0]) is typing.Literal:
            return "{" + ",".join(map(str, typing.get_args(allowed[0]))) + "}"
        return _METAVARS.get(allowed[0], "YAML")

    def help_text(self, in_full: bool) -> str:
        """Return the first sentence of its explanation, or all, and its default in brackets."""
        text, value = self.explanation, _default(self.value)
        if not in_full:
            text = _first_sentence(text)
            space = max(WIDTH - FLAG_WIDTH - len(text) - 3, len("[none]"))
            value = textwrap.shorten(value, space, placeholder=" ...") if " " in value else value
        return f"{text.rstrip('.')} [{value}]".replace("%", "%%")

    def parse(self, given: str | list[str]) -> Any:
        """Return the value that a flag's text stands for, as plain data.

        Raises:
            ConfigError: If the text is not a value of the setting's type.
        """
        if isinstance(given, str):
            value = _plain(alternatives(self.hint), given, self.flag)
        elif given == ["none"] and type(None) in alternatives(self.hint):
            value = None
        elif len(given) == 1 and given[0].startswith("["):
            value = parse_yaml(given[0], self.flag)
        else:
            elements = next(typing.get_args(one) for one in alternatives(self.hint) if typing.get_origin(one) is tuple)
            value = [_plain(alternatives(elements[0]), text, self.flag) for text in given]
        return to_dict(convert(self.hint, value, self.flag))


_METAVARS = {int: "INT", float: "NUM", str: "TEXT", bool: "BOOL", Path: "PATH"}


def _plain(allowed: tuple[Any, ...], text: str, place: str) -> Any:
    """Return a text as it is where the setting is text, and else the value that it has in YAML."""
    if text == "none" and type(None) in allowed:
        return None
    if text.startswith("{") and any(typing.get_origin(one) is abc.Mapping for one in allowed):
        return parse_yaml(text, place)
    if any(one in (str, Path) or typing.get_origin(one) is typing.Literal for one in allowed):
        return text
    return parse_yaml(text, place)


def each_setting(section: Any, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Yield the settings of a section of the configuration and of its parts; a part that may be left out is one."""
    hints, texts = typing.get_type_hints(type(section)), attribute_texts(type(section))
    for f in fields(section):
        value, place = getattr(section, f.name), (*path, f.name)
        if place in FILE_ONLY or (place == AGENT and isinstance(value, Mapping)):
            continue
        if not is_dataclass(value) or type(None) in alternatives(hints[f.name]):
            yield Setting(place, hints[f.name], value, texts.get(f.name, ""))
        if is_dataclass(value):
            yield from each_setting(value, place)


def attribute_texts(cls: type) -> dict[str, str]:
    """Return what the docstrings of a dataclass and its bases say of each attribute."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, _, text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        for name, words in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE):
            found[name] = " ".join(words.split())
    return found


@dataclass(frozen=True)
class CommandLine:
    """What a command line asks for.

    Attributes:
        options: The program's own options.
        config: The configuration, with the flags that override it.
        overrides: The flags that were given for settings, `--config` among them.
    """

    options: argparse.Namespace
    config: Config
    overrides: tuple[str, ...]


def parse_settings(
    parser: Parser,
    arguments: Sequence[str] | None,
    sections: Sequence[str] | None = None,
    base: Config | None = None,
    without: Sequence[str] = (),
    default: Path = DEFAULT_CONFIG,
) -> CommandLine:
    """Parse a command line of a program that has settings: `--config FILE`, and flags that override it.

    Args:
        parser: The parser with the program's own flags; it gets `--config`, `--help-all` and a flag for each setting.
        arguments: What follows the program's name; by default that of this process.
        sections: Sections that the program reads; by default all, and the settings that are in none.
        base: The configuration that the flags override, such as that of a run; there is no `--config` then.
        without: Sections that the program does not read, where `sections` names none.
        default: The configuration of a command line that names none.

    Raises:
        ConfigError: If the file is wrong.
        UsageError: If a flag is wrong.
    """
    given = hyphenated(arguments)
    config = base or _read(parser, given, sections, default)
    read = set(sections) if sections is not None else {f.name for f in fields(Config)} - set(without)
    known = {one.flag: one for one in each_setting(config) if one.path[0] in read}
    if isinstance(config.agent.settings, Mapping):
        names = re.findall(r"^--agent\.settings\.([^=\n]+)", "\n".join(given), re.MULTILINE)
        free = [Setting((*AGENT, name.replace("-", "_")), Any, None, "") for name in names]
        known |= {one.flag: one for one in free}
    parser.epilog = "What is in [brackets] is the default, that of the configuration included; none is no value."
    if base is None:
        text = f"a file, or the name of a packaged one [{default.stem}]"
        parser.add_argument("--config", metavar="FILE", type=Path, help=text)
    _add_settings(parser, config, list(known.values()), in_full="--help-all" in given)
    options = parser.parse(given)
    texts = {flag: getattr(options, flag) for flag in known if hasattr(options, flag)}
    overrides = (*(("--config",) if base is None and options.config else ()), *texts)
    return CommandLine(options, _override(config, known, texts), overrides)


def _read(parser: Parser, given: Sequence[str], sections: Sequence[str] | None, default: Path) -> Config:
    """Return the configuration of the file, with the agent that the flags name."""
    first = Parser("", None)
    first.prog = parser.prog
    first.add_argument("--config", type=Path, default=default)
    first.add_argument("--agent.name", dest="agent")
    early, _ = first.parse_known_args([text for text in given if text not in ("-h", "--help")])
    config = read_config(config_path(early.config))
    if early.agent is None or early.agent == config.agent.name or (sections is not None and "agent" not in sections):
        return config
    with _as_usage():  # the settings in the file are those of another agent
        return with_agent(config, early.agent)


def _override(config: Config, known: Mapping[str, Setting], texts: Mapping[str, Any]) -> Config:
    if not texts:
        return config
    faults, values = [], {}
    for flag, text in texts.items():
        try:
            values[".".join(known[flag].path)] = known[flag].parse(text)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise UsageError("\n".join(faults))
    with _as_usage():
        return override(config, values)


@contextmanager
def _as_usage() -> Iterator[None]:
    """Blame the command line for what the configuration refuses."""
    try:
        yield
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _add_settings(parser: Parser, config: Config, known: Sequence[Setting], in_full: bool) -> None:
    """Add a flag for each setting, in groups by section; a short help leaves details out."""
    groups: dict[tuple[str, ...], Any] = {(): parser}
    for setting in known:
        section = setting.path[:-1]
        if section not in groups:
            groups[section] = parser.add_argument_group(_title(config, section))
        groups[section].add_argument(
            setting.flag,
            dest=setting.flag,
            metavar=setting.metavar,
            nargs="*" if setting.is_list else None,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS if setting.is_detail and not in_full else setting.help_text(in_full),
        )
    details = dict.fromkeys(".".join(one.path[:-1]) for one in known if one.is_detail)
    more = (
        f"also show the settings of {', '.join(details)}, and explain all in full" if details else "explain all in full"
    )
    parser.add_argument("--help-all", action="help", help=more)


def _title(config: Config, section: tuple[str, ...]) -> str:
    owner: Any = functools.reduce(getattr, section[:-1], config)
    text = config.agent.name if section == AGENT else attribute_texts(type(owner))[section[-1]]
    return f"{'.'.join(section)} ({_first_sentence(text).rstrip('.')})"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.) ", text, maxsplit=1)[0]


def _default(value: Any) -> str:
    """Return a value as one would give it in a flag."""
    if isinstance(value, tuple) and all(isinstance(item, str | int | float) for item in value):
        return " ".join(map(str, value)) or "empty"
    if isinstance(value, tuple) and all(is_dataclass(item) for item in value):
        return " ".join(str(getattr(item, fields(item)[0].name)) for item in value)
    if isinstance(value, tuple | Mapping) or is_dataclass(value):
        return yaml.safe_dump(to_dict(value), default_flow_style=True, width=10_000).strip()
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
