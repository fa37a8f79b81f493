"""The interface of an agent: arrays in, actions with exact probabilities out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, Float32Array, FloatArray, IntArray, UIntArray
from crosschannel.core.errors import ConfigError


@dataclass(frozen=True)
class Observations:
    """What a policy sees of N decision slots.

    Attributes:
        context: Features (N, D) float32, known strictly before the slot.
        action_mask: Eligible actions (N, sum of actions) bool.
        users: Stable 64-bit hashes of the users' ids (N,), for agents that learn about each user; None where the users
            are unknown.
        action_prices: What budgets charge for each action in reward units (N, sum of actions), which the later modules
            weigh; the first module's choice is priced by `votes`. None without budgets.
    """

    context: Float32Array
    action_mask: BoolArray
    users: UIntArray | None = None
    action_prices: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, rows: Any) -> Observations:
        optional = (self.users, self.action_prices)
        return Observations(
            self.context[rows], self.action_mask[rows], *(None if part is None else part[rows] for part in optional)
        )


#: The components that have a value for each row.
ROW_COMPONENTS = ("engaged", "value", "cost", "odds")


@dataclass(frozen=True)
class Components:
    """The parts of N rewards along a funnel: who engaged, what that earned, what it cost.

    Attributes:
        engaged: 1 if the message was engaged with, 0 if not; NaN where that is not known or nothing was sent (N,).
        value: Incremental value without cost events (N,); NaN where it is not identified.
        cost: 1 if a cost event occurred, 0 if not; NaN where that was not observed (N, C).
        odds: Odds of a message against none, by the propensities, where nothing was sent (N,): decisions without a
            message that are weighted by them are like those with one. 1 where they are not known.
        cost_names: Names of the cost events (C).
        cost_weights: Their prices in reward units, above 0 (C,).
    """

    engaged: FloatArray
    value: FloatArray
    cost: FloatArray
    odds: FloatArray
    cost_names: tuple[str, ...]
    cost_weights: FloatArray

    def __len__(self) -> int:
        return len(self.value)

    def costs(self) -> dict[str, float]:
        """Return the price of each cost event."""
        return dict(zip(self.cost_names, map(float, self.cost_weights), strict=True))

    def __getitem__(self, rows: Any) -> Components:
        return replace(self, **{name: getattr(self, name)[rows] for name in ROW_COMPONENTS})


@dataclass(frozen=True)
class Decisions:
    """Chosen actions with their exact probabilities.

    Attributes:
        actions: Canonical codes (N, M) int64.
        probabilities: Probability of each module's choice given the earlier choices (N, M).
        joint: Probability of the whole action (N,): the product over modules.
    """

    actions: IntArray
    probabilities: FloatArray
    joint: FloatArray

    def __len__(self) -> int:
        return len(self.actions)

    def __getitem__(self, rows: Any) -> Decisions:
        return Decisions(self.actions[rows], self.probabilities[rows], self.joint[rows])


@dataclass(frozen=True)
class Batch:
    """Executed actions and what they earned, N rows.

    Attributes:
        observations: What was known at each slot.
        actions: Executed actions, canonical codes (N, M).
        rewards: Incremental rewards (N,), finite.
        se: Their standard errors (N,), 0 or more: 0 where the controls did not vary.
        keys: Stable 64-bit hashes of the decision ids (N,): signs of noise and held-out rows come from them.
        next_observations: What was known at each user's next slot, for agents that learn from later slots; its rows
            have no meaning where there is no next slot. None where it is not provided.
        steps_to_next: Number of slots from each decision to the next one (N,), 1 or more; NaN where there is none,
            because the user has churned (`terminal`) or the log ends, so that the next slot is unknown.
        terminal: Whether the user has churned after the decision, so that there is no next slot (N,).
        components: The rewards' parts along a funnel, for agents that learn them; None without a funnel.
    """

    observations: Observations
    actions: IntArray
    rewards: FloatArray
    se: FloatArray
    keys: UIntArray
    next_observations: Observations | None = None
    steps_to_next: FloatArray | None = None
    terminal: BoolArray | None = None
    components: Components | None = None

    def __len__(self) -> int:
        return len(self.actions)

    def __getitem__(self, rows: Any) -> Batch:
        return Batch(
            observations=self.observations[rows],
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            se=self.se[rows],
            keys=self.keys[rows],
            next_observations=None if self.next_observations is None else self.next_observations[rows],
            steps_to_next=None if self.steps_to_next is None else self.steps_to_next[rows],
            terminal=None if self.terminal is None else self.terminal[rows],
            components=None if self.components is None else self.components[rows],
        )


def join(batches: Sequence[Batch]) -> Batch:
    """Join all rows of batches that have the same optional parts, in order.

    Raises:
        ConfigError: If one batch has a part that another one lacks, or their components have other cost events.
    """
    first = batches[0]
    for f in fields(Batch):
        _check_all_or_none(f"`{f.name}`", [getattr(batch, f.name) for batch in batches])
    later = [batch.next_observations for batch in batches if batch.next_observations is not None]
    components = [batch.components for batch in batches if batch.components is not None]

    def column(name: str) -> Any:
        return None if getattr(first, name) is None else np.concatenate([getattr(batch, name) for batch in batches])

    return Batch(
        observations=_join_observations([batch.observations for batch in batches]),
        actions=column("actions"),
        rewards=column("rewards"),
        se=column("se"),
        keys=column("keys"),
        next_observations=_join_observations(later) if later else None,
        steps_to_next=column("steps_to_next"),
        terminal=column("terminal"),
        components=_join_components(components) if components else None,
    )


def _join_observations(parts: Sequence[Observations]) -> Observations:
    columns: dict[str, Any] = {}
    for f in fields(Observations):
        found = [getattr(part, f.name) for part in parts]
        _check_all_or_none(f"`observations.{f.name}`", found)
        columns[f.name] = None if found[0] is None else np.concatenate(found)
    return Observations(**columns)


def _join_components(parts: Sequence[Components]) -> Components:
    first = parts[0]
    if any(part.costs() != first.costs() for part in parts):
        raise ConfigError("all rows of an agent have the same cost events, with the same prices")
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ROW_COMPONENTS}
    return replace(first, **joined)


def _check_all_or_none(name: str, parts: Sequence[Any]) -> None:
    if len({part is None for part in parts}) > 1:
        raise ConfigError(f"some rows have {name} and others do not: give it with all rows of an agent, or with none")


DECIDES_ONLY = (
    "the agent was loaded from a policy file: it can make decisions, but it cannot learn or be saved as a checkpoint. "
    "Load its checkpoint instead"
)


@runtime_checkable
class Agent(Protocol):
    """A policy that learns. All methods take batches: one user is a batch of one."""

    modules: ActionSpace

    def act(self, observations: Observations, *, explore: bool = True) -> Decisions:
        """Choose one action for each slot; without `explore`, the best action by the mean estimate."""
        ...

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Return the exploring policy's exact probabilities, one array (N, *modules.shape(m)) per module.

        Entry m is conditional on the parent's choice that the action requires: it sums to 1 within each group of
        `modules.groups(m)` that has an eligible action, and is 0 elsewhere. Where module m is conditioned on an earlier
        module, every row of its table is such a distribution.
        """
        ...

    def observe(self, batch: Batch) -> None:
        """Record executed actions and their rewards."""
        ...

    def update(self, steps: int = 1) -> dict[str, float]:
        """Learn for some steps from the recorded rows; return scalars for the log."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that is needed to resume, as tensors and plain values."""
        ...

    def policy_state_dict(self) -> dict[str, Any]:
        """Return the part of the state that decisions need, without observed rows and all else that learning needs."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` or `policy_state_dict` returned; after the latter the agent may refuse to learn."""
        ...


@runtime_checkable
class ExtendableAgent(Agent, Protocol):
    """An agent that learns later rows in one pass over them: its estimates follow from sums over rows."""

    @property
    def extendable(self) -> bool:
        """Whether there is a fit to which rows can be added."""
        ...

    def extend(self, batch: Batch) -> None:
        """Add later rows to the last fit: all but the coefficients stays as it was fitted."""
        ...

    def fit_state_dict(self) -> dict[str, Any]:
        """Return the sums of the last fit, and all else that adding rows needs."""
        ...

    def load_fit_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `fit_state_dict` returned."""
        ...
