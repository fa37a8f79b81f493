"""Builds each part of a run from its configuration: history, splits, rewards, context."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from crosschannel.agents import Observations
from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import Market, MarketConfig, MarketTruth, simulate_history
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.guardrails import Guardrails, guarded
from crosschannel.histories.history import History
from crosschannel.histories.propensities.estimate import estimate_propensities
from crosschannel.histories.readers.datasets import read_dataset
from crosschannel.histories.readers.folder import read_history
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.readers.tables import read_tables
from crosschannel.histories.splits import split_users
from crosschannel.pipeline.configuration import Config, HistoryConfig
from crosschannel.reward import Outcomes, RewardFrame, RewardModel, make_reward


@dataclass(frozen=True)
class Split:
    """A part of the users, and what is made of their history: each once, when it is first asked for.

    Attributes:
        history: Their history.
        model: The reward model.
        features: How context is built.
        guardrails: What may be sent at all.
    """

    history: History
    model: RewardModel
    features: ContextFeatures
    guardrails: Guardrails

    @cached_property
    def observations(self) -> Observations:
        """What a policy sees at every decision."""
        history = self.history
        users = history.user_keys[history.decisions.user]
        return Observations(self.features.transform(history), guarded(self.guardrails, history), users)

    @cached_property
    def outcomes(self) -> Outcomes:
        """What was measured around every decision."""
        return self.model.measure(self.history)

    @cached_property
    def rewards(self) -> RewardFrame:
        """The rewards, from these users' own controls."""
        return self.model.fit_outcomes(self.outcomes).transform_outcomes(self.outcomes)


@dataclass(frozen=True)
class Prepared:
    """A history with its splits, and what is fitted on the training users.

    Attributes:
        history: The whole history.
        truth: The market's hidden truth of every decision, if the history is simulated.
        part: Name of the part that each user belongs to (U,).
        model: The reward model.
        features: Context features, fitted on the training users.
        guardrails: What may be sent at all.
        train: The users that the agent and the outcome model learn from.
    """

    history: History
    truth: MarketTruth | None
    part: npt.NDArray[Any]
    model: RewardModel
    features: ContextFeatures
    guardrails: Guardrails
    train: Split

    @cached_property
    def validation(self) -> Split:
        """The users whose estimates are shown while training."""
        return self._split("validation")

    @cached_property
    def test(self) -> Split:
        """The users that the evaluation rests on."""
        return self._split("test")

    def _split(self, name: str) -> Split:
        return Split(self.history.select_users(self.part == name), self.model, self.features, self.guardrails)

    def rows(self, name: str) -> BoolArray:
        """Which decisions of the whole history belong to a part (n,)."""
        return np.asarray((self.part == name)[self.history.decisions.user])


def build_history(config: Config) -> tuple[History, MarketTruth | None]:
    """Read or simulate the history, with the configured churn events."""
    history, truth = _read_or_simulate(config)
    return history.with_churn_events(config.history.churn_events), truth


def _read_or_simulate(config: Config) -> tuple[History, MarketTruth | None]:
    """Reads or simulates the history.

    A market is simulated with the reward's goals, so that the true effects are in the same units as the rewards.
    """
    source: HistoryConfig = config.history
    if source.source == "market":
        if source.market.goals not in (MarketConfig().goals, config.reward.goals):
            raise ConfigError(
                "the market's goals are those of the reward: set `reward.goals`, not `history.market.goals`"
            )
        return simulate_history(Market(replace(source.market, goals=config.reward.goals)))
    if source.source == "tables":
        assert source.tables is not None  # the configuration saw to that
        return read_tables(source.tables), None
    if source.source == "stream":
        assert source.stream is not None  # the configuration saw to that
        return read_stream(source.stream), None
    if source.source != "folder":
        return read_dataset(source.source, source.path), None
    if source.path is None:
        raise ConfigError("history.source 'folder' needs a folder: add --history.path FOLDER")
    return read_history(source.path), None


def prepare(config: Config, features: ContextFeatures | None = None) -> Prepared:
    """Builds the history, splits its users, and fits the context on the training users; see `Split` for the rest.

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
    model = make_reward(config.reward.kind, config.reward)
    train = history.select_users(part == "train")
    features = features or ContextFeatures.fit(train, config.context)
    return Prepared(
        history=history,
        truth=truth,
        part=part,
        model=model,
        features=features,
        guardrails=config.guardrails,
        train=Split(train, model, features, config.guardrails),
    )


class AgentSpec(TypedDict):
    """The arguments of `make_agent` that make a run's agent and that its checkpoint stores."""

    name: str
    context_dim: int
    settings: dict[str, Any]
    seed: int


def agent_spec(config: Config, prepared: Prepared) -> AgentSpec:
    """Return the arguments that make a run's agent."""
    return AgentSpec(
        name=config.agent.name,
        context_dim=prepared.features.dim,
        settings=dict(config.agent.settings),
        seed=config.seed,
    )
