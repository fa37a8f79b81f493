"""Simulated deployment: what a policy is truly worth on fresh users of the market."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.policies.policies import MarketPolicy
from crosschannel.envs.market.vocabulary import CHANNELS, SENT, UNSUBSCRIBED

FRESH_USERS = 1


@dataclass(frozen=True)
class PolicyValue:
    """What a policy was worth, per user over the market's days. Arrays (n,), one entry a user.

    Policies that are evaluated with one seed have the same users and the same random numbers, so that the
    difference of two is best read from the difference of their arrays.

    Attributes:
        name: The policy.
        effect: Incremental goal value: the sum of the closed-form expected effects along the user's path.
        realised: The incremental goal value that was realised: the same mean, with the noise of single events.
        organic: Expected goal value had nothing been sent.
        sends: Messages.
        unsubscribed: 1 where the user unsubscribed.
    """

    name: str
    effect: FloatArray
    realised: FloatArray
    organic: FloatArray
    sends: FloatArray
    unsubscribed: FloatArray

    @property
    def mean(self) -> float:
        """Mean incremental goal value per user."""
        return float(self.effect.mean())

    @property
    def se(self) -> float:
        """Its standard error over users."""
        return standard_error(self.effect)

    @property
    def lift(self) -> float:
        """The mean as a share of what happens with nothing sent; NaN where that is nothing."""
        organic = float(self.organic.mean())
        return self.mean / organic if organic else float("nan")

    def minus(self, other: PolicyValue) -> tuple[float, float]:
        """Mean difference per user to another policy evaluated with the same seed, and its standard error."""
        difference = self.effect - other.effect
        return float(difference.mean()), standard_error(difference)


def standard_error(values: FloatArray) -> float:
    """Standard error of the mean of independent values (n,); NaN where there are fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def evaluate_policy(
    market: Market, policy: str | MarketPolicy, n_users: int = 20_000, seed: int | None = None
) -> PolicyValue:
    """Deploys a policy on fresh users from the first to the last day.

    The value sums closed-form effects along each path instead of realised ones: given the path the two have the same
    mean, and the sum lacks the noise of single events (Rao-Blackwell). It is the whole incremental value of the policy:
    a message acts until the next slot, and on later slots only through what their own effects contain.

    Args:
        market: The market.
        policy: A policy or its name, one of `envs.market.policies.POLICIES`.
        n_users: How many users, other than those of the market's history.
        seed: Seed of these users; by default the market's.
    """
    chosen = market.policy(policy)
    state = market.reset(market.keys(n_users, seed, stream=FRESH_USERS))
    effect, realised, organic = np.zeros(n_users), np.zeros(n_users), np.zeros(n_users)
    for _ in range(market.config.days):
        organic += market.organic_value(state)
        outcome = market.step(state, chosen.choose(market, state).actions)
        effect += outcome.true_effect
        realised += outcome.incremental
    final = state.total[:, -1]
    return PolicyValue(
        name=chosen.name,
        effect=effect,
        realised=realised,
        organic=organic,
        sends=final[:, SENT : SENT + len(CHANNELS) - 1].sum(1).astype(np.float64),
        unsubscribed=final[:, UNSUBSCRIBED].astype(np.float64),
    )
