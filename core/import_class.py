"""A user's own classes, named in a configuration as `package.module:Class`."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from crosschannel.core.errors import ConfigError


def imported(path: str, what: str) -> type:
    """The class that `package.module:Name` names.

    Args:
        path: Its module and its name.
        what: What it should be, for the message: an agent, a reward kind.

    Raises:
        ConfigError: If it cannot be imported, or is no class.
    """
    module, _, name = path.partition(":")
    try:
        found: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the {what} {path!r} cannot be imported: {error}") from None
    if not isinstance(found, type):
        raise ConfigError(f"the {what} {path!r} is of type {type(found).__name__}: name a class")
    return found
