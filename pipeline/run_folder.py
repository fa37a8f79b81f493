"""The run folder `runs/<name>/`: what a run writes, always whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosschannel.core.errors import ConfigError
from crosschannel.core.files import replacing
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.command_line import invocation
from crosschannel.pipeline.configuration import Config, read_config, write_config


@dataclass(frozen=True)
class Run:
    """A folder with `config.yaml`, `context.json`, `checkpoint.pt`, `metrics.json`, `tensorboard/`, later a report."""

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
    def create(cls, config: Config, features: ContextFeatures, fingerprint: str, path: Path | None = None) -> Run:
        """Make the folder of a run whose parts are prepared.

        Args:
            config: The resolved configuration.
            features: How context is built.
            fingerprint: That of the history that is learned from.
            path: The folder, which replaces an earlier run's; by default the configuration's, with a number where that
                is taken.

        Raises:
            ConfigError: If `path` is something else than a run.
        """
        if path is None:
            path = _make_numbered(config.run_dir, config.name)
        elif path.exists():
            cls.open(path)
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, replace(config, name=path.name, run_dir=path.parent))
        write_json({"history": fingerprint, "features": features.state_dict()}, path / "context.json")
        # Last, since it makes the folder a run.
        write_config(run.config, path / "config.yaml")
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open a folder that a run wrote.

        Raises:
            ConfigError: If it is not one.
        """
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"{path} is not a run: it has no config.yaml. `{invocation('train')}` writes runs")
        return cls(path, read_config(path / "config.yaml"))

    @classmethod
    def open_ended(cls, path: Path, history: Path | None = None) -> Run:
        """Open the folder of a finished run.

        Args:
            path: The folder.
            history: Another log of the same layout, to be read in place of the run's own.

        Raises:
            ConfigError: If the folder is not a run's, or the run is not finished.
        """
        run = cls.open(path)
        if not run.ended:
            raise ConfigError(f"run {path} is not finished; resume it with: {invocation('train', '--resume', path)}")
        if history is None:
            return run
        return replace(run, config=replace(run.config, history=run.config.history.with_path(history)))

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
            raise ConfigError(f"{path} is missing: the folder of the run is incomplete; train a new run")
        content: dict[str, Any] = json.loads(path.read_text())
        return content


def _make_numbered(folder: Path, name: str) -> Path:
    """Make a new folder of a name, with a number added where the name is taken."""
    for number in range(1, 10_000):
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise ConfigError(f"{folder} has ten thousand runs called {name!r}: choose another name")


def write_json(data: Any, path: Path) -> None:
    """Writes strict JSON, without NaN."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
