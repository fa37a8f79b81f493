"""The agents of the folds: each learns as the run's did, and is kept in the run's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from crosschannel.agents import Agent, load_policy
from crosschannel.core.errors import ConfigError
from crosschannel.pipeline.building import TrainingData
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.procedure.folds import fold_config, fold_data
from crosschannel.pipeline.run_files import PROCEDURE, TrainedWith, learns_alike, make_folder, read_json, write_json
from crosschannel.pipeline.run_folder import Run

#: The last file of a fold: it marks its agent as learned.
LEARNED = "fold.json"
FOLD_VERSION = 1


def learned_fold(
    run: Run,
    data: TrainingData,
    k: int,
    learn: Callable[[Run, TrainingData], None],
    folder: Path,
    device: str = "cpu",
) -> tuple[Agent, TrainingData]:
    """Return the agent that has learned without fold k, and the history so divided; it learns where it has not yet.

    What was learned from another log or with other settings is learned again. An interrupted agent resumes from its
    checkpoint, to the same bits; a finished one keeps no checkpoint, whose rows are those of users.

    Args:
        run: The run, with the settings of the folds.
        data: The history of the run.
        k: The fold.
        learn: Function that learns from a divided history and writes `policy.pt` into the folder of a run.
        folder: The folder below which agents are kept: the run's.
        device: Where agents compute.

    Raises:
        ConfigError: If a file of the fold is damaged or was edited; the message names the folder to delete.
    """
    config = replace(fold_config(run.config, k), device=device)
    path = fold_folder(folder, k, config.evaluation.procedure.folds)
    fold = Run(path, config, run.allowed_classes)
    stored = _stored(fold)
    if stored is not None and not (stored.history == data.fingerprint and learns_alike(stored.config, config)):
        logger.info(f"{path} is of another log or of other settings: it is learned again")
        shutil.rmtree(path)
        stored = None
    divided = fold_data(run.config, data, k, stored.features if stored else None)
    if not (path / LEARNED).is_file():
        make_folder(path)
        learn(fold, divided)
        write_json({"version": FOLD_VERSION, "fold": k, "policy": fold.policy_version}, path / LEARNED)
    fold.checkpoint.unlink(missing_ok=True)
    agent, _ = load_policy(fold.policy, device, allow_classes=run.allowed_classes)
    return agent, replace(divided, pace=fold.trained_with("policy").pace)


def fold_folder(folder: Path, k: int, folds: int | None) -> Path:
    """Return the folder of the agent that learns without fold k."""
    return folder / PROCEDURE / f"fold_{k + 1}_of_{folds}"


def _stored(fold: Run) -> TrainedWith | None:
    """Return what a fold has learned with so far; None where nothing is kept.

    Raises:
        ConfigError: If a file is damaged or was edited.
    """
    learned = fold.path / LEARNED
    finished = learned.is_file()
    if not finished and not fold.checkpoint.is_file():
        return None
    remedy = f"Delete {fold.path}, and evaluate again: its agent then learns again"
    policy = read_json(learned, remedy, FOLD_VERSION).get("policy") if finished else None
    try:
        if finished and policy != fold.policy_version:
            raise ConfigError(f"{learned} is not of the policy in {fold.policy}: a file was edited")
        return fold.trained_with("policy" if finished else "checkpoint")
    except ConfigError as error:
        raise ConfigError(f"{error}. {remedy}") from None
