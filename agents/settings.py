"""Settings of the built-in agents: typed, checked when they are built, and free of heavy imports.

The command line shows and checks these classes before it reads any data, so this module must not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crosschannel.core.errors import ConfigError

Floor = float | Mapping[str, float]

DEFAULT_FLOOR = 0.02
DEFAULT_MIXTURES = 64
MAX_MEMBERS = 64  # the signs of a row's noise are the bits of one 64-bit hash
#: PyTorch ends the process, or writes beyond its memory, where sizes overflow.
MAX_LAYERS, MAX_UNITS, MAX_COUNT = 32, 65_536, 2**40
MAX_WARM_FACTOR = 16


@dataclass(frozen=True)
class NoSettings:
    """Settings of `uniform`, `logging` and `no_send`: there are none."""


@dataclass(frozen=True)
class EnsembleThompsonSettings:
    """Settings of `ensemble_thompson`.

    Attributes:
        members: Ensemble members per module (K), 1 to 64.
        mixtures: Fixed linear combinations of the members that vote (L), an even number: the more, the finer the
            probabilities. If it is less than 2 K, there are 2 K, the fewest that have the members' covariance; with 0
            the members themselves vote. docs/agents.md shows how the default was chosen.
        exploration_scale: Scale of the members' deviations from the mean when sampling; 1 is standard Thompson
            sampling, 0 is greedy. docs/agents.md shows how the default was chosen.
        floor: Probability of a uniform draw from the eligible actions. It keeps support in every log: one number for
            all modules, or a mapping from module names to numbers.
        hidden: Units of each hidden layer of the network. A module's members share it.
        effect_scale: Prior standard deviation of an action's effect, in standard deviations of the reward. It matters
            while there are few rows; later the agent learns the scales from the data.
        learning_rate: Learning rate of Adam for the network.
        weight_decay: Decoupled weight decay of the network.
        batch_size: Rows per gradient step.
        warm_rows: Rows below which `update` makes more gradient steps. In proportion, up to 16 times as many as
            requested.
        growth: Share of new rows at which the features are frozen again. The agent then refits all heads.
        precision_cap: Largest weight of a row by its precision 1/se^2. It is a multiple of the weight at the median.
        half_life: Later rows after which a row counts half; 0 never discounts. If it is null, each module chooses it by
            the prediction of newer rows, and discounts only where rewards clearly drift.
        capacity: Number of most recent rows to keep.
    """

    members: int = 10
    mixtures: int = DEFAULT_MIXTURES
    exploration_scale: float = 0.25
    floor: Floor = DEFAULT_FLOOR
    hidden: tuple[int, ...] = (128,)
    effect_scale: float = 0.1
    learning_rate: float = 6e-3
    weight_decay: float = 1.0
    batch_size: int = 512
    warm_rows: int = 80_000
    growth: float = 0.25
    precision_cap: float = 4.0
    half_life: float | None = None
    capacity: int = 2_000_000

    def __post_init__(self) -> None:
        _check_at_least_one(self, "members", "batch_size", "capacity")
        _check_members(self.members)
        _check_mixtures(self.mixtures)
        _check_hidden(self.hidden)
        _check_positive(self, "effect_scale", "learning_rate", "precision_cap", "growth")
        _check_not_negative(self, "weight_decay", "warm_rows")
        if self.half_life is not None:
            _check_not_negative(self, "half_life")
        _check(self, lambda value: 0.0 <= value <= 1.0, "between 0 and 1", "exploration_scale")
        check_floor(self.floor)


@dataclass(frozen=True)
class BestFixedSettings:
    """Settings of `best_fixed`, which all linear agents share.

    Attributes:
        effect_scale: Prior standard deviation of an action's effect, in standard deviations of the reward. It is the
            starting point: the agent learns the scale from the data.
        precision_cap: Largest weight of a row by its precision 1/se^2, as a multiple of the weight at the median of
            the first rows.
        half_life: Number of later rows after which a row counts half; infinity (`.inf`) never discounts.
        floor: Probability of a uniform draw from the eligible actions: one number for all modules, or a mapping from
            module names to numbers.
    """

    effect_scale: float = 0.1
    precision_cap: float = 4.0
    half_life: float = math.inf
    floor: Floor = DEFAULT_FLOOR

    def __post_init__(self) -> None:
        _check_positive(self, "effect_scale", "precision_cap", "half_life")
        check_floor(self.floor)


@dataclass(frozen=True)
class EpsilonGreedySettings(BestFixedSettings):
    """Settings of `epsilon_greedy`: those of `best_fixed`, with a higher floor.

    Attributes:
        floor: Epsilon, the probability of a uniform draw from the eligible actions: one number for all modules, or a
            mapping from module names to numbers.
    """

    floor: Floor = 0.1


@dataclass(frozen=True)
class LinearThompsonSettings(BestFixedSettings):
    """Settings of `linear_thompson`: those of `best_fixed`, and three more.

    Attributes:
        draws: Posterior draws (K).
        mixtures: Fixed linear combinations of the draws that vote (L), an even number: the more, the finer the
            probabilities. If it is less than 2 K, there are 2 K; with 0 the draws themselves vote.
        exploration_scale: Scale of the draws' deviations from the posterior mean when sampling; 1 is standard Thompson
            sampling, 0 is greedy.
    """

    draws: int = 20
    mixtures: int = DEFAULT_MIXTURES
    exploration_scale: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_one(self, "draws")
        _check_mixtures(self.mixtures)
        _check_not_negative(self, "exploration_scale")


@dataclass(frozen=True)
class NeuralLinearSettings:
    """Settings of `neural_linear`.

    Attributes:
        draws: Posterior draws (K).
        mixtures: Fixed linear combinations of the draws that vote (L), an even number: the more, the finer the
            probabilities. If it is less than 2 K, there are 2 K; with 0 the draws themselves vote.
        exploration_scale: Scale of the draws' deviations from the posterior mean when sampling; 1 is standard Thompson
            sampling, 0 is greedy.
        hidden: Units of each hidden layer; the regression sees the last one, beside an intercept and the context.
        learning_rate: Learning rate of Adam.
        weight_decay: Decoupled weight decay of the network.
        batch_size: Rows per gradient step.
        effect_scale: Prior standard deviation of an action's effect, in standard deviations of the reward. It is the
            starting point: the agent learns the scale from the data.
        precision_cap: Largest weight of a row by its precision 1/se^2, as a multiple of the weight at the median.
        floor: Probability of a uniform draw from the eligible actions: one number for all modules, or a mapping from
            module names to numbers.
        capacity: Number of most recent rows to keep: a sliding window, for rewards that drift.
    """

    draws: int = 20
    mixtures: int = DEFAULT_MIXTURES
    exploration_scale: float = 0.5
    hidden: tuple[int, ...] = (64, 32)
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    batch_size: int = 256
    effect_scale: float = 0.1
    precision_cap: float = 4.0
    floor: Floor = DEFAULT_FLOOR
    capacity: int = 2_000_000

    def __post_init__(self) -> None:
        _check_at_least_one(self, "draws", "batch_size", "capacity")
        _check_mixtures(self.mixtures)
        _check_hidden(self.hidden)
        _check_positive(self, "learning_rate", "effect_scale", "precision_cap")
        _check_not_negative(self, "exploration_scale", "weight_decay")
        check_floor(self.floor)


@dataclass(frozen=True)
class BetaThompsonSettings:
    """Settings of `beta_thompson`.

    Attributes:
        strength: Weight of the pooled prior of all users in each user's estimate, in observations.
        pooled_strength: Weight of the prior of no effect in each action's pooled estimate, in observations.
        half_life: Number of later rows (of all users) after which a row counts half; infinity (`.inf`) never discounts.
        precision_cap: Largest weight of a row by its precision 1/se^2, as a multiple of the weight at the median of
            the first rows.
        floor: Probability of a uniform draw from the eligible actions: one number for all modules, or a mapping from
            module names to numbers.
    """

    strength: float = 20.0
    pooled_strength: float = 20.0
    half_life: float = math.inf
    precision_cap: float = 4.0
    floor: Floor = DEFAULT_FLOOR

    def __post_init__(self) -> None:
        _check_positive(self, "strength", "pooled_strength", "half_life", "precision_cap")
        check_floor(self.floor)


@dataclass(frozen=True)
class BootstrappedQSettings:
    """Settings of `bootstrapped_q`.

    Attributes:
        discount: Weight of a reward one slot later (gamma), at least 0 and below 1; 0 ignores all later slots.
        members: Ensemble members (K), 1 to 64.
        mixtures: Fixed linear combinations of the members that vote (L), an even number: the more, the finer the
            probabilities. If it is less than 2 K, there are 2 K; with 0 the members themselves vote.
        units: Random features beside the context.
        sweeps: Iterations of fitted Q per fit; each fit starts from the result of the previous one.
        exploration_scale: Scale of the members' deviations from the best estimate when sampling; 1 is standard
            Thompson sampling, 0 is greedy.
        effect_scale: Prior standard deviation of an action's effect, in standard deviations of the reward. It is the
            starting point: the agent learns the scale from the data.
        precision_cap: Largest weight of a row by its precision 1/se^2, as a multiple of the weight at the median of
            the first rows.
        floor: Probability of a uniform draw from the eligible actions: one number for all modules, or a mapping from
            module names to numbers.
    """

    discount: float = 0.9
    members: int = 10
    mixtures: int = DEFAULT_MIXTURES
    units: int = 0
    sweeps: int = 10
    exploration_scale: float = 0.25
    effect_scale: float = 0.1
    precision_cap: float = 4.0
    floor: Floor = DEFAULT_FLOOR

    def __post_init__(self) -> None:
        _check_at_least_one(self, "members", "sweeps")
        _check_members(self.members)
        _check_mixtures(self.mixtures)
        _check(self, lambda value: 0.0 <= value < 1.0, "at least 0 and below 1", "discount")
        _check_not_negative(self, "units", "exploration_scale")
        _check_positive(self, "effect_scale", "precision_cap")
        check_floor(self.floor)


def check_floor(floor: Floor) -> None:
    """Refuse a floor that is not a probability.

    Raises:
        ConfigError: If a share is not between 0 and 1.
    """
    for share in floor.values() if isinstance(floor, Mapping) else [floor]:
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"floor is {share}: it must be between 0 and 1")


def _check(settings: object, allowed: Callable[[Any], bool], expected: str, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not allowed(value):
            raise ConfigError(f"{name} is {value}: it must be {expected}")


def _check_at_least_one(settings: object, *names: str) -> None:
    _check(settings, lambda value: 1 <= value <= MAX_COUNT, f"at least 1, and at most {MAX_COUNT:,}", *names)


def _check_positive(settings: object, *names: str) -> None:
    _check(settings, lambda value: value > 0, "positive", *names)


def _check_not_negative(settings: object, *names: str) -> None:
    _check(settings, lambda value: value >= 0, "0 or more", *names)


def _check_members(members: int) -> None:
    if members > MAX_MEMBERS:
        raise ConfigError(f"members is {members}: it must be at most {MAX_MEMBERS}, the number of bits of a hash")


def _check_mixtures(mixtures: int) -> None:
    if not (0 <= mixtures <= MAX_COUNT and mixtures % 2 == 0):
        raise ConfigError(f"mixtures is {mixtures}: it must be even, and at most {MAX_COUNT:,}; with 0 none are made")


def _check_hidden(hidden: tuple[int, ...]) -> None:
    if not hidden or min(hidden) < 1:
        raise ConfigError(f"hidden is {list(hidden)}: give at least one layer, each of at least 1 unit")
    if len(hidden) > MAX_LAYERS or max(hidden) > MAX_UNITS:
        raise ConfigError(f"hidden is {list(hidden)}: give at most {MAX_LAYERS} layers of {MAX_UNITS:,} units")
