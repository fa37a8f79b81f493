"""The run folder `runs/<name>/`: what a run writes, always whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiment.config import Config, read_config, write_config
from histories.context import ContextFeatures
from histories.errors import ConfigError


@dataclass(frozen=True)
class Run:
    """A folder with `config.yaml`, `checkpoint.pt`, `metrics.json`, `tensorboard/` and later the evaluation."""

    path: Path
    config: Config

    @property
    def checkpoint(self) -> Path:
        """Where all that is needed to go on is kept."""
        return self.path / "checkpoint.pt"

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
    def create(cls, config: Config) -> Run:
        """Makes a new folder; a name that is taken gets a number."""
        for number in range(1, 10_000):
            name = config.name if number == 1 else f"{config.name}-{number}"
            path = config.runs / name
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            run = cls(path, replace(config, name=name))
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


def write_json(data: Any, path: Path) -> None:
    """Writes strict JSON through a temporary file, so that an interruption leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def write_features(run: Run, features: ContextFeatures) -> None:
    """Writes how context is built beside the checkpoint, so that decisions need no training data."""
    write_json(features.state_dict(), run.path / "context.json")


def saved_features(run: Run) -> ContextFeatures:
    """The context features that a run was trained with.

    Raises:
        ConfigError: If the run has not got so far.
    """
    path = run.path / "context.json"
    if not path.is_file():
        raise ConfigError(f"{path} is missing: the run stopped before it had learned; resume it with train.py --resume")
    return ContextFeatures.from_state_dict(json.loads(path.read_text()))
