"""What the interaction ladder estimates, exactly, on a log that business as usual has written on the market."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.envs.market import BusinessAsUsual, Choice, Market, MarketState, MarketTruth, simulate_history
from crosschannel.envs.market.effects import check_dependencies, expected_effects
from crosschannel.envs.market.state import ROWS_PER_CHUNK
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

    def mixed(self, by_policy: Sequence[Collection[int]]) -> list[float]:
        """Return the values if the policy chooses the modules of each collection, and the log all others."""
        slots, market = self.truth.slots(self.rows), self.truth.market
        totals = np.zeros(len(by_policy))
        for start in range(0, len(slots), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            part = slots.take(rows)
            # What messages are worth is the same for all of them, and takes most of the time.
            opening, content = market.open_value(part), market.content_value(part)
            for k, modules in enumerate(by_policy):
                shares = [self.policy[m][rows] if m in modules else p[rows] for m, p in enumerate(self.logged)]
                given = [self.given[m] if m in modules else None for m in range(len(self.logged))]
                effects = expected_effects(opening, content, shares, check_dependencies(shares, given))
                totals[k] += self.weight[rows] @ effects
        return [float(total) for total in totals / self.weight.sum()]

    def by_name(self, names: Sequence[str], factors: Sequence[Sequence[int]]) -> dict[str, float]:
        """Return the exact mean of every estimate, by its name.

        Args:
            names: The modules' names.
            factors: The content modules that are drawn together, by factor.

        Returns:
            `logged`, `policy`, `order 0`, `order 1`, each module alone by its name, and each factor's step given the
            policy's channel as `step NAME+NAME`.
        """
        policies = [[], range(len(names)), [0], *([m] for m in range(1, len(names))), *([0, *f] for f in factors)]
        logged, policy, channel, *rest = self.mixed(policies)
        alone, joined = rest[: len(names) - 1], rest[len(names) - 1 :]
        steps = {f"step {'+'.join(names[m] for m in f)}": v - channel for f, v in zip(factors, joined, strict=True)}
        return {
            "logged": logged,
            "policy": policy,
            "order 0": channel,
            "order 1": channel + sum(steps.values()),
            names[0]: channel,
            **dict(zip(names[1:], alone, strict=True)),
            **steps,
        }
