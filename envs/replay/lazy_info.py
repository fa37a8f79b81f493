"""Information of a step that is computed when it is first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: All methods that read or change a dictionary. With `__iter__` among them, `dict(info)` and `{**info}` use them too.
ACCESS_METHODS = (
    *("__contains__", "__delitem__", "__eq__", "__getitem__", "__ior__", "__iter__", "__len__", "__ne__", "__or__"),
    *("__repr__", "__reversed__", "__ror__", "__setitem__", "clear", "copy", "get", "items", "keys", "pop", "popitem"),
    *("setdefault", "update", "values"),
)


class LazyInfo(dict[str, Any]):
    """A dictionary that a function fills, once and completely, when it is first read.

    The function may only use data that no longer change, so that the result does not depend on when it is called. A
    copy, also a pickled one, is a plain dictionary.
    """

    def __init__(self, fill: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._fill: Callable[[], dict[str, Any]] | None = fill

    def fill(self) -> None:
        """Fill the dictionary, unless it is filled already."""
        if self._fill is not None:
            fill, self._fill = self._fill, None
            self.update(fill())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _after_filling(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    def access(self: LazyInfo, *arguments: Any, **named: Any) -> Any:
        self.fill()
        return method(self, *arguments, **named)

    access.__name__, access.__doc__ = name, method.__doc__
    return access


for _name in ACCESS_METHODS:
    setattr(LazyInfo, _name, _after_filling(_name))
