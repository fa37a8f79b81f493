"""Named public data sets: read from files that the user has, or from an installed package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from crosschannel.core.errors import ConfigError, nearest
from crosschannel.histories.history import History
from crosschannel.histories.readers.datasets.complete_journey import read_complete_journey
from crosschannel.histories.readers.datasets.starbucks import read_starbucks_rewards

FROM_FILES: Mapping[str, Callable[[Path], History]] = MappingProxyType({"starbucks_rewards": read_starbucks_rewards})
"""Data sets that need a folder with their files."""

FROM_PACKAGES: Mapping[str, Callable[[Path | None], History]] = MappingProxyType(
    {"complete_journey": read_complete_journey}
)
"""Data sets that an installed package brings; a folder may take its place."""

DATASETS = (*FROM_FILES, *FROM_PACKAGES)


def read_dataset(name: str, path: Path | None = None) -> History:
    """Reads a named data set.

    Args:
        name: One of `DATASETS`.
        path: The folder that holds its files; None for a data set that a package brings.

    Raises:
        ConfigError: If no data set has this name, or it needs a folder and there is none.
        InputError: If the files cannot be read.
    """
    if name in FROM_PACKAGES:
        return FROM_PACKAGES[name](path)
    if name not in FROM_FILES:
        raise ConfigError(f"there is no data set {name!r}. {nearest(name, DATASETS)}")
    if path is None:
        raise ConfigError(f"the data set {name!r} needs a folder: add --history.path FOLDER")
    return FROM_FILES[name](path)
