"""Simulated deployment of a policy: its true value, on users that no log contains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.wording import counted
from crosschannel.envs.market.dynamics.responses import Slots
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.policies import MarketPolicy, make_policy
from crosschannel.envs.market.state import MarketState
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

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.mean:+.3f} per user (standard error {self.se:.3f}), lift {self.lift:+.1%}, "
            f"{self.sends.mean():.1f} messages, {self.unsubscribed.mean():.1%} unsubscribed; "
            f"{counted(len(self.effect), 'user')}"
        )

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


@dataclass(frozen=True)
class FreshUsers:
    """Users of a market who are not in its history, to whom any number of policies can be deployed.

    Attributes:
        market: The market.
        start: The users before their first slot.
        organic: Expected goal value of each user over the market's days if nothing is sent (n,).
    """

    market: Market
    start: MarketState
    organic: FloatArray

    @classmethod
    def draw(cls, market: Market, n_users: int = 20_000, seed: int | None = None) -> FreshUsers:
        """Draw users; by default with the market's seed."""
        start = market.reset(market.keys(n_users, seed, stream=DEPLOYMENT_STREAM))
        organic = np.zeros(n_users)
        for day in range(market.config.days):
            organic += market.organic_value(Slots(start.users, start.day + day, start.fatigue))
        return cls(market, start, organic)

    def deploy(self, policy: str | MarketPolicy) -> PolicyValue:
        """Deploy a policy, or the one of this name, from the first to the last day: see `evaluate_policy`.

        Raises:
            ConfigError: If no policy has this name.
        """
        market, chosen, state = self.market, make_policy(policy, self.market), self.start.copy()
        effect, realised = np.zeros(len(state)), np.zeros(len(state))
        for _ in range(market.config.days):
            result = market.step(state, chosen.choose(market, state).actions)
            effect += result.true_effect
            realised += result.incremental
        final = state.total[:, -1]
        return PolicyValue(
            name=chosen.name,
            effect=effect,
            realised=realised,
            organic=self.organic,
            sends=final[:, SENT : SENT + len(CHANNELS) - 1].sum(1).astype(np.float64),
            unsubscribed=final[:, UNSUBSCRIBED].astype(np.float64),
        )


def evaluate_policy(
    market: Market, policy: str | MarketPolicy, n_users: int = 20_000, seed: int | None = None
) -> PolicyValue:
    """Deploy a policy to new users from the first to the last day; `FreshUsers` deploys several to the same users.

    The value sums closed-form effects along each path instead of simulated ones: given the path both have the same
    mean, and the sum lacks the noise of single events (Rao-Blackwell). It is the whole incremental value of the policy:
    each message counts with its own effect, on its day and later (scenario `slow`), also after the last day; beyond
    that a message acts only through fatigue and lost subscriptions, which are part of later messages' own effects.

    Args:
        market: The market.
        policy: A policy or its name, one of `envs.market.policies.POLICIES`.
        n_users: Number of users; none of them is in the market's history.
        seed: Seed of these users; by default that of the market.

    Raises:
        ConfigError: If no policy has this name.
    """
    return FreshUsers.draw(market, n_users, seed).deploy(policy)
