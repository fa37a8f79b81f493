"""Policies that know nothing of the users: every eligible action with equal probability, and no message at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.envs.market.market import Market
from crosschannel.envs.market.policies.base import Choice, PolicyChoice, sample_choice, shares_of_eligible
from crosschannel.envs.market.state import MarketState
from crosschannel.envs.market.vocabulary import MODULES


@dataclass(frozen=True)
class Uniform:
    """Every eligible action of each module with equal probability."""

    name: str = "uniform"

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Sample an action for each user."""
        parts = MODULES.split(market.mask(state))
        return sample_choice([shares_of_eligible(np.ones(part.shape[1]), part)[0] for part in parts], state)


@dataclass(frozen=True)
class NoSend:
    """Never sends a message."""

    name: str = "no_send"

    def choose(self, market: Market, state: MarketState) -> Choice:  # noqa: ARG002
        """Choose to send nothing to each user."""
        shape = (len(state), len(MODULES))
        return PolicyChoice(np.zeros(shape, dtype=np.int64), np.ones(shape))
