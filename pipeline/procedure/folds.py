"""Folds of users: what an agent learns from and is judged by, and all users together as the folds that judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray, UIntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import MAX_SEED, derive, uniforms
from crosschannel.core.wording import counted
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.building import Split, TrainingData, measure_pace
from crosschannel.pipeline.configuration import Config, SplitConfig
from crosschannel.reward import RewardFrame

#: Salt of the hash that divides the users, beside the run's seed; and of the seeds of the agents.
FOLD_OF_USER, SEED_OF_FOLD = 0xF01D, 0x5EED


def folds_of_keys(user_keys: UIntArray, folds: int, seed: int) -> IntArray:
    """Return the fold (U,) of each user: a hash of the user's id, the same in every log and on every machine.

    Args:
        user_keys: Stable hashes of the user ids (U,), as in `History.user_keys`.
        folds: Number of folds.
        seed: Another seed gives an independent division.
    """
    return np.asarray((uniforms(derive(user_keys, FOLD_OF_USER), seed) * folds).astype(np.int64))


def fold_config(config: Config, k: int) -> Config:
    """Return the configuration of the agent that learns without fold k: the run's, with a seed and shares of its own.

    Agents have different seeds, so that their mean is one over what chance does to learning as well.
    """
    folds = _folds(config)
    seed = int(derive(np.array([config.seed], dtype=np.uint64), SEED_OF_FOLD + k)[0]) % (MAX_SEED + 1)
    shares = SplitConfig(train=1 - 1 / folds, validation=0.0, test=1 / folds)
    return replace(config, seed=seed, split=shares, train=replace(config.train, callbacks=()))


def fold_data(config: Config, data: TrainingData, k: int, features: ContextFeatures | None = None) -> TrainingData:
    """Return a history divided into fold k, which judges, and the users of all others, who teach.

    Args:
        config: The configuration of the run.
        data: The history of the run, divided in any way.
        k: The fold.
        features: How context is built; by default it is fitted on the users who teach.

    Raises:
        ConfigError: If the fold or the others have no user.
    """
    folds = _folds(config)
    judges = folds_of_keys(data.history.user_keys, folds, config.seed) == k
    if judges.all() or not judges.any():
        raise ConfigError(
            f"{data.history.name} has {counted(data.history.n_users, 'user')}, too few for {folds} folds: set "
            "`evaluation.procedure.folds` to fewer"
        )
    train = data.history.select_users(~judges)
    features = features or ContextFeatures.fit(train, config.context)
    return replace(
        data,
        part=np.where(judges, "test", "train").astype(object),
        features=features,
        train=Split(train, data.model, features, data.guardrails),
        pace=measure_pace(config, train),
    )


@dataclass(eq=False)
class Folds(Split):
    """All users, whose rewards are those of their folds.

    A reward rests on the controls of its own fold alone: controls of other folds have trained the agent that the fold
    judges, so that a reward would share their noise with it.

    Attributes:
        parts: The folds.
        rows: Where the decisions of each fold are among those of the history.
    """

    parts: tuple[Split, ...]
    rows: tuple[IntArray, ...]

    @cached_property
    def rewards(self) -> RewardFrame:
        """Return the rewards of all decisions, without components: values rest on rewards alone."""
        frames = [part.rewards for part in self.parts]
        arrays: dict[str, Any] = {}
        for field in fields(RewardFrame):
            if field.name != "components":
                arrays[field.name] = self.gather([getattr(frame, field.name) for frame in frames])
        return RewardFrame(**arrays)

    def refit(self) -> Callable[[FloatArray], FloatArray]:
        """Return the function from decision weights (n,) to rewards, fitted again within each fold."""
        fitted = [part.refit() for part in self.parts]
        return lambda weights: self.gather([fit(weights[rows]) for fit, rows in zip(fitted, self.rows, strict=True)])

    @property
    def fold(self) -> IntArray:
        """Return the fold of each decision (n,)."""
        return self.gather([np.full(len(rows), k) for k, rows in enumerate(self.rows)])

    def gather(self, parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return one array (n, ...) in the order of the history from those of the folds."""
        out = np.empty((len(self.history.decisions), *parts[0].shape[1:]), dtype=parts[0].dtype)
        for rows, part in zip(self.rows, parts, strict=True):
            out[rows] = part
        return out


@dataclass(frozen=True)
class FoldedData(TrainingData):
    """A history all of whose users are evaluated: those of each fold, by the agent that has not seen them.

    Attributes:
        folds: All users.
    """

    folds: Folds

    @cached_property
    def test(self) -> Split:
        """Return the users that the evaluation rests on: all."""
        return self.folds


def folded_data(config: Config, data: TrainingData, parts: tuple[Split, ...], rows: tuple[IntArray, ...]) -> FoldedData:
    """Return a history of which all users are evaluated.

    The contexts of the outcome models are scaled by all users. That uses no reward and no action of a fold, so that a
    model is still independent of the rewards that correct it, given the contexts.

    Args:
        config: The configuration.
        data: The history of the run.
        parts: The users of each fold.
        rows: Where the decisions of each fold are among those of the history.
    """
    features = ContextFeatures.fit(data.history, config.context)
    values = {field.name: getattr(data, field.name) for field in fields(TrainingData)}
    every = np.full(data.history.n_users, "test", dtype=object)
    folds = Folds(data.history, data.model, features, data.guardrails, parts, rows)
    return FoldedData(**{**values, "part": every, "features": features}, folds=folds)


def _folds(config: Config) -> int:
    folds = config.evaluation.procedure.folds
    if folds is None:
        raise ConfigError("there are no folds: set `evaluation.procedure.folds`")
    return folds
