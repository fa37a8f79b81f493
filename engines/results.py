"""What engines on several machines send back: results by the index of their item, each counted once, in order."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from crosschannel.core.errors import ConfigError, CrosschannelError


def answer(function: Callable[[Any], Any], item: bytes) -> bytes:
    """Return the pickled result of a pickled item, or the error of the package that it raises.

    Such an error is the same however often the item is tried, so that it is sent back instead of being raised, where
    engines would try again and wrap it. Any other one is raised: it may be that of a machine.
    """
    try:
        return pickle.dumps((function(pickle.loads(item)), None))
    except CrosschannelError as error:
        return pickle.dumps((None, _Sent.from_error(error)))


def in_order(found: Iterable[tuple[int, bytes]], n: int) -> Iterator[Any]:
    """Yield the results of n items in the items' order, each once, whatever order and how often they arrive.

    Raises:
        CrosschannelError: If an item raised one.
        ConfigError: If a result never arrives.
    """
    waiting: dict[int, bytes] = {}
    following = 0
    for index, content in found:
        if index >= following:
            waiting[index] = content
        while following in waiting:
            result, error = pickle.loads(waiting.pop(following))
            if error is not None:
                raise error.rebuilt()
            yield result
            following += 1
    if following < n:
        raise ConfigError(f"the engine lost the result of item {following} of {n}: run it again")


class _Sent:
    """An error on its way to another process: its class, arguments and attributes."""

    def __init__(self, kind: type[CrosschannelError], arguments: tuple[Any, ...], state: dict[str, Any]) -> None:
        self.kind, self.arguments, self.state = kind, arguments, state

    @classmethod
    def from_error(cls, error: CrosschannelError) -> _Sent:
        return cls(type(error), error.args, dict(vars(error)))

    def rebuilt(self) -> CrosschannelError:
        error = self.kind.__new__(self.kind)
        error.args = self.arguments
        vars(error).update(self.state)
        return error
