"""Policies that know the users' hidden traits: upper bounds that no policy learned from a log can reach."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crosschannel.envs.market.market import Market
from crosschannel.envs.market.policies.base import Choice, PolicyChoice
from crosschannel.envs.market.policies.optimal_policy import ValueFunction
from crosschannel.envs.market.state import MarketState


@dataclass(frozen=True)
class Oracle:
    """The eligible action with the largest true effect at the slot, from the market's closed form.

    It knows every user's latent traits, but looks no further than the slot: it does not weigh a message against the
    fatigue, the gap and the risk of a lost subscription at later slots. It is the best myopic policy, not an upper
    bound for all policies.
    """

    name: str = "oracle"

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Choose the best action for each user."""
        actions = market.best_action(state, market.mask(state))[1]
        return PolicyChoice(actions, np.ones(actions.shape))


@dataclass
class FarSighted:
    """The policy with the largest expected total effect over all remaining slots: see `policies.optimal_policy`.

    It knows all that the oracle knows, and weighs each message against the fatigue, the gap and the risk of a lost
    subscription at later slots. No policy has a higher expected value.
    """

    name: str = "far_sighted"
    _value_function: ValueFunction | None = field(default=None, repr=False, compare=False)

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Choose the best action for each user; the value function is computed again for other users."""
        if self._value_function is None or not self._value_function.applies_to(market, state):
            self._value_function = ValueFunction.build(market, state)
        actions = self._value_function.best_actions(state)
        return PolicyChoice(actions, np.ones(actions.shape))
