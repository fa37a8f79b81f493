"""Mean effects of messages over a policy, given what one module chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from crosschannel.agents.funnel.values import Effects, Heads, Means, Products, value_of
from crosschannel.core.action_space import ActionSpace


class PolicyMeans:
    """Means over the policy of all other modules, for each cell of one.

    A module depends on at most one earlier one, its parent or its condition, so that the modules are trees. Given a
    module's choice, what depends on it is independent of everything else. The mean over a tree therefore follows from
    the means over its branches, and the covariance from the law of total covariance, with one pass over the cells.

    Args:
        modules: The present actions.
        effects: What they add up to.
        shares: Probabilities of each module's cells (cells, N), given what the module depends on.
        tested: 1 for the actions of the first module that tell who engages, otherwise 0 (A,).
        prices: What budgets charge for each module's actions (A_m, N) or (A_m, 1).
    """

    def __init__(
        self,
        modules: ActionSpace,
        effects: Effects,
        shares: Sequence[Tensor],
        tested: Tensor,
        prices: Sequence[Tensor],
    ) -> None:
        self._modules, self._effects, self._shares = modules, effects, shares
        self._tested, self._prices = tested, prices
        self._averages: dict[int, Means] = {}
        self._products: dict[int, Products] = {}

    def with_shares(self, shares: Mapping[int, Tensor]) -> PolicyMeans:
        """Return the means with other probabilities of some modules' cells (cells, N); those of the others stay."""
        every = [shares.get(k, each) for k, each in enumerate(self._shares)]
        found = PolicyMeans(self._modules, self._effects, every, self._tested, self._prices)
        changed = set[int]()
        for m in shares:
            above: int | None = m
            while above is not None:
                changed.add(above)
                above = _dependency(self._modules, above)
        found._averages = {k: each for k, each in self._averages.items() if k not in changed}
        found._products = self._products
        return found

    @property
    def shares(self) -> list[Tensor]:
        """Probabilities of each module's cells (cells, N)."""
        return list(self._shares)

    def of_cells(self, m: int) -> Means:
        """Return the mean effects of messages with each of module m's cells (..., cells, N)."""
        return self._below(m) + self._others(m).select(_required(self._modules, m))

    def values(self, heads: Heads, m: int, cost_prices: Tensor) -> Tensor:
        """Return the values (V, cells, N) of messages with each of module m's cells, less their prices."""
        total = self.of_cells(m)
        return value_of(heads, total, cost_prices, self._effects.mixing).sub_(total.price)

    def _below(self, m: int) -> Means:
        """Return the effects of module m's cells and of all modules that depend on them."""
        return self._own(m, [k for k in range(m + 1, len(self._modules)) if _dependency(self._modules, k) == m])

    def _own(self, m: int, branches: Sequence[int]) -> Means:
        """Return the effects of module m's cells and of some of the modules that depend on it."""
        tested = self._tested[:, None] if m == 0 else torch.zeros(1, 1)
        code, effects = _code(self._modules, m), self._effects
        price = self._prices[m]
        price = price if len(price) == len(code) else price[code]  # a module without a table has a cell for each action
        own = Means(
            linear=effects.linear_cells[m],
            logs=effects.log_cells[m],
            together=torch.zeros(1, 1, 1),
            tested=tested,
            price=price,
        )
        return reduce(Means.__add__, (self._average(k).select(code) for k in branches), own)

    def _average(self, k: int) -> Means:
        """Return the mean of what module k and those below it add (..., codes, N), by what module k depends on."""
        if k not in self._averages:
            required, codes = _required(self._modules, k), _choices(self._modules, k)
            groups = [(required == code).nonzero()[:, 0] for code in range(codes)] if codes > 1 else [required]
            below = self._below(k)
            self._averages[k] = below.average(
                self._shares[k], groups, self._effects.mixing, self._products_of(k, below)
            )
        return self._averages[k]

    def _products_of(self, k: int, below: Means) -> Products:
        """Return the products of module k's cells; those of a module on which none depends rest on no policy."""
        if any(_dependency(self._modules, branch) == k for branch in range(k + 1, len(self._modules))):
            return below.products(self._effects.mixing)
        if k not in self._products:
            self._products[k] = below.products(self._effects.mixing)
        return self._products[k]

    def _others(self, m: int) -> Means:
        """Return the mean of all but module m and those below it (..., codes, N), by what module m depends on."""
        modules, depends = self._modules, _dependency(self._modules, m)
        siblings = [k for k in range(len(modules)) if k != m and _dependency(modules, k) == depends]
        if depends is None:
            nothing = torch.zeros(1, 1)
            start = Means(
                linear=self._effects.linear,
                logs=self._effects.logs,
                together=torch.zeros(1, 1, 1),
                tested=nothing,
                price=nothing,
            )
            return reduce(Means.__add__, (self._average(k) for k in siblings), start)
        found = self._own(depends, siblings) + self._others(depends).select(_required(modules, depends))
        if modules.condition(depends) is None:
            return found
        codes = _code(modules, depends)
        groups = [(codes == code).nonzero()[:, 0] for code in range(modules.sizes[depends])]
        return found.average(self._rows_given_code(depends), groups, self._effects.mixing)

    def _rows_given_code(self, m: int) -> Tensor:
        """Return the probability of each of module m's rows (cells, N) given its code: of rows alone at share 0."""
        size = self._modules.sizes[m]
        rows = self._marginal(_dependency(self._modules, m)).unsqueeze(1)
        joint = rows * self._shares[m].view(-1, size, self._shares[m].shape[1])
        total = joint.sum(0)
        return torch.where(total > 0.0, joint / total.clamp_min(1e-30), rows.expand_as(joint)).flatten(0, 1)

    def _marginal(self, m: int | None) -> Tensor:
        """Return the probability of each of module m's actions (A, N)."""
        assert m is not None  # only of modules on which another depends
        depends, found = _dependency(self._modules, m), self._shares[m]
        if depends is not None:
            found = found * self._marginal(depends)[_required(self._modules, m)]
        table = self._modules.condition(m) is not None
        return found.view(-1, self._modules.sizes[m], found.shape[1]).sum(0) if table else found


def _dependency(modules: ActionSpace, m: int) -> int | None:
    """Return the module that module m depends on, as its parent or its condition."""
    parent = modules.parent(m)
    return parent[0] if parent is not None else modules.condition(m)


def _choices(modules: ActionSpace, m: int) -> int:
    """Return how many actions the module has that module m depends on; 1 if it depends on none."""
    depends = _dependency(modules, m)
    return 1 if depends is None else modules.sizes[depends]


def _required(modules: ActionSpace, m: int) -> Tensor:
    """Return for each of module m's cells the action of the module that it depends on (cells,); 0 if on none."""
    parent = modules.parent(m)
    if parent is not None:
        return torch.from_numpy(parent[1])
    row = torch.arange(modules.n_table_cells(m) // modules.sizes[m])
    return row.repeat_interleave(modules.sizes[m])


def _code(modules: ActionSpace, m: int) -> Tensor:
    """Return module m's action of each of its cells (cells,)."""
    return torch.arange(modules.n_table_cells(m)) % modules.sizes[m]
