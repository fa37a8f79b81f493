"""Information of a step that is put together when somebody first looks at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Every way of looking at a dictionary or changing it. `__iter__` is also what keeps `dict(info)` and `{**info}` from
#: reading past these methods.
LOOKS = (
    *("__contains__", "__delitem__", "__eq__", "__getitem__", "__ior__", "__iter__", "__len__", "__ne__", "__or__"),
    *("__repr__", "__reversed__", "__ror__", "__setitem__", "clear", "copy", "get", "items", "keys", "pop", "popitem"),
    *("setdefault", "update", "values"),
)


class LazyInfo(dict[str, Any]):
    """A dictionary that is filled by a function when it is first looked at, whole and only once.

    The function must rest on what no longer changes, so that it does not matter when that is. A copy, also a pickled
    one, is a plain dictionary.
    """

    def __init__(self, fill: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._fill: Callable[[], dict[str, Any]] | None = fill

    def fill(self) -> None:
        """Fills the dictionary, unless it is filled already."""
        if self._fill is not None:
            fill, self._fill = self._fill, None
            self.update(fill())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _after_filling(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    def look(self: LazyInfo, *arguments: Any, **named: Any) -> Any:
        self.fill()
        return method(self, *arguments, **named)

    look.__name__, look.__doc__ = name, method.__doc__
    return look


for _name in LOOKS:
    setattr(LazyInfo, _name, _after_filling(_name))
