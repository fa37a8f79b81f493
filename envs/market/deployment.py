"""Simulated deployment of a policy: its true value, on users that no log contains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.policies import MarketPolicy, make_policy
from crosschannel.envs.market.vocabulary import CHANNELS, SENT, UNSUBSCRIBED

#: Which stream of a seed's users a policy is deployed to; the market's history has stream 0.
DEPLOYMENT_STREAM = 1


@dataclass(frozen=True)
class PolicyValue:
    """True value of a policy, by user, over the market's days. Arrays (n,), one entry for each user.

    Policies that are evaluated with one seed have the same users and the same random numbers, so that two of them are
    best compared by the difference of their arrays: `minus`.

    Attributes:
        name: The policy.
        effect: Incremental goal value: the sum of the closed-form expected effects along the user's path.
        realised: Incremental goal value of the simulated events: the same mean, with the noise of single events.
        organic: Expected goal value if nothing had been sent.
        sends: Number of messages.
        unsubscribed: 1 if the user unsubscribed, else 0.
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
        """Standard error of the mean over users."""
        return standard_error(self.effect)

    @property
    def lift(self) -> float:
        """Mean as a share of the goal value without messages; NaN if that is 0."""
        organic = float(self.organic.mean())
        return self.mean / organic if organic else float("nan")

    def minus(self, other: PolicyValue) -> tuple[float, float]:
        """Return the mean difference per user to another policy, of the same seed, and its standard error."""
        difference = self.effect - other.effect
        return float(difference.mean()), standard_error(difference)


def standard_error(values: FloatArray) -> float:
    """Return the standard error of the mean of independent values (n,); NaN for fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def evaluate_policy(
    market: Market, policy: str | MarketPolicy, n_users: int = 20_000, seed: int | None = None
) -> PolicyValue:
    """Deploy a policy to new users from the first to the last day.

    The value sums closed-form effects along each path instead of simulated ones: given the path both have the same
    mean, and the sum lacks the noise of single events (Rao-Blackwell). It is the whole incremental value of the policy:
    a message acts until the next slot, and on later slots only through fatigue and lost subscriptions, which are part
    of those slots' own effects.

    Args:
        market: The market.
        policy: A policy or its name, one of `envs.market.policies.POLICIES`.
        n_users: Number of users; none of them is in the market's history.
        seed: Seed of these users; by default that of the market.

    Raises:
        ConfigError: If no policy has this name.
    """
    chosen = make_policy(policy, market)
    state = market.reset(market.keys(n_users, seed, stream=DEPLOYMENT_STREAM))
    effect, realised, organic = np.zeros(n_users), np.zeros(n_users), np.zeros(n_users)
    for _ in range(market.config.days):
        organic += market.organic_value(state)
        result = market.step(state, chosen.choose(market, state).actions)
        effect += result.true_effect
        realised += result.incremental
    final = state.total[:, -1]
    return PolicyValue(
        name=chosen.name,
        effect=effect,
        realised=realised,
        organic=organic,
        sends=final[:, SENT : SENT + len(CHANNELS) - 1].sum(1).astype(np.float64),
        unsubscribed=final[:, UNSUBSCRIBED].astype(np.float64),
    )
