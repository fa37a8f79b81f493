"""A user's own classes, named in a configuration as `package.module:Class`."""

from __future__ import annotations

import importlib
from typing import Any

from histories.errors import ConfigError


def imported(path: str, what: str) -> Any:
    """The object that `package.module:Name` names.

    Args:
        path: Its module and its name.
        what: What it should be, for the message: an agent, a reward kind.

    Raises:
        ConfigError: If it cannot be imported.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the {what} {path!r} cannot be imported: {error}") from None
