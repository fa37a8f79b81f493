"""Labels of actions: facts by name, such as the discount of an offer or how long a message is in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crosschannel.core.errors import ConfigError

#: Labels that are times: `duration` in days, the others in hours after the slot.
TIME_LABELS = ("duration", "send_from", "send_to")
MAX_TIME_LABEL = 36_600
MAX_LABEL = 1e15


def check_labels(module: str, labels_of: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the labels of a module's actions are facts by name, and that times among them are numbers.

    Raises:
        ConfigError: If they are not.
    """
    if not isinstance(labels_of, Mapping):
        raise ConfigError(f"module {module!r}: `labels` is {labels_of!r}, which is not a mapping of actions")
    for action, labels in labels_of.items():
        place = f"module {module!r}, labels of {action!r}"
        if not isinstance(labels, Mapping):
            raise ConfigError(f"{place}: {labels!r} is not a mapping, such as {{difficulty: 10}}")
        for name, value in labels.items():
            if not isinstance(name, str):
                raise ConfigError(f"{place}: the name {name!r} is not text: quote it")
            items = value if isinstance(value, list | tuple) else [value]
            if not all(item is None or isinstance(item, str | int | float) for item in items):
                raise ConfigError(f"{place}: {name} is {value!r}, which is neither text, a number nor a list of such")
            if not all(abs(item) <= MAX_LABEL for item in items if isinstance(item, int | float)):
                raise ConfigError(f"{place}: {name} is {value!r}, which is too large or not a finite number")
        for name in TIME_LABELS:
            value = labels.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME_LABEL:
                raise ConfigError(f"{place}: {name} is {value!r}: give a number from 0 to {MAX_TIME_LABEL:,}")
