"""Builds each part of a run from its configuration: history, splits, rewards, context."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from crosschannel.agents import Observations
from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import to_dict
from crosschannel.envs.market import Market, MarketTruth
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.guardrails import Guardrails, guarded
from crosschannel.histories.history import History
from crosschannel.histories.propensities.estimate import estimate_propensities
from crosschannel.histories.readers.datasets import read_dataset
from crosschannel.histories.readers.folder import read_history
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.readers.tables import TableSource, read_tables
from crosschannel.histories.splits import split_users
from crosschannel.pipeline.configuration import Config, HistoryConfig
from crosschannel.reward import RewardFrame, RewardModel, make_reward


@dataclass(frozen=True)
class Prepared:
    """A history with its splits, and all that is fitted on the training users.

    Attributes:
        history: The whole history.
        truth: The market's hidden truth of every decision, if the history is simulated.
        part: Name of the part that each user belongs to (U,).
        model: The reward model.
        train: History of the training users.
        rewards: Their rewards.
        features: Context features, fitted on them.
        guardrails: What may be sent at all.
    """

    history: History
    truth: MarketTruth | None
    part: npt.NDArray[Any]
    model: RewardModel
    train: History
    rewards: RewardFrame
    features: ContextFeatures
    guardrails: Guardrails

    def users(self, name: str) -> History:
        """History of the users of a part."""
        return self.history.select_users(self.part == name)

    def rows(self, name: str) -> BoolArray:
        """Which decisions of the whole history belong to a part (n,)."""
        return np.asarray((self.part == name)[self.history.decisions.user])

    def observations(self, history: History) -> Observations:
        """What a policy sees at every decision of a history."""
        users = history.user_keys[history.decisions.user]
        return Observations(self.features.transform(history), guarded(self.guardrails, history), users)


def build_history(config: Config) -> tuple[History, MarketTruth | None]:
    """Reads or simulates the history.

    Raises:
        ConfigError: If the source needs a folder and none is given.
        InputError: If the history cannot be read.
    """
    source: HistoryConfig = config.history
    if source.source == "market":
        return Market(config.market()).history()
    if source.source == "tables":
        assert source.tables is not None  # the configuration saw to that
        tables = source.tables
        move = _mover([tables.decisions, *tables.events, tables.users], source.path)
        moved = replace(
            tables,
            decisions=move(tables.decisions),
            events=tuple(move(events) for events in tables.events),
            users=None if tables.users is None else move(tables.users),
        )
        return read_tables(moved), None
    if source.source == "stream":
        assert source.stream is not None  # the configuration saw to that
        stream = source.stream
        move = _mover([stream.rows, stream.users], source.path)
        users = None if stream.users is None else move(stream.users)
        return read_stream(replace(stream, rows=move(stream.rows), users=users)), None
    if source.source != "folder":
        return read_dataset(source.source, source.path), None
    if source.path is None:
        raise ConfigError("history.source 'folder' needs a folder: add --history.path FOLDER")
    return read_history(source.path), None


def _mover(sources: Sequence[TableSource | None], path: Path | None) -> Callable[[TableSource], TableSource]:
    """Return a function that replaces the folder of a mapping's files by `path`, below which they keep their order.

    A path may also take the place of a mapping's only file, or of its only folder of files.
    """
    if path is None:
        return lambda source: source
    files = [source.path.absolute() for source in sources if source is not None]
    base = Path(os.path.commonpath([file.parent for file in files]))
    if len(files) == 1 and (path.is_file() or not files[0].suffix):
        base = files[0]
    return lambda source: replace(source, path=path / source.path.absolute().relative_to(base))


def prepare(config: Config, features: ContextFeatures | None = None) -> Prepared:
    """Builds the history, splits its users, and fits rewards and context on the training users.

    Propensities that were not logged are estimated, for all users at once: each user's come from other users only. The
    history's summary says so, and every number that rests on them is labelled by `History.propensity_source`.

    Args:
        config: The configuration.
        features: How context is built, where a run has learned with it already; by default it is fitted.

    Raises:
        ConfigError: If settings do not fit the history, or a part of the split has no user.
        InputError: If the history cannot be read.
    """
    history, truth = build_history(config)
    if history.propensity_source == "missing":
        history, _ = estimate_propensities(history, config.context)
    part = split_users(history.user_keys, config.split.shares, config.seed)
    for name, share in config.split.shares.items():
        if share > 0 and not (part == name).any():
            raise ConfigError(f"{history.name} has {history.n_users} users: too few for a {name} part of {share:.0%}")
    train = history.select_users(part == "train")
    model = make_reward(config.reward.kind, config.reward)
    return Prepared(
        history=history,
        truth=truth,
        part=part,
        model=model,
        train=train,
        rewards=model.fit(train).transform(train),
        features=features or ContextFeatures.fit(train, config.context),
        guardrails=config.guardrails,
    )


class Recipe(TypedDict):
    """How a run's agent is made: the arguments of `make_agent` that its checkpoint keeps."""

    name: str
    context_dim: int
    settings: dict[str, Any]
    seed: int


def recipe_of(config: Config, prepared: Prepared) -> Recipe:
    """The recipe of a run's agent."""
    return Recipe(
        name=config.agent.name,
        context_dim=prepared.features.dim,
        settings=to_dict(config.agent.settings),
        seed=config.seed,
    )
