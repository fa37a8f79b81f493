"""Business as usual: rules as marketers write them, with a known probability for every eligible action."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.envs.market.dynamics.parameters import Rules
from crosschannel.envs.market.dynamics.responses import OFFER, TONE
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.policies.base import Choice, sample_choice, shares_of_eligible
from crosschannel.envs.market.scenarios import SYNERGY_PAIR
from crosschannel.envs.market.state import MarketState
from crosschannel.envs.market.vocabulary import CHANNELS, MODULES, OFFERS, SERVICES, TONES, VISIT


@dataclass(frozen=True)
class BusinessAsUsual:
    r"""Rules as marketers write them, randomised so that every eligible action has a known positive probability.

    - Whether: the user's visits in `[t - 14 d, t - 2 d)` put them into one of three segments, which get a message
      with probability `send`. But for the scenario `dip`, the two days before the slot do not matter: messages go to
      users with a higher *level*, but not to those who happened to be active just before, so that DiD with a pre
      window of two days compares like with like while a comparison of levels does not. In the scenario `slow` the
      window ends two days earlier.
    - Channel: by fixed preferences, among those eligible. Time: mostly the morning.
    - Service: with probability `favourite` the most visited one of those days, else any.
    - Offer, tone and greeting: by fixed preferences among those eligible, mostly none and plain. In the scenario
      `templates` offer and tone come as pairs, so that the tone depends on the offer: see `given`.

    Attributes:
        rules: The parameters.
    """

    rules: Rules = field(default_factory=Rules)
    name: str = "business_as_usual"

    @property
    def given(self) -> tuple[int | None, ...]:
        """For each module the earlier one that its probabilities depend on, or None."""
        return tuple(OFFER if m == TONE and self.rules.templates else None for m in range(len(MODULES)))

    def probabilities(self, market: Market, state: MarketState) -> list[FloatArray]:
        """Return the probabilities of every action, given that something is sent for all modules but the first.

        Returns:
            One array (N, A_m) a module; (N, A_j, A_m) for a module that depends on module j.
        """
        rules, parts = self.rules, MODULES.split(market.mask(state))
        visits = state.window(*rules.window)[:, VISIT : VISIT + len(SERVICES)]
        segment = np.searchsorted(rules.limits, visits.sum(1), side="right")
        quiet = (state.window(2, 0)[:, VISIT : VISIT + len(SERVICES)].sum(1) == 0).astype(np.int64)
        eligible = parts[0][:, 1:]
        push = eligible[:, CHANNELS.index("push") - 1].astype(np.int64)
        channel, can = shares_of_eligible(np.array(rules.channel)[push], eligible)
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
        found = [
            np.column_stack([1.0 - sent, channel * sent[:, None]]),
            *(shares_of_eligible(np.asarray(p), part)[0] for p, part in zip(preferences, parts[1:], strict=True)),
        ]
        if rules.templates:
            pairs = rules.template_preferences * parts[OFFER][:, :, None] * parts[TONE][:, None, :]
            of_offer = pairs.sum(2)
            found[OFFER] = of_offer / of_offer.sum(1, keepdims=True)
            found[TONE] = pairs / np.where(of_offer > 0, of_offer, 1.0)[:, :, None]
        return found

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Sample an action for each user."""
        return sample_choice(self.probabilities(market, state), state, self.given)


def always_pair(rules: Rules) -> BusinessAsUsual:
    """Return business as usual, but with the offer and the tone of the scenario `synergy` in every message."""
    offer, tone = SYNERGY_PAIR
    return BusinessAsUsual(
        replace(
            rules,
            offer=tuple(float(name == offer) for name in OFFERS),
            tone=tuple(float(name == tone) for name in TONES),
            templates=(),
        ),
        name="always_pair",
    )
