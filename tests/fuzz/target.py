"""What is damaged: files that are read together, and the function that reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """Files that are read together, one of which is damaged at a time.

    Attributes:
        name: Its name.
        make: Writes the valid files into an empty folder.
        files: The names of the files that are damaged.
        read: Reads the folder, given the name of the file that is damaged; what it returns is compared with what it
            returns for the valid files.
    """

    name: str
    make: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path, str], object]
