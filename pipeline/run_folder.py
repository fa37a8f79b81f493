"""The run folder `runs/<name>/`: what a run writes, atomically, and what is read back, checked."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosschannel import agents  # whose names are imported on first use: help does not wait for PyTorch
from crosschannel.agents.constraints.settings import Constraints
from crosschannel.core.errors import ConfigError
from crosschannel.core.files import output_fault, write_csv
from crosschannel.core.serialization import import_class, refuse_class, to_dict
from crosschannel.pipeline.command_line import UsageError, invocation, logger, refuse_existing
from crosschannel.pipeline.configuration import Config, read_config, write_config
from crosschannel.pipeline.judgement.results import RESULT_VERSION, EvaluationResult
from crosschannel.pipeline.loop.policies import VERSION_DIGITS, Policies, is_of_start
from crosschannel.pipeline.run_files import (
    RunLock,
    TrainedWith,
    clear,
    is_free,
    make_folder,
    read_json,
    take_numbered,
    write_json,
)

#: Version of `metrics.json`.
METRICS_VERSION = 1
#: Sections of the configuration that a result depends on, beside the policy.
DECIDES_A_RESULT = ("seed", "history", "guardrails", "context", "reward", "split", "constraints", "evaluation")


@dataclass(frozen=True)
class Run:
    """A folder that a run wrote.

    It holds `config.yaml`, `checkpoint.pt`, `policy.pt`, `metrics.json`, `evaluation.json`, `policy.csv`,
    `MODEL_CARD.md`, `report.html` and `tensorboard/`. A run folder is data: classes of a user's own that it names are
    imported only where the command allows them, and never from the folder itself.

    Attributes:
        path: The folder.
        config: The configuration.
        allowed_classes: Classes of a user's own that may be imported.
        version: Which of the policies that updates wrote decides; None for the one that training wrote.
    """

    path: Path
    config: Config
    allowed_classes: tuple[str, ...] = ()
    version: str | None = None

    @property
    def checkpoint(self) -> Path:
        """Return the path of what resuming needs."""
        return self.path / "checkpoint.pt"

    @property
    def policy(self) -> Path:
        """Return the path of what deciding needs; present once the run has learned."""
        return self.path / "policy.pt" if self.version is None else Policies(self.path).path(self.version)

    @property
    def constraints(self) -> Constraints:
        """Return the constraints under which the policy decides: none as long as nothing is known of what they limit.

        That is so for the first policy of a run without a log, which draws at random (`pipeline.loop.starting`).
        """
        if self.version is None:
            return self.config.constraints
        return self.constraints_given(agents.read_extra(self.policy, "policy"))

    def constraints_given(self, extra: Mapping[str, Any]) -> Constraints:
        """Return the same, where what is stored beside the policy was read already."""
        first = self.version is not None and is_of_start(extra)
        return Constraints() if first else self.config.constraints

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
        """Return whether the run is finished: `metrics.json` is the last file of a run.

        Raises:
            ConfigError: If the file is damaged, or that of another run.
        """
        if not self.metrics.is_file():
            return False
        remedy = f"Delete it and run `{invocation('train', '--resume', self.path)}`, which writes it again"
        stored = read_json(self.metrics, remedy, METRICS_VERSION)
        if self.policy.is_file() and stored.get("policy") != self._policy_digest():
            raise ConfigError(
                f"{self.metrics} is not of the policy in {self.policy}: the files are of several runs, or damaged. "
                f"{remedy}"
            )
        return True

    @classmethod
    def create(cls, config: Config, out: Path | None, locks: ExitStack, *, force: bool = False, keep: str = "") -> Run:
        """Make the folder of a run whose parts are prepared.

        A folder without config.yaml is not a run yet; what a killed process leaves of it is used by the next run.

        Args:
            config: The resolved configuration.
            out: The folder (see `check_run_folder`); by default the configuration's, with a number where it is taken.
            locks: What holds the folder's lock, for as long as the run is written.
            force: Replace the run that stands at `out`.
            keep: Name of the scratch folder in `out` in which the parts were prepared, which stays.

        Raises:
            ConfigError: If the folder, or one in it such as a simulation's log, is in use.
            OutputError: If the folder cannot be written.
            UsageError: If something was written into `out` since that was checked.
        """
        path = out or take_numbered(config.run_dir, config.name, locks)
        if out is not None:
            make_folder(out)
            locks.enter_context(RunLock(out))
            if not force and not is_free(out):
                raise UsageError(f"{out} was written by another program meanwhile: give another --out")
            clear(out, keep)
        allowed = (*classes_of(config), *config.train.callbacks)
        run = cls(path, replace(config, name=path.name, run_dir=path.parent), allowed)
        write_config(run.config, path / "config.yaml")  # makes the folder a run
        return run

    @staticmethod
    def is_at(path: Path) -> bool:
        """Return whether a folder is that of a run."""
        return os.path.isfile(path / "config.yaml")  # False also for a path that no file system takes

    @staticmethod
    def read_config(path: Path) -> Config:
        """Return the configuration of a run's folder; nothing that it names is imported or checked.

        Raises:
            ConfigError: If the file is damaged.
        """
        return read_config(path / "config.yaml")

    @classmethod
    def open(cls, path: Path, allow_classes: Collection[str] = (), *, to_train: bool = False) -> Run:
        """Open a folder that a run wrote.

        Args:
            path: The folder.
            allow_classes: Classes of a user's own that may be imported if the run names them, as
                `package.module:Class`.
            to_train: Whether its training is resumed, so that the run's callbacks are imported too.

        Raises:
            ConfigError: If it is not one, or names a class that is not allowed or that lies in the folder itself.
        """
        if not cls.is_at(path):
            raise ConfigError(f"{path} is not a run: it has no config.yaml. `{invocation('train')}` writes runs")
        config = read_config(path / "config.yaml")
        for name in (*classes_of(config), *(config.train.callbacks if to_train else ())):
            refuse_class(name, allow_classes, str(path / "config.yaml"))
            _refuse_inside(path, name)
        return cls(path, config, tuple(allow_classes))

    @classmethod
    def open_ended(cls, path: Path, history: Path | None = None, allow_classes: Collection[str] = ()) -> Run:
        """Open the folder of a finished run, and check that its files are of one run and as they were written.

        Args:
            path: The folder.
            history: Another log of the same layout, to be read in place of the run's own.
            allow_classes: Classes of a user's own that may be imported, as for `open`.

        Raises:
            ConfigError: If the folder is not a run's, the run is not finished, or a file is damaged or was edited.
        """
        run = cls.open(path, allow_classes)
        if not run.ended:
            run.check_trains()
            raise ConfigError(f"run {path} is not finished; resume it with: {invocation('train', '--resume', path)}")
        return run._to_decide(history)

    @classmethod
    def open_in_use(cls, path: Path, history: Path | None = None, allow_classes: Collection[str] = ()) -> Run:
        """Open a run whose policy decides: the one that updates have put to use, or else that of its training.

        Args:
            path: The folder.
            history: Another log of the same layout, to be read in place of the run's own.
            allow_classes: Classes of a user's own that may be imported, as for `open`.

        Raises:
            ConfigError: If the folder is not a run's, it has no policy yet, or a file is damaged or was edited.
        """
        version = Policies(path).current if cls.is_at(path) else None
        if version is None:
            return cls.open_ended(path, history, allow_classes)
        run = replace(cls.open(path, allow_classes), version=version)
        return run._to_decide(history)

    def _to_decide(self, history: Path | None) -> Run:
        """Check that the policy was trained with the run's settings; return the run, on another log if one is named.

        Raises:
            ConfigError: If the policy is damaged, or config.yaml was edited.
        """
        self.trained_with("policy").check(self.config, self.path / "config.yaml", ended=True)
        if history is None:
            return self
        return replace(self, config=replace(self.config, history=self.config.history.with_path(history)))

    def trained_with(self, kind: str) -> TrainedWith:
        """Return what the run has learned with, by its `policy` or its `checkpoint`.

        Raises:
            ConfigError: If the file is absent or damaged.
        """
        # PyTorch is imported here, so that help and wrong flags do not wait for it.
        from crosschannel.agents.checkpoints import read_extra

        path = self.policy if kind == "policy" else self.path / f"{kind}.pt"
        return TrainedWith.from_dict(read_extra(path, kind).get("run", {}), path)

    def check_trains(self) -> None:
        """Refuse a run that `start` or `simulate` made, and which learns by updates alone.

        Raises:
            ConfigError: If it is one.
        """
        trained = any(file.is_file() for file in (self.checkpoint, self.path / "policy.pt"))
        if not trained and Policies(self.path).current is not None:
            raise ConfigError(
                f"{self.path} has no training: it was made by `start` or `simulate`, and learns by "
                f"`{invocation('update', self.path)}`. `{invocation('trial')}` shows what its policies are worth, and "
                f"`{invocation('simulate', '--resume', self.path)}` resumes a simulation"
            )

    def resumes_from(self) -> TrainedWith | None:
        """Return what an interrupted run has learned with, or None where it has no checkpoint yet.

        Raises:
            ConfigError: If the checkpoint is damaged, or config.yaml was edited since.
        """
        if not self.checkpoint.is_file():
            return None
        found = self.trained_with("checkpoint")
        found.check(self.config, self.path / "config.yaml", ended=False)
        return found

    def judged(self, fingerprint: str) -> dict[str, Any]:
        """Return what an evaluation depends on: the log, the policy and the settings; two are equal where these are."""
        config = to_dict(replace(self.config, history=self.config.history.anywhere()))
        return {
            "history": fingerprint,
            "policy": self._policy_digest(),
            "settings": {name: config[name] for name in DECIDES_A_RESULT},
        }

    @property
    def policy_version(self) -> str:
        """Return what names the policy in the decisions that it makes: 12 hexadecimal digits of its file's SHA-256.

        Raises:
            ConfigError: If the file cannot be read.
        """
        return self._policy_digest()[:VERSION_DIGITS]

    def _policy_digest(self) -> str:
        try:
            return hashlib.sha256(self.policy.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(f"{self.policy} cannot be read: {error.strerror or error}") from None

    def stored_result(self) -> EvaluationResult | None:
        """Return the evaluation that stands in the folder, or None where it is of other settings or another policy.

        It is of the log that the run has learned from; whether the log is still that one, the caller checks.

        Raises:
            ConfigError: If the file is damaged.
        """
        path = self.path / "evaluation.json"
        if not path.is_file() or not self.policy.is_file():
            return None
        remedy = "Delete it, and evaluate again"
        data = read_json(path, remedy, RESULT_VERSION)
        judged = self.judged(self.trained_with("policy").history)
        if data.get("version") != RESULT_VERSION or data.get("judged") != judged:
            logger.info(f"{path} is of another log, policy, settings or version of the program: it is not read")
            return None
        try:
            result = EvaluationResult.from_dict(data)
            str(result), result.details()  # whatever is missing for a report shows here
            return result
        except (
            ConfigError,
            LookupError,
            TypeError,
            ValueError,
            ArithmeticError,
            AttributeError,
            StopIteration,
        ) as error:
            raise ConfigError(f"{path} is not an evaluation ({type(error).__name__}: {error}). {remedy}") from None

    def write_result(self, result: EvaluationResult, fingerprint: str, folder: Path | None = None) -> None:
        """Write `policy.csv` and `evaluation.json` into a folder, by default that of the run.

        Raises:
            OutputError: If a file cannot be written.
        """
        folder = folder or self.path
        write_csv(result.policy_table, folder / "policy.csv")
        write_json({"judged": self.judged(fingerprint), **result.to_dict()}, folder / "evaluation.json")

    def finish(self, result: EvaluationResult) -> None:
        """Write `metrics.json`, which marks the run as finished.

        Raises:
            OutputError: If the file cannot be written.
        """
        write_json({"version": METRICS_VERSION, **result.metrics(), "policy": self._policy_digest()}, self.metrics)


def check_run_folder(config: Config, out: Path | None, force: bool) -> None:
    """Check that a run can be written: to `out`, if that is absent, empty or, with `force`, an earlier run's.

    Raises:
        UsageError: If it cannot.
    """
    if out is not None:
        refuse_existing(out, force)
        if out.exists() and (not out.is_dir() or (not is_free(out) and not Run.is_at(out))):
            raise UsageError(f"{out} is not a run: --force replaces runs only")
    if fault := output_fault((out or config.run_dir / ".new") / "config.yaml"):
        raise UsageError(f"no run can be written to {out or config.run_dir}: {fault}")


def classes_of(config: Config) -> tuple[str, ...]:
    """Return the classes of a user's own that a configuration names and that every program imports."""
    return tuple(name for name, _ in _named_classes(config))


def check_classes(config: Config) -> None:
    """Import the classes of a user's own that the user's configuration names, before a long log is read.

    Raises:
        ConfigError: If one cannot be imported, or is not a class.
    """
    for name, what in _named_classes(config):
        import_class(name, what)


def _named_classes(config: Config) -> list[tuple[str, str]]:
    """Return the classes of a user's own, each with what it is."""
    evaluation, history = config.evaluation, config.history
    names = (
        (config.agent.name, "agent"),
        (config.reward.kind, "reward kind"),
        (evaluation.outcome_model, "outcome model"),
        (history.propensity_model, "propensity model"),
    )
    # The estimators of scikit-learn are those of an installed package, and no code of a run's author.
    return [(name, what) for name, what in names if ":" in name and not name.startswith("sklearn.")]


def _refuse_inside(folder: Path, name: str) -> None:
    """Refuse a class whose code lies in a folder; nothing of a module is run before its place is known.

    Raises:
        ConfigError: If the module, or a package around it, is read from the folder.
    """
    parts = name.partition(":")[0].split(".")
    for k in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:k]))
        except (ImportError, ValueError, AttributeError):
            return  # what imports it explains why it cannot
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        if any(Path(place).resolve().is_relative_to(folder.resolve()) for place in places if place):
            raise ConfigError(
                f"{folder} names the class {name!r}, which lies in the run's own folder: it is not imported"
            )
