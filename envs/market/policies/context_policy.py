"""Any policy over context arrays, such as a trained agent, as a policy on the market."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.observables import attribute_features, build_context
from crosschannel.envs.market.policies.base import Choice, PolicyChoice
from crosschannel.envs.market.state import MarketState
from crosschannel.envs.market.vocabulary import MODULES
from crosschannel.histories.features import ContextFeatures


@dataclass(frozen=True)
class ContextPolicy:
    """A policy that sees what an app can know: the context and the mask of eligible actions.

    Attributes:
        name: The policy's name.
        features: How the context is built.
        act: Function from context (N, D) and mask (N, sum of actions) to actions and their probabilities, such as
            `lambda context, mask: agent.act(Observations(context, mask), explore=True)`.
    """

    name: str
    features: ContextFeatures
    act: Callable[[npt.NDArray[np.float32], BoolArray], Choice]

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Call `act` with the context and the mask of each user who has a slot."""
        attributes = attribute_features(self.features, state.users)
        context, mask, rows = build_context(self.features, state, attributes), market.mask(state), state.subscribed
        found = self.act(context[rows], mask[rows])
        actions, probabilities = np.zeros((len(mask), len(MODULES)), dtype=np.int64), np.ones((len(mask), len(MODULES)))
        actions[rows], probabilities[rows] = found.actions, found.probabilities
        return PolicyChoice(actions, probabilities)
