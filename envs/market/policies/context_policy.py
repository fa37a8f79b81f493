"""Any policy over context arrays, such as a trained agent, as a policy on the market."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.observables import attribute_features, build_context
from crosschannel.envs.market.policies.base import Choice
from crosschannel.envs.market.state import MarketState
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
        """Call `act` with the context and the mask of each user."""
        attributes = attribute_features(self.features, state.users)
        return self.act(build_context(self.features, state, attributes), market.mask(state))
