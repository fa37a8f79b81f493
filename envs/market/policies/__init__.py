"""Policies on the market: business as usual, references, oracles, and any policy over context arrays."""

from __future__ import annotations

from collections.abc import Callable

from crosschannel.core.errors import ConfigError, nearest
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.policies.base import Choice, MarketPolicy, PolicyChoice, sample_choice, shares_of_eligible
from crosschannel.envs.market.policies.baselines import NoSend, Uniform
from crosschannel.envs.market.policies.business_as_usual import BusinessAsUsual, always_pair
from crosschannel.envs.market.policies.context_policy import ContextPolicy
from crosschannel.envs.market.policies.optimal_policy import ValueFunction
from crosschannel.envs.market.policies.oracles import FarSighted, Oracle

#: Builds each policy that has a name.
POLICIES: dict[str, Callable[[Market], MarketPolicy]] = {
    "business_as_usual": lambda market: BusinessAsUsual(market.scenario.rules),
    "always_pair": lambda market: always_pair(market.scenario.rules),
    "uniform": lambda _: Uniform(),
    "no_send": lambda _: NoSend(),
    "oracle": lambda _: Oracle(),
    "far_sighted": lambda _: FarSighted(),
}


def make_policy(policy: str | MarketPolicy, market: Market) -> MarketPolicy:
    """Build the policy with a name from `POLICIES`; return any other policy as it is.

    Raises:
        ConfigError: If no policy has this name.
    """
    if not isinstance(policy, str):
        return policy
    if policy not in POLICIES:
        raise ConfigError(f"the market has no policy {policy!r}. {nearest(policy, POLICIES)}")
    return POLICIES[policy](market)


__all__ = [
    "POLICIES",
    "BusinessAsUsual",
    "Choice",
    "ContextPolicy",
    "FarSighted",
    "MarketPolicy",
    "NoSend",
    "Oracle",
    "PolicyChoice",
    "Uniform",
    "ValueFunction",
    "make_policy",
    "sample_choice",
    "shares_of_eligible",
]
