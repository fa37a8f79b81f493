"""Named public data sets; each is read from files that the user has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from histories.errors import ConfigError, nearest
from histories.history import History
from histories.starbucks import read_starbucks_rewards

DATASETS: Mapping[str, Callable[[Path], History]] = MappingProxyType({"starbucks_rewards": read_starbucks_rewards})


def read_dataset(name: str, path: Path) -> History:
    """Reads a named data set from the folder that holds its files.

    Raises:
        ConfigError: If no data set has this name.
        InputError: If the files cannot be read.
    """
    if name not in DATASETS:
        raise ConfigError(f"there is no data set {name!r}. {nearest(name, DATASETS)}")
    return DATASETS[name](path)
