"""Callbacks of your own: end a training early, and log it to Weights & Biases or MLflow.

    python examples/callbacks.py
    python examples/callbacks.py --tracker wandb     # needs `pip install wandb`
    python examples/callbacks.py --tracker mlflow    # needs `pip install mlflow`

From the command line: `crosschannel train --train.callbacks examples.callbacks:EarlyStopping`.
"""

from __future__ import annotations

import importlib
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import tyro

import crosschannel
from crosschannel.evaluation import headline
from crosschannel.pipeline import Callback, EvaluationResult, Training


class EarlyStopping(Callback):
    """End the learning once the lower bound of the validation users' value has not risen for some evaluations.

    Where the log does not identify the value, there is nothing to compare, and the learning continues.

    Args:
        patience: Evaluations without a better bound after which the learning ends.
    """

    def __init__(self, patience: int = 3) -> None:
        self.patience, self.best, self.waited = patience, -math.inf, 0

    def on_evaluation(self, training: Training, scores: Mapping[str, float]) -> bool:
        """Compare the bound with the best one so far."""
        low = scores.get(f"validation/low/order_{training.config.evaluation.order}", math.nan)
        if math.isnan(low):
            return True
        self.waited = 0 if low > self.best else self.waited + 1
        self.best = max(self.best, low)
        return self.waited < self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs to stop at the same step."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self.best, self.waited = state["best"], state["waited"]


class Tracker(Protocol):
    """What a tracker of experiments offers, by whatever name."""

    def start(self, name: str, settings: Mapping[str, Any]) -> None:
        """Begin a run with its settings."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values at a step."""

    def finish(self, values: Mapping[str, float], files: list[Path]) -> None:
        """Add the final values and files, and end the run."""


class WandbTracker:
    """Weights & Biases: https://docs.wandb.ai/ref/python."""

    def __init__(self, wandb: Any = None) -> None:
        self.wandb = importlib.import_module("wandb") if wandb is None else wandb

    def start(self, name: str, settings: Mapping[str, Any]) -> None:
        """Begin a run; a resumed training takes the same one by its id."""
        self.run = self.wandb.init(project="crosschannel", id=name, resume="allow", config=dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values at a step."""
        self.run.log(dict(values), step=step)

    def finish(self, values: Mapping[str, float], files: list[Path]) -> None:
        """Add the final values and files, and end the run."""
        self.run.summary.update(dict(values))
        for file in files:
            self.run.save(str(file), base_path=str(file.parent))
        self.run.finish()


class MlflowTracker:
    """MLflow: https://mlflow.org/docs/latest/python_api/mlflow.html."""

    def __init__(self, mlflow: Any = None) -> None:
        self.mlflow = importlib.import_module("mlflow") if mlflow is None else mlflow

    def start(self, name: str, settings: Mapping[str, Any]) -> None:
        """Begin a run."""
        self.mlflow.start_run(run_name=name)
        self.mlflow.log_params(dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values at a step."""
        self.mlflow.log_metrics(dict(values), step=step)

    def finish(self, values: Mapping[str, float], files: list[Path]) -> None:
        """Add the final values and files, and end the run."""
        self.mlflow.log_metrics(dict(values))
        for file in files:
            self.mlflow.log_artifact(str(file))
        self.mlflow.end_run()


class LogToTracker(Callback):
    """Send losses, validation scores and the final value to a tracker, every `train.log_every` steps.

    Args:
        tracker: The tracker.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_start(self, training: Training) -> None:
        """Begin the tracker's run under the name of the training's."""
        config = training.config
        settings = {"agent": config.agent.name, "reward": config.reward.kind, "seed": config.seed}
        self.tracker.start(training.run.name, settings)

    def on_step(self, training: Training) -> None:
        """Send the losses where they are due."""
        if training.steps % training.config.train.log_every == 0:
            self._log({f"train/{name}": value for name, value in training.losses.items()}, training.steps)

    def on_evaluation(self, training: Training, scores: Mapping[str, float]) -> None:
        """Send the scores of the validation users."""
        self._log(scores, training.steps)

    def on_end(self, training: Training, result: EvaluationResult) -> None:
        """Send the value with its interval, or nothing where the log does not identify it, and the model card."""
        best = headline(result.evaluation)
        value = best.value
        values = {"value": value.point, "value_low": value.low, "value_high": value.high} if best.identified else {}
        self.tracker.finish(values, [training.run / "MODEL_CARD.md"])

    def _log(self, values: Mapping[str, float], step: int) -> None:
        """Send what is finite: trackers draw no gaps."""
        if finite := {name: float(value) for name, value in values.items() if math.isfinite(value)}:
            self.tracker.log(finite, step)


class PrintTracker:
    """Prints what the others send."""

    def start(self, name: str, settings: Mapping[str, Any]) -> None:
        """Print the settings."""
        print(f"{name}: {dict(settings)}")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Print values of a step."""
        print(f"step {step}: " + ", ".join(f"{name} {value:.3g}" for name, value in list(values.items())[:4]))

    def finish(self, values: Mapping[str, float], files: list[Path]) -> None:
        """Print the final values."""
        print(f"finished: {dict(values) or 'the log does not identify the value'}, {[file.name for file in files]}")


TRACKERS = {"print": PrintTracker, "wandb": WandbTracker, "mlflow": MlflowTracker}


def main(
    tracker: Literal["print", "wandb", "mlflow"] = "print",
    users: int = 600,
    patience: int = 3,
    seed: int = 0,
    out: Path | None = None,
) -> int:
    """Train on a small simulated log, with both callbacks.

    Args:
        tracker: Where to log.
        users: Users of the log.
        patience: Evaluations without a better bound after which the learning ends.
        seed: Seed of the run.
        out: Folder of the run; by default one that is deleted at the end.
    """
    settings = {
        "seed": seed,
        "history.market.users": users,
        "history.market.days": 10,
        "train.num_envs": 64,
        "train.log_every": 5,
        "train.checkpoint_every": 5,
        "evaluation.bootstrap_replicates": 40,
        "evaluation.market_users": 100,
    }
    config = crosschannel.load_config("market", settings)
    with tempfile.TemporaryDirectory() as folder:
        stopping, logging = EarlyStopping(patience), LogToTracker(TRACKERS[tracker]())
        crosschannel.train(config, out or Path(folder) / "run", callbacks=[stopping, logging])
    return stopping.waited


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
