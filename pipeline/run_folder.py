"""The run folder `runs/<name>/`: what a run writes, always whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosschannel.core.errors import ConfigError
from crosschannel.core.files import replacing
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.configuration import Config, read_config, write_config


@dataclass(frozen=True)
class Run:
    """A folder with `config.yaml`, `context.json`, `checkpoint.pt`, `policy.pt`, `metrics.json` and `tensorboard/`."""

    path: Path
    config: Config

    @property
    def checkpoint(self) -> Path:
        """Where all that is needed to go on is kept."""
        return self.path / "checkpoint.pt"

    @property
    def policy(self) -> Path:
        """Where what deciding needs is kept, once the run has learned."""
        return self.path / "policy.pt"

    @property
    def metrics(self) -> Path:
        """What was learned, in numbers; present once the run has ended."""
        return self.path / "metrics.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's folder."""
        return self.path / "tensorboard"

    @property
    def ended(self) -> bool:
        """Whether the run has learned all it was to learn."""
        return self.metrics.is_file()

    @classmethod
    def create(cls, config: Config, features: ContextFeatures, fingerprint: str) -> Run:
        """Makes a new folder for a run whose parts are prepared; a name that is taken gets a number.

        Args:
            config: The resolved configuration.
            features: How context is built.
            fingerprint: That of the history that is learned from.
        """
        for number in range(1, 10_000):
            name = config.name if number == 1 else f"{config.name}-{number}"
            path = config.runs / name
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            run = cls(path, replace(config, name=name))
            write_json({"history": fingerprint, "features": features.state_dict()}, path / "context.json")
            # Last, since it makes the folder a run.
            write_config(run.config, path / "config.yaml")
            return run
        raise ConfigError(f"{config.runs} has ten thousand runs called {config.name!r}: choose another name")

    @classmethod
    def open(cls, path: Path) -> Run:
        """Opens a folder that a run wrote.

        Raises:
            ConfigError: If it is not one.
        """
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"{path} is not a run: it has no config.yaml. Runs are written by train.py")
        return cls(path, read_config(path / "config.yaml"))

    @classmethod
    def open_ended(cls, path: Path) -> Run:
        """Opens the folder of a run that has learned all it was to learn.

        Raises:
            ConfigError: If it is not one, or the run stopped before its end.
        """
        run = cls.open(path)
        if not run.ended:
            raise ConfigError(
                f"{path} has not ended, so its policy is half learned: go on with python train.py --resume {path}"
            )
        return run

    def features(self) -> ContextFeatures:
        """How context is built, as the run was trained with.

        Raises:
            ConfigError: If the file is absent.
        """
        return ContextFeatures.from_state_dict(self._context()["features"])

    def same_history(self, fingerprint: str) -> bool:
        """Whether a history's fingerprint is that of the history that the run learned from."""
        return bool(self._context()["history"] == fingerprint)

    def _context(self) -> dict[str, Any]:
        path = self.path / "context.json"
        if not path.is_file():
            raise ConfigError(f"{path} is missing: the folder is not whole; train anew")
        content: dict[str, Any] = json.loads(path.read_text())
        return content


def write_json(data: Any, path: Path) -> None:
    """Writes strict JSON, without NaN."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
