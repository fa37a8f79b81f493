"""Decision times with users, votes and budgets, and their policies computed from the definition."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from crosschannel.agents import Prices, shadow_prices
from crosschannel.agents.constraints.contested import FloatingArray
from crosschannel.core.arrays import BoolArray, FloatArray


@dataclass(frozen=True)
class DecisionTime:
    """Arguments of `shadow_prices`."""

    values: FloatingArray
    mask: BoolArray
    use: FloatingArray
    budgets: FloatArray
    floor: float = 0.0

    def solve(self) -> Prices:
        return shadow_prices(self.values, self.mask, self.use, self.budgets, self.floor)

    def unpriced(self) -> FloatArray:
        """What the votes alone use without prices (C,)."""
        none = np.zeros(len(self.use))
        return np.asarray(np.einsum("na,cna->c", self.vote_shares(none), self.use))

    def with_budgets(self, shares: float | list[float]) -> DecisionTime:
        """The same with budgets as shares of what votes without prices use."""
        return replace(self, budgets=self.unpriced() * shares)

    def vote_shares(self, prices: FloatArray) -> FloatArray:
        """Each action's share of the votes (N, A), by the definition."""
        net = self.values - np.einsum("c,cna->na", prices, self.use)
        best = np.where(self.mask, net, -np.inf).argmax(-1)
        return np.asarray((best[..., None] == np.arange(self.mask.shape[1])).mean(0))

    def policy(self, prices: Prices) -> FloatArray:
        """The policy (N, A), by the definition."""
        votes = sum(share * self.vote_shares(at) for at, share in zip(prices.mixture, prices.shares, strict=True))
        return np.asarray((1 - self.floor) * votes + self.floor * self.mask / self.mask.sum(1, keepdims=True))

    def bound(self, prices: FloatArray) -> float:
        """The dual at prices (C,): by weak duality, no votes gain more within the budgets."""
        net = self.values - np.einsum("c,cna->na", prices, self.use)
        nothing = self.use_of(np.arange(self.mask.shape[1]) == np.zeros((len(self.mask), 1)))
        uniform = self.use_of(self.mask / self.mask.sum(1, keepdims=True)) - nothing
        best = np.where(self.mask, net - net[..., :1], -np.inf).max(-1).sum() / len(self.values)
        return float((1 - self.floor) * best + prices @ (self.budgets - nothing - self.floor * uniform))

    def use_of(self, policy: FloatArray) -> FloatArray:
        """Expected use (C,) of a policy (N, A)."""
        return np.asarray(np.einsum("na,cna->c", policy, self.use))

    def gain_of(self, policy: FloatArray) -> float:
        """Value of a policy (N, A) for the first vote, beyond that of sending nothing."""
        beyond = np.where(self.mask, self.values[0] - self.values[0][:, :1], 0.0)
        return float((policy * beyond).sum())


def decision_time(
    seed: int = 0,
    *,
    votes: int = 1,
    users: int = 500,
    actions: int = 6,
    budgets: int = 2,
    shares: float | list[float] = 0.5,
    floor: float = 0.0,
    kinds: int | None = None,
) -> DecisionTime:
    """Random values, eligibility and uses; `kinds` is the number of different users."""
    rng = np.random.default_rng(seed)
    n = kinds or users
    values = rng.standard_normal((1, n, actions)) + 0.5 * rng.standard_normal((votes, n, actions))
    values[..., 0] = 0.0
    mask = rng.random((n, actions)) < 0.8
    mask[:, 0] = True
    use = rng.random((budgets, n, actions))
    use[..., 0] = 0.0
    kind = np.arange(users) % n
    time = DecisionTime(values[:, kind], mask[kind], use[:, kind], np.zeros(budgets), floor)
    return time.with_budgets(shares)


def best_gain(time: DecisionTime) -> float:
    """The largest gain within the budgets of one vote without a floor, by SciPy's HiGHS: to 1e-7 per user."""
    users, actions = time.mask.shape
    solution = linprog(
        -np.where(time.mask, time.values[0], 0.0).ravel(),
        A_ub=sparse.csr_matrix(time.use.reshape(len(time.use), -1)),
        b_ub=time.budgets,
        A_eq=sparse.kron(sparse.eye(users), np.ones((1, actions))),
        b_eq=np.ones(users),
        bounds=np.stack([np.zeros(users * actions), time.mask.ravel()], axis=1),
        method="highs",
    )
    assert solution.status == 0, solution.message
    return float(-solution.fun - time.values[0, :, 0].sum())
