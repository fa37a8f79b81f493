"""Read public data sets by name, from files that the user has or from an installed package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from crosschannel.core.errors import ConfigError, nearest
from crosschannel.histories.history import History
from crosschannel.histories.readers.datasets.complete_journey import read_complete_journey
from crosschannel.histories.readers.datasets.starbucks import read_starbucks_rewards

FROM_FILES: Mapping[str, Callable[[Path], History]] = MappingProxyType({"starbucks_rewards": read_starbucks_rewards})
"""Data sets that are read from a folder with their files."""

FROM_PACKAGES: Mapping[str, Callable[[Path | None], History]] = MappingProxyType(
    {"complete_journey": read_complete_journey}
)
"""Data sets that an installed package contains; they may also be read from a folder."""

DATASETS = (*FROM_FILES, *FROM_PACKAGES)


def read_dataset(name: str, path: Path | None = None) -> History:
    """Read a data set by its name.

    Args:
        name: One of `DATASETS`.
        path: The folder with its files; None for a data set that an installed package contains.

    Raises:
        ConfigError: If there is no such data set, or it needs a folder and `path` is None.
        InputError: If the files cannot be read.
    """
    if name in FROM_PACKAGES:
        return FROM_PACKAGES[name](path)
    if name not in FROM_FILES:
        raise ConfigError(f"there is no data set {name!r}. {nearest(name, DATASETS)}")
    if path is None:
        raise ConfigError(f"the data set {name!r} needs a folder: add --history.path FOLDER")
    return FROM_FILES[name](path)
