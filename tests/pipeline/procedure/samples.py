"""Small markets whose learning procedure is valued in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crosschannel import pipeline
from crosschannel.pipeline import Config, ProcedureValue, TrainingData
from crosschannel.programs.train import learn_fold
from tests.programs.samples import SMALL

#: An agent that learns in no time, on a log whose weights are close to 1.
QUICK: dict[str, Any] = {
    "agent.name": "best_fixed",
    "train.offline_updates": 0,
    "context.windows": ["2d"],
    "context.events": ["visit:*"],
    "evaluation.procedure.folds": 3,
}


def small_config(**settings: Any) -> Config:
    return pipeline.load_config(SMALL[1], QUICK | settings)


def valued(
    folder: Path, config: Config, data: TrainingData | None = None, learn: Any = learn_fold
) -> tuple[ProcedureValue, TrainingData]:
    """The value of the learning procedure of a configuration, and the data that it rests on."""
    data = data or pipeline.prepare(config)
    return pipeline.value_procedure(pipeline.Run(folder, config), data, learn, folder), data
