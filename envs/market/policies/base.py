"""What a policy on the market is: it chooses one action for each simulated user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.envs.market.dynamics.draws import Purpose, categorical, uniform
from crosschannel.envs.market.market import Market
from crosschannel.envs.market.state import MarketState
from crosschannel.envs.market.vocabulary import MODULES


class Choice(Protocol):
    """Actions that a policy chose for N users; the `Decisions` of an agent have this form."""

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
        """Choose one action for each user of the state."""
        ...


@dataclass(frozen=True)
class PolicyChoice:
    """A `Choice` as a plain record.

    Attributes:
        actions: Codes (N, M).
        probabilities: Probability of each module's choice given the earlier ones (N, M).
    """

    actions: IntArray
    probabilities: FloatArray


def sample_choice(
    probabilities: Sequence[FloatArray], state: MarketState, given: Sequence[int | None] = (None,) * len(MODULES)
) -> PolicyChoice:
    """Sample actions module by module, by hashes of user, day and module.

    Args:
        probabilities: For each module (N, A_m), or (N, A_j, A_m) if it depends on the choice of an earlier module j.
        state: The state of the N users.
        given: For each module that j, or None.
    """
    rows = np.arange(len(state))
    columns: list[IntArray] = []
    conditional: list[FloatArray] = []
    for m, (p, j) in enumerate(zip(probabilities, given, strict=True)):
        conditional.append(p if j is None else p[rows, columns[j]])
        columns.append(categorical(uniform(state.users.key, Purpose.POLICY, state.day, m), conditional[m]))
    actions = MODULES.canonical(np.stack(columns, axis=1))
    return PolicyChoice(actions, MODULES.chosen_probabilities(conditional, actions))


def shares_of_eligible(preferences: FloatArray, eligible: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Normalise preferences over the eligible actions.

    Args:
        preferences: Weights (A,) or (N, A), not negative.
        eligible: Eligible actions (N, A).

    Returns:
        Probabilities (N, A), all 0 where no eligible action has a positive preference, and whether one has (N,).
    """
    weight = preferences * eligible
    total = np.zeros(len(weight))
    for column in weight.T:
        total += column
    some = total > 0
    return weight / np.where(some, total, 1.0)[:, None], some
