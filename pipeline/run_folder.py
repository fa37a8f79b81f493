"""The run folder `runs/<name>/`: what a run writes, atomically."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosschannel.core.errors import ConfigError
from crosschannel.core.files import replacing
from crosschannel.core.serialization import to_dict
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.command_line import UsageError, invocation, refuse_existing
from crosschannel.pipeline.configuration import Config, read_config, write_config
from crosschannel.pipeline.results import RESULT_VERSION, EvaluationResult

#: Sections of the configuration that a result depends on, beside the policy.
DECIDES_A_RESULT = ("seed", "history", "guardrails", "context", "reward", "split", "evaluation")


@dataclass(frozen=True)
class Run:
    """A folder that a run wrote.

    It holds `config.yaml`, `context.json` (the log's fingerprint and how context is built), `checkpoint.pt`,
    `policy.pt`, `metrics.json`, `evaluation.json`, `policy.csv`, `report.html` and `tensorboard/`.

    Attributes:
        path: The folder.
        config: The configuration.
    """

    path: Path
    config: Config

    @property
    def checkpoint(self) -> Path:
        """Return the path of what resuming needs."""
        return self.path / "checkpoint.pt"

    @property
    def policy(self) -> Path:
        """Return the path of what deciding needs; present once the run has learned."""
        return self.path / "policy.pt"

    @property
    def metrics(self) -> Path:
        """Return the path of the final numbers; present once the run is finished."""
        return self.path / "metrics.json"

    @property
    def tensorboard(self) -> Path:
        """Return TensorBoard's folder."""
        return self.path / "tensorboard"

    @property
    def ended(self) -> bool:
        """Return whether the run is finished."""
        return self.metrics.is_file()

    @classmethod
    def create(cls, config: Config, features: ContextFeatures, fingerprint: str, path: Path | None = None) -> Run:
        """Make the folder of a run whose parts are prepared.

        Args:
            config: The resolved configuration.
            features: How context is built.
            fingerprint: That of the history that is learned from.
            path: The folder, which replaces an earlier run's (see `check_run_folder`); by default the configuration's,
                with a number where that is taken.
        """
        if path is None:
            path = _make_numbered(config.run_dir, config.name)
        elif cls.is_at(path):
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, replace(config, name=path.name, run_dir=path.parent))
        write_json({"history": fingerprint, "features": features.state_dict()}, path / "context.json")
        # Last, since it makes the folder a run.
        write_config(run.config, path / "config.yaml")
        return run

    @staticmethod
    def is_at(path: Path) -> bool:
        """Return whether a folder is that of a run."""
        return (path / "config.yaml").is_file()

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open a folder that a run wrote.

        Raises:
            ConfigError: If it is not one.
        """
        if not cls.is_at(path):
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
        """Return how context is built, as the run was trained with.

        Raises:
            ConfigError: If the file is absent.
        """
        return ContextFeatures.from_state_dict(self._context()["features"])

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the history that the run learned from."""
        return str(self._context()["history"])

    def same_history(self, fingerprint: str) -> bool:
        """Return whether a history's fingerprint is that of the history that the run learned from."""
        return self.fingerprint == fingerprint

    def judged(self, fingerprint: str) -> dict[str, Any]:
        """Return what an evaluation depends on: the log, the policy and the settings; two are equal where these are."""
        config = to_dict(self.config)
        return {
            "history": fingerprint,
            "policy": hashlib.sha256(self.policy.read_bytes()).hexdigest(),
            "settings": {name: config[name] for name in DECIDES_A_RESULT},
        }

    def stored_result(self) -> EvaluationResult | None:
        """Return the evaluation that stands in the folder, or None where it is of other settings or another policy.

        It is of the log with the fingerprint that the run keeps; whether the log is still that one, the caller checks.
        """
        path = self.path / "evaluation.json"
        if not path.is_file() or not self.policy.is_file():
            return None
        data = json.loads(path.read_text())
        if data.get("version") != RESULT_VERSION or data["judged"] != self.judged(self.fingerprint):
            return None
        return EvaluationResult.from_dict(data)

    def write_result(self, result: EvaluationResult, fingerprint: str, folder: Path | None = None) -> None:
        """Write `evaluation.json` and `policy.csv` into a folder, by default that of the run."""
        folder = folder or self.path
        folder.mkdir(parents=True, exist_ok=True)
        write_json({"judged": self.judged(fingerprint), **result.to_dict()}, folder / "evaluation.json")
        with replacing(folder / "policy.csv") as draft:
            result.policy_table.to_csv(draft, index=False)

    def _context(self) -> dict[str, Any]:
        path = self.path / "context.json"
        if not path.is_file():
            raise ConfigError(f"{path} is missing: the folder of the run is incomplete; train a new run")
        content: dict[str, Any] = json.loads(path.read_text())
        return content


def check_run_folder(path: Path, force: bool) -> None:
    """Check that a run may be written to a folder: it is absent or empty, or with `force` that of an earlier run.

    Raises:
        UsageError: If it may not.
    """
    refuse_existing(path, force)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not Run.is_at(path)):
        raise UsageError(f"{path} is not a run: --force replaces runs only")


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
    """Write strict JSON, without NaN."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
