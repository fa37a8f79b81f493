"""What the interaction ladder estimates, exactly, on a log that business as usual has written on the market."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.envs.market import BusinessAsUsual, Choice, Market, MarketState, MarketTruth, simulate_history
from crosschannel.histories import History


@dataclass
class _Recorded:
    """Business as usual, keeping its probabilities at the slots of subscribed users, day by day."""

    policy: BusinessAsUsual
    name: str = "business_as_usual"
    users: list[IntArray] = field(default_factory=list)
    days: list[IntArray] = field(default_factory=list)
    probabilities: list[list[FloatArray]] = field(default_factory=list)

    def choose(self, market: Market, state: MarketState) -> Choice:
        """Choose as business as usual does."""
        rows = np.flatnonzero(state.subscribed)
        self.users.append(rows)
        self.days.append(state.day[rows])
        self.probabilities.append([p[rows] for p in self.policy.probabilities(market, state)])
        return self.policy.choose(market, state)


def history_with_probabilities(market: Market) -> tuple[History, MarketTruth, list[FloatArray]]:
    """Simulate business as usual; return its log, the truth, and its probabilities (n, A_m) of every module.

    Modules must not depend on each other, as they do in the scenario `templates`.
    """
    usual = BusinessAsUsual(market.scenario.rules)
    if any(given is not None for given in usual.given):
        raise ValueError("the log draws some modules together: the ladder's single modules have no values there")
    recorded = _Recorded(usual)
    history, truth = simulate_history(market, recorded)
    order = np.lexsort((np.concatenate(recorded.days), np.concatenate(recorded.users)))
    return history, truth, [np.concatenate(parts)[order] for parts in zip(*recorded.probabilities, strict=True)]


@dataclass(frozen=True)
class ExactValues:
    """Exact means of a policy's ladder over n decisions.

    Attributes:
        truth: The truth of the log's decisions.
        rows: The decisions that the means are over (n,).
        weight: How much each counts (n,).
        policy: The policy's probabilities there, one array (n, *modules.shape(m)) per module.
        logged: The log's, one array (n, A_m) per module.
        given: The earlier module on which each module of the policy is conditioned, or None.
    """

    truth: MarketTruth
    rows: IntArray
    weight: FloatArray
    policy: Sequence[FloatArray]
    logged: Sequence[FloatArray]
    given: Sequence[int | None]

    def mixed(self, by_policy: Collection[int]) -> float:
        """Return the value if the policy chooses these modules, and the log all others."""
        modules = range(len(self.policy))
        shares = [self.policy[m] if m in by_policy else self.logged[m] for m in modules]
        given = [self.given[m] if m in by_policy else None for m in modules]
        return float(np.average(self.truth.expected_effect(self.rows, shares, given), weights=self.weight))

    def by_name(self, names: Sequence[str], factors: Sequence[Sequence[int]]) -> dict[str, float]:
        """Return the exact mean of every estimate, by its name.

        Args:
            names: The modules' names.
            factors: The content modules that are drawn together, by factor.

        Returns:
            `logged`, `policy`, `order 0`, `order 1`, each module alone by its name, and each factor's step given the
            policy's channel as `step NAME+NAME`.
        """
        channel = self.mixed([0])
        steps = {"+".join(names[m] for m in f): self.mixed([0, *f]) - channel for f in factors}
        return {
            "logged": self.mixed([]),
            "policy": self.mixed(range(len(names))),
            "order 0": channel,
            "order 1": channel + sum(steps.values()),
            names[0]: channel,
            **{name: self.mixed([m]) for m, name in enumerate(names) if m > 0},
            **{f"step {name}": step for name, step in steps.items()},
        }
