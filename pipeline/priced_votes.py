"""The votes of one decision time with what they use of each constraint, and the shadow prices that follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.agents import Observations
from crosschannel.agents.constraints.budgets import action_prices, expected_use, prices_later_modules
from crosschannel.agents.constraints.prices import InfeasibleBudget, Prices, priced_shares, shadow_prices
from crosschannel.agents.constraints.remedies import in_settings
from crosschannel.agents.constraints.settings import Constraints
from crosschannel.agents.votes import ChannelVotes, NoVotes, PriceableAgent
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray

#: Rows whose votes are computed together: matrix products may round a row otherwise among other rows, and so the rows
#: of a block are the same ones wherever the votes are kept.
ROWS_PER_BLOCK = 32_768
#: Budgets on content are priced again, with the content that prices lead to, until no price moves by more than this.
SETTLED_PRICES = 0.005
MAX_ROUNDS = 8


@dataclass(frozen=True)
class PricedVotes:
    """Votes at N slots of one decision time, with what they use of C constraints.

    Attributes:
        values: Values of the first module's actions by voter (L, N, A).
        mask: Eligible actions of the first module (N, A).
        use: Expected use of each constraint by the first module's action (C, N, A).
        later: The policy's probabilities of the later modules (N, *shape(m)), given the channel.
        floor: Probability of a uniform draw in the first module.
    """

    values: npt.NDArray[np.float32]
    mask: BoolArray
    use: FloatArray
    later: tuple[FloatArray, ...]
    floor: float

    def arrays(self) -> dict[str, tuple[npt.NDArray[Any], int]]:
        """Return the arrays by name, each with the axis of its rows."""
        later = {f"later-{m}": (share, 0) for m, share in enumerate(self.later, 1)}
        return {"values": (self.values, 1), "mask": (self.mask, 0), "use": (self.use, 1), **later}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], floor: float) -> PricedVotes:
        """Return the votes of arrays by name."""
        first = {name: arrays[name] for name in ("values", "mask", "use")}
        return cls(**first, later=tuple(arrays[name] for name in arrays if name not in first), floor=floor)

    def probabilities(self, prices: Prices) -> list[FloatArray]:
        """Return the policy's exact probabilities at frozen prices, one array (N, *shape(m)) per module."""
        return [priced_shares(self.values, self.mask, self.use, prices, self.floor), *self.later]


def blocks(rows: int) -> list[slice]:
    """Return the blocks of rows whose votes are computed together."""
    return [slice(start, min(start + ROWS_PER_BLOCK, rows)) for start in range(0, rows, ROWS_PER_BLOCK)]


@dataclass(frozen=True)
class Voting:
    """How an agent's votes become those under constraints.

    Attributes:
        constraints: The constraints.
        message_price: What a message costs at later slots.
        explore: Whether the policy explores.
    """

    constraints: Constraints
    message_price: float = 0.0
    explore: bool = True

    def of_block(
        self, agent: PriceableAgent, observations: Observations, charged: FloatArray | None = None
    ) -> PricedVotes:
        """Return the votes of a block of slots.

        Args:
            agent: The agent.
            observations: What it sees at N slots.
            charged: What budgets charge for each action of all modules (sum of actions,); None for nothing.

        Raises:
            NoVotes: If the agent has not learned the hazard of a constraint's cost event.
        """
        if charged is not None:
            observations = replace(observations, action_prices=np.tile(charged, (len(observations), 1)))
        votes = votes_less_messages(agent, observations, self.message_price, explore=self.explore)
        if missing := [one.event for one in self.constraints.cost_events if one.event not in votes.cost_names]:
            raise NoVotes(
                f"the agent has not learned the hazard of {missing[0]!r}: rewards need a funnel in which it is one of "
                "the costs (`reward.funnel.costs`), and the agent enough messages"
            )
        return PricedVotes(
            values=votes.values,
            mask=votes.mask,
            use=use_of_votes(self.constraints, votes),
            later=votes.later,
            floor=votes.floor,
        )

    def in_memory(
        self, agent: PriceableAgent, observations: Observations, charged: FloatArray | None = None
    ) -> PricedVotes:
        """Return the votes of all slots of a decision time, block by block: see `of_block`."""
        whole: dict[str, npt.NDArray[Any]] = {}
        for rows in blocks(n := len(observations)):
            part = self.of_block(agent, observations[rows], charged)
            if rows == slice(0, n):
                return part
            for name, (array, axis) in part.arrays().items():
                if rows.start == 0:
                    whole[name] = np.empty((*array.shape[:axis], n, *array.shape[axis + 1 :]), dtype=array.dtype)
                whole[name][(slice(None),) * axis + (rows,)] = array
        return PricedVotes.from_arrays(whole, part.floor)


def find_prices(
    votes_at: Callable[[FloatArray | None], PricedVotes],
    constraints: Constraints,
    modules: ActionSpace,
    budgets: FloatArray,
    user_weeks: float,
    organic: Mapping[str, float],
) -> tuple[PricedVotes, Prices]:
    """Find the prices of one decision time; where content has a budget, price again with the content that follows.

    Args:
        votes_at: Returns the votes of all slots, given what budgets charge for each action of all modules.
        constraints: The constraints, at least one.
        modules: The action space.
        budgets: What each constraint allows (C,).
        user_weeks: Number of users who count for limits, times the weeks until the next decision time.
        organic: Cost events per user and week without a message, by name.

    Returns:
        The votes that were last asked for, and the prices for them.

    Raises:
        InfeasibleBudget: If the floor alone uses more than a budget.
    """
    before = np.zeros(len(budgets))
    votes = votes_at(None)
    for i in range(MAX_ROUNDS):
        try:
            prices = shadow_prices(votes.values, votes.mask, votes.use, budgets, votes.floor, constraints.names)
        except InfeasibleBudget as error:
            raise in_settings(error, constraints, user_weeks, organic) from None
        settled = np.abs(prices.prices - before) <= SETTLED_PRICES * np.maximum(prices.prices, before)
        last = settled.all() or i == MAX_ROUNDS - 1  # prices and use are those of the votes that are returned
        if last or not prices_later_modules(constraints, modules):
            break
        before = prices.prices
        votes = votes_at(action_prices(constraints, modules, before))
    return votes, prices


def use_of_votes(constraints: Constraints, votes: ChannelVotes) -> FloatArray:
    """Return the expected use of each constraint by action of the first module (C, N, A)."""
    hazards = dict(zip(votes.cost_names, votes.hazards, strict=True))
    return expected_use(constraints, votes.modules, hazards, [np.zeros(votes.mask.shape), *votes.later])


def votes_less_messages(
    agent: PriceableAgent, observations: Observations, message_price: float, *, explore: bool = True
) -> ChannelVotes:
    """Return the agent's votes less what a message costs at later slots."""
    votes = agent.votes(observations, explore=explore)
    if not message_price:
        return votes
    values = votes.values.copy()
    values[..., 1:] -= message_price
    return replace(votes, values=values)
