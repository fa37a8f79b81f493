"""Policies on the market: business as usual, uniform, no send, two oracles, and any policy over context arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.envs.market.dynamics.draws import Purpose, categorical, uniform
from crosschannel.envs.market.observables import attribute_columns, context_of
from crosschannel.envs.market.policies.optimal_policy import Plan
from crosschannel.envs.market.scenarios import Rules
from crosschannel.envs.market.state import MarketState
from crosschannel.envs.market.vocabulary import CHANNELS, MODULES, SERVICES, VISIT
from crosschannel.histories.features import ContextFeatures

if TYPE_CHECKING:
    from crosschannel.envs.market.market import Market


class Choice(Protocol):
    """What a policy chose for N users."""

    @property
    def actions(self) -> IntArray:
        """Codes (N, M)."""
        ...

    @property
    def probabilities(self) -> FloatArray:
        """Probability of each module's choice given the earlier ones (N, M)."""
        ...


class MarketPolicy(Protocol):
    """A policy that can be deployed on the market."""

    @property
    def name(self) -> str:
        """The policy's name, for logs and reports."""
        ...

    def choose(self, market: Market, state: MarketState) -> Choice:
        """One action for each user of the state."""
        ...


@dataclass(frozen=True)
class Chosen:
    """A plain `Choice`: actions (N, M) and probabilities (N, M)."""

    actions: IntArray
    probabilities: FloatArray


def draw(probabilities: list[FloatArray], state: MarketState) -> Chosen:
    """Draws an action from one array of probabilities (N, A_m) a module, by hashes of user, day and module."""
    columns = [
        categorical(uniform(state.users.key, Purpose.POLICY, state.day, m), p) for m, p in enumerate(probabilities)
    ]
    actions = MODULES.canonical(np.stack(columns, axis=1))
    return Chosen(actions, MODULES.chosen_probabilities(probabilities, actions))


@dataclass(frozen=True)
class BusinessAsUsual:
    r"""Rules as marketers write them, randomised so that every eligible action has a known positive probability.

    - Whether: the user's visits in `[t - 14 d, t - 2 d)` put them into one of three segments, which get a message
      with probability `send`. But for the scenario `dip`, the two days before the slot do not matter: messages go to
      users with a higher *level*, but not to those who happened to be active just before, so that DiD with a pre
      window of two days compares like with like while a comparison of levels does not.
    - Channel: by fixed preferences, among those eligible. Time: mostly the morning.
    - Service: with probability `favourite` the most visited one of those days, else any.
    - Offer, tone and greeting: by fixed preferences among those eligible, mostly none and plain.

    Attributes:
        rules: The parameters.
    """

    rules: Rules = field(default_factory=Rules)
    name: str = "business_as_usual"

    def probabilities(self, market: Market, state: MarketState) -> list[FloatArray]:
        """Probabilities of every action, one array (N, A_m) a module, given that something is sent for m > 0."""
        rules, parts = self.rules, MODULES.split(market.mask(state))
        visits = state.window(14, 2)[:, VISIT : VISIT + len(SERVICES)]
        segment = np.searchsorted(rules.limits, visits.sum(1), side="right")
        quiet = (state.window(2, 0)[:, VISIT : VISIT + len(SERVICES)].sum(1) == 0).astype(np.int64)
        eligible = parts[0][:, 1:]
        push = eligible[:, CHANNELS.index("push") - 1].astype(np.int64)
        channel, can = shares(np.array(rules.channel)[push], eligible)
        sent = np.where(can, np.array(rules.send)[segment] * np.array(rules.quiet)[quiet], 0.0)
        rest = (1.0 - rules.favourite) / len(SERVICES)
        most = np.arange(len(SERVICES)) == visits.argmax(1)[:, None]
        preferences = (
            rules.send_time,
            np.where(most, rules.favourite + rest, rest),
            rules.offer,
            rules.tone,
            rules.greeting,
        )
        return [
            np.column_stack([1.0 - sent, channel * sent[:, None]]),
            *(shares(np.asarray(p), part)[0] for p, part in zip(preferences, parts[1:], strict=True)),
        ]

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Draws an action for each user."""
        return draw(self.probabilities(market, state), state)


def shares(preferences: FloatArray, eligible: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Probabilities (N, A) in proportion to preferences (A,) or (N, A), and whether there are any (N,), else all 0."""
    weight = preferences * eligible
    total = np.zeros(len(weight))
    for column in weight.T:
        total += column
    some = total > 0
    return weight / np.where(some, total, 1.0)[:, None], some


@dataclass(frozen=True)
class Uniform:
    """Every eligible action of each module alike."""

    name: str = "uniform"

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Draws an action for each user."""
        parts = MODULES.split(market.mask(state))
        return draw([shares(np.ones(part.shape[1]), part)[0] for part in parts], state)


@dataclass(frozen=True)
class NoSend:
    """Never sends anything."""

    name: str = "no_send"

    def choose(self, market: Market, state: MarketState) -> Choice:  # noqa: ARG002
        """Nothing for each user."""
        shape = (len(state), len(MODULES))
        return Chosen(np.zeros(shape, dtype=np.int64), np.ones(shape))


@dataclass(frozen=True)
class Oracle:
    """The eligible action of the largest true effect at the slot, from the market's closed form.

    It knows every user's latent traits, but looks no further than the slot: it does not weigh a message against
    the fatigue, the gap and the risk of a lost subscription that it means for later slots. So it is the best myopic
    policy, not a bound on all policies.
    """

    name: str = "oracle"

    def choose(self, market: Market, state: MarketState) -> Choice:
        """The best action for each user."""
        actions = market.best_action(state, market.mask(state))[1]
        return Chosen(actions, np.ones(actions.shape))


@dataclass
class FarSighted:
    """The policy of the largest expected total effect over all slots that are left: see `envs.market.foresight`.

    It knows all that the oracle knows, and weighs each message against the fatigue, the gap and the risk of a lost
    subscription that it means for later slots. No policy is worth more in expectation.
    """

    name: str = "far_sighted"
    _plan: Plan | None = field(default=None, repr=False, compare=False)

    def choose(self, market: Market, state: MarketState) -> Choice:
        """The best action for each user; the plan is made anew where it is for other users."""
        if self._plan is None or not self._plan.fits(market, state):
            self._plan = Plan.of(market, state)
        actions = self._plan.actions(state)
        return Chosen(actions, np.ones(actions.shape))


@dataclass(frozen=True)
class ContextPolicy:
    """A policy that sees what an app can know: the context and the mask of eligible actions.

    Attributes:
        name: The policy's name.
        features: How context is built.
        act: From context (N, D) and mask (N, sum of actions) to actions and their probabilities, such as
            `lambda context, mask: agent.act(Observations(context, mask), explore=True)`.
    """

    name: str
    features: ContextFeatures
    act: Callable[[npt.NDArray[np.float32], BoolArray], Choice]

    def choose(self, market: Market, state: MarketState) -> Choice:
        """What the policy does in the context of each user."""
        columns = attribute_columns(self.features, state.users)
        return self.act(context_of(self.features, state, columns), market.mask(state))


#: By name: from a market to the policy.
POLICIES: dict[str, Callable[[Market], MarketPolicy]] = {
    "business_as_usual": lambda market: BusinessAsUsual(market.scenario.rules),
    "uniform": lambda _: Uniform(),
    "no_send": lambda _: NoSend(),
    "oracle": lambda _: Oracle(),
    "far_sighted": lambda _: FarSighted(),
}
