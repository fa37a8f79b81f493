"""Policies on the market: business as usual, uniform, no send, the oracle, and any policy over context arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from envs.market.config import CHANNELS, MODULES, SERVICES, VISIT
from envs.market.draws import Purpose, categorical, uniform
from envs.market.known import attribute_columns, context_of
from envs.market.state import MarketState
from histories.context import ContextFeatures
from histories.errors import ConfigError, nearest
from histories.modules import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from envs.market.market import Market


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
    return Chosen(actions, MODULES.taken(probabilities, actions))


@dataclass(frozen=True)
class BusinessAsUsual:
    r"""Rules as marketers write them, randomised so that every eligible action has a known positive probability.

    - Whether: the user's visits in `[t - 14 d, t - 2 d)` put them into one of three segments, which get a message
      with probability `send`. The two days before the slot do not matter: messages go to users with a higher
      *level*, but not to those who happened to be active just before, so that DiD with a pre window of two days
      compares like with like while a comparison of levels does not.
    - Channel: by fixed preferences, among those eligible. Time: mostly the morning. Tone: mostly plain.
    - Service: with probability 0.6 the most visited one of those days, else any.

    Attributes:
        limits: Visits from which the second and the third segment begin.
        send: Probability of sending in each segment.
        channel: Preference for each channel but `none`, where push does not reach the user and where it does.
        send_time: Probability of each block.
        tone: Probability of each tone.
        favourite: Probability that the most visited service is chosen as such.
    """

    limits: tuple[int, int] = (5, 12)
    send: tuple[float, float, float] = (0.08, 0.25, 0.50)
    channel: tuple[tuple[float, ...], tuple[float, ...]] = ((0.70, 0.00, 0.15, 0.15), (0.35, 0.45, 0.08, 0.12))
    send_time: tuple[float, ...] = (0.52, 0.12, 0.12, 0.12, 0.12)
    tone: tuple[float, ...] = (0.60, 0.20, 0.20)
    favourite: float = 0.6
    name: str = "business_as_usual"

    def probabilities(self, market: Market, state: MarketState) -> list[FloatArray]:
        """Probabilities of every action, one array (N, A_m) a module, given that something is sent for m > 0."""
        n = len(state)
        visits = state.window(14, 2)[:, VISIT : VISIT + len(SERVICES)]
        segment = np.searchsorted(self.limits, visits.sum(1), side="right")
        eligible = market.mask(state)[:, 1 : len(CHANNELS)]
        push = eligible[:, CHANNELS.index("push") - 1].astype(np.int64)
        weight = np.array(self.channel)[push] * eligible
        total = np.zeros(n)
        for column in weight.T:
            total += column
        can = total > 0
        sent = np.where(can, np.array(self.send)[segment], 0.0)
        channel = np.empty((n, len(CHANNELS)))
        channel[:, 0] = 1.0 - sent
        channel[:, 1:] = weight * (sent / np.where(can, total, 1.0))[:, None]

        rest = (1.0 - self.favourite) / len(SERVICES)
        service = np.where(np.arange(len(SERVICES)) == visits.argmax(1)[:, None], self.favourite + rest, rest)
        return [channel, np.tile(self.send_time, (n, 1)), service, np.tile(self.tone, (n, 1))]

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Draws an action for each user."""
        return draw(self.probabilities(market, state), state)


@dataclass(frozen=True)
class Uniform:
    """Every eligible action of each module alike."""

    name: str = "uniform"

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Draws an action for each user."""
        parts = [part.astype(np.float64) for part in MODULES.split(market.mask(state))]
        return draw([part / part.sum(1, keepdims=True) for part in parts], state)


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
        mask = market.mask(state)
        eligible = np.ones((len(state), len(MODULES.composites)), dtype=bool)
        for m, part in enumerate(MODULES.split(mask)):
            eligible &= part[:, MODULES.composites[:, m]]
        eligible[:, 0] = True
        best = np.where(eligible, market.true_effects(state), -np.inf).argmax(1)
        return Chosen(MODULES.composites[best], np.ones((len(state), len(MODULES))))


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


POLICIES: dict[str, Callable[[], MarketPolicy]] = {
    "business_as_usual": BusinessAsUsual,
    "uniform": Uniform,
    "no_send": NoSend,
    "oracle": Oracle,
}


def make_policy(policy: str | MarketPolicy) -> MarketPolicy:
    """A policy by its name, or itself.

    Raises:
        ConfigError: If there is no such name.
    """
    if not isinstance(policy, str):
        return policy
    if policy not in POLICIES:
        raise ConfigError(f"the market has no policy {policy!r}. {nearest(policy, POLICIES)}")
    return POLICIES[policy]()
