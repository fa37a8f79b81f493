"""The policies of a run in use: one file for each version, and which of them decides."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosschannel import agents  # whose names are imported on first use: help does not wait for PyTorch
from crosschannel.core.errors import ConfigError, NewerFormat, nearest
from crosschannel.pipeline.run_files import read_json, write_json

VERSION_DIGITS = 12
_VERSION = rf"[0-9a-f]{{{VERSION_DIGITS}}}"
#: Version of the format of `current.json`, `order.json` and the notes.
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Policies:
    """The folder `policies/` of a run.

    Attributes:
        run: Folder of the run.
    """

    run: Path

    @property
    def folder(self) -> Path:
        """Return the folder."""
        return self.run / "policies"

    @property
    def versions(self) -> list[str]:
        """Return the versions that are there, the oldest first."""
        return [version for version in self._order() if self.path(version).is_file()]

    @property
    def current(self) -> str | None:
        """Return the version that decides; None where no update has written one.

        Raises:
            ConfigError: If the file that names it is damaged, or names a version that is not there.
        """
        file = self.folder / "current.json"
        if not file.is_file():
            return None
        remedy = "Name one by `crosschannel update RUN --use VERSION`"
        version = str(read_json(file, remedy, FORMAT_VERSION)["policy"])
        if not self.path(version).is_file():
            raise ConfigError(f"{file} names the policy {version}, which is not there. {remedy}")
        return version

    def is_first(self, version: str) -> bool:
        """Return whether a version is the one that a run without a log started with (`loop.starting`)."""
        return is_of_start(agents.read_extra(self.path(version), "policy"))

    def path(self, version: str) -> Path:
        """Return the file of a version."""
        return self.folder / f"{version}.pt"

    def write(self, agent: agents.Agent, spec: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
        """Write a policy, and return its version: the first digits of the SHA-256 of its file."""
        self.folder.mkdir(exist_ok=True)
        draft = self.folder / ".draft.pt"  # that of a process that was killed is written over
        agents.save_policy(agent, draft, spec, extra)
        version = version_of(draft)
        draft.replace(self.path(version))
        order = [*(one for one in self._order() if one != version), version]
        self._write_order(order)
        return version

    def note(self, version: str, learned: Mapping[str, str], days: int) -> None:
        """Keep beside a version what it has learned from, in words for the run's card, and how many decided days."""
        write_json({"version": FORMAT_VERSION, "learned": dict(learned), "days": days}, self._note(version))

    def noted(self, version: str) -> dict[str, str] | None:
        """Return what `note` kept of a version; None where nothing was.

        Raises:
            ConfigError: If the file is damaged.
        """
        kept = self._read_note(version)
        return None if kept is None else {name: str(text) for name, text in kept["learned"].items()}

    def days_noted(self, version: str) -> int:
        """Return how many days of decisions were read for a version; 0 where nothing was kept.

        Raises:
            ConfigError: If the file is damaged.
        """
        return int((self._read_note(version) or {}).get("days", 0))

    def _read_note(self, version: str) -> dict[str, Any] | None:
        file = self._note(version)
        return read_json(file, "Delete it: only the card's words are lost", FORMAT_VERSION) if file.is_file() else None

    def remove(self, version: str) -> None:
        """Delete a version, with what was kept beside it."""
        self.path(version).unlink()
        self._note(version).unlink(missing_ok=True)

    def use(self, version: str) -> None:
        """Let a version decide from now on.

        Raises:
            ConfigError: If there is no such version.
        """
        self.check(version)
        write_json({"version": FORMAT_VERSION, "policy": version}, self.folder / "current.json")

    def check(self, version: str) -> None:
        """Refuse what is not the version of a policy in the folder.

        Raises:
            ConfigError: If it is not.
        """
        if not (re.fullmatch(_VERSION, version) and self.path(version).is_file()):
            raise ConfigError(f"there is no policy {version!r} in {self.folder}. {nearest(version, self.versions)}")

    def prune(self, keep: int) -> None:
        """Delete all versions but the last ones and the one that decides."""
        for version in self.versions[:-keep]:
            if version != self.current:
                self.remove(version)
        self._write_order(self.versions)

    def _write_order(self, order: list[str]) -> None:
        write_json({"version": FORMAT_VERSION, "policies": order}, self.folder / "order.json")

    def _note(self, version: str) -> Path:
        return self.folder / f"{version}.json"

    def _order(self) -> list[str]:
        """Return the versions in the order in which they were written; by name where the file is damaged.

        Raises:
            NewerFormat: If a newer program wrote the file.
        """
        file = self.folder / "order.json"
        if not file.is_file():
            return []
        try:
            return list(read_json(file, "", FORMAT_VERSION)["policies"])
        except NewerFormat:
            raise
        except ConfigError:
            return sorted(path.stem for path in self.folder.glob("[0-9a-f]*.pt"))


def is_of_start(extra: Mapping[str, Any]) -> bool:
    """Return whether a policy is the one that a run without a log started with, by what is stored beside it."""
    return bool(extra.get("slot") == 0)


def version_of(path: Path) -> str:
    """Return the version of a policy's file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:VERSION_DIGITS]
