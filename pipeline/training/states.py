"""What a callback keeps in a checkpoint: values of NumPy are stored so that they are read back as they were."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from crosschannel.core.errors import ConfigError

#: Key of a mapping that stands for a value of NumPy.
_NUMPY = "a value of NumPy"
_MAPPINGS, _SEQUENCES = (dict, OrderedDict), (list, tuple)


def to_storable(state: Any, owner: str) -> Any:
    """Return the state of a callback as a checkpoint holds it, after it was read back once.

    Args:
        state: What `Callback.state_dict` returned.
        owner: Name of the callback, for the error.

    Raises:
        ConfigError: If it holds a value with which the checkpoint could not be read.
    """
    for place, value in _leaves(state, "state_dict()"):
        if not _comes_back(_encoded(value)):
            raise ConfigError(
                f"the callback {owner}: {place} is a {type(value).__name__}, with which no checkpoint can be read "
                "back. Return numbers, texts, lists, mappings, arrays of numbers and tensors"
            )
    return _encoded(state)


def from_storable(stored: Any) -> Any:
    """Return what `to_storable` was given."""
    if type(stored) in _MAPPINGS:
        if _NUMPY in stored:
            flat = np.frombuffer(bytearray(stored["bytes"].numpy().tobytes()), dtype=np.dtype(stored[_NUMPY]))
            array = flat.reshape(stored["shape"])
            return array[()] if stored["scalar"] else array
        return type(stored)((key, from_storable(value)) for key, value in stored.items())
    return type(stored)(map(from_storable, stored)) if type(stored) in _SEQUENCES else stored


def _encoded(value: Any) -> Any:
    """Return a value whose parts of NumPy are mappings with their bytes; keys become equal ones of Python."""
    if type(value) in _MAPPINGS:
        return type(value)((_plain(key), _encoded(one)) for key, one in value.items())
    if type(value) in _SEQUENCES:
        return type(value)(map(_encoded, value))
    scalar = isinstance(value, np.generic)
    if not (scalar or type(value) is np.ndarray) or value.dtype.hasobject or value.dtype.fields is not None:
        return value
    import torch  # on first use: help does not wait for PyTorch

    array = np.asarray(value)
    flat = np.array(bytearray(array.tobytes()), dtype=np.uint8)
    content = {"shape": array.shape, "scalar": scalar, "bytes": torch.from_numpy(flat)}
    return {_NUMPY: array.dtype.str, **content}


def _plain(key: Any) -> Any:
    return key.item() if isinstance(key, np.generic) else key


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys and the single values of a state, with their places."""
    if type(value) in _MAPPINGS:
        for key, one in value.items():
            yield f"a key of {place}", _plain(key)
            yield from _leaves(one, f"{place}[{key!r}]")
    elif type(value) in _SEQUENCES:
        for k, one in enumerate(value):
            yield from _leaves(one, f"{place}[{k}]")
    else:
        yield place, value


def _comes_back(value: Any) -> bool:
    """Return whether a value can be written and read back."""
    if type(value) in (bool, int, float, str, type(None)):
        return True
    import torch

    try:
        file = io.BytesIO()
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # code of the value's own class runs, which may raise anything
        return False
    return True
