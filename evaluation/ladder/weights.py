"""Weights of the interaction ladder: elementary symmetric polynomials of the factors' relative changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError, Fault, InputError
from crosschannel.evaluation.logged_decisions import LoggedDecisions

SOURCE = "ladder weights"


def elementary_symmetric(delta: FloatArray) -> FloatArray:
    r"""Return the elementary symmetric polynomials :math:`e_0 .. e_F` of each row of `delta` (n, F), as (F + 1, n).

    The recursion is :math:`E_k \leftarrow E_k + E_{k-1} \delta_f` over the factors f.
    """
    n, count = delta.shape
    out = np.zeros((count + 1, n))
    out[0] = 1.0
    for f in range(count):
        out[1 : f + 2] += out[: f + 1] * delta[:, f]
    return out


@dataclass(frozen=True)
class LadderWeights:
    r"""What a policy changes at n logged decisions: the channel, and each factor of the content given the channel.

    Attributes:
        channel: :math:`w_c = \pi(c|x) / \mu(c|x)` of the logged channel, sending nothing included, (n,).
        delta: :math:`\delta_f = \pi_f(a_f|x, c) / \mu_f(a_f|x, c) - 1` of each factor (n, F); 0 where nothing is sent.

    Raises:
        InputError: If shapes differ, an entry is not finite, a channel's weight is negative or a change is below -1.
    """

    channel: FloatArray
    delta: FloatArray

    def __post_init__(self) -> None:
        if self.delta.ndim != 2 or self.channel.shape != (len(self.delta),):
            problem = f"the shapes {self.channel.shape} and {self.delta.shape} are not (n,) and (n, factors)"
            raise InputError([Fault(SOURCE, problem, "Pass one row for each decision.", column="channel, delta")])
        rows = np.column_stack([self.channel, self.delta])
        for wrong, problem in (
            (~np.isfinite(rows).all(1), "is not finite"),
            ((self.channel < 0) | (self.delta < -1 - 1e-12).any(1), "is a negative probability ratio"),
        ):
            if wrong.any():
                row = int(wrong.argmax())
                raise InputError(
                    [
                        Fault(
                            file=SOURCE,
                            problem=problem,
                            remedy="Ratios of probabilities are 0 or more; leave out decisions without a propensity.",
                            column="channel, delta",
                            row=row + 1,
                            value=rows[row].tolist(),
                            count=int(wrong.sum()),
                        )
                    ]
                )

    @property
    def factors(self) -> int:
        """The number of factors F, which is the highest order."""
        return int(self.delta.shape[1])

    @cached_property
    def interactions(self) -> FloatArray:
        r"""The weights :math:`w_c e_k(\delta)` of the interactions of exactly k factors, (F + 1, n)."""
        return self.channel * elementary_symmetric(self.delta)

    @cached_property
    def orders(self) -> FloatArray:
        r"""The weights :math:`W_k = w_c \sum_{j \le k} e_j(\delta)` of every order 0 to F, (F + 1, n).

        Each has mean 1 where the log supports the policy. Order F is the importance weight of the whole action; those
        below may be negative.
        """
        return np.cumsum(self.interactions, axis=0)

    def of_order(self, order: int) -> FloatArray:
        """Return the weights (n,) of one order.

        Raises:
            ConfigError: If there is no such order.
        """
        if not 0 <= order <= self.factors:
            raise ConfigError(f"there is no order {order}: {self.factors} factors have the orders 0 to {self.factors}")
        return np.asarray(self.orders[order])

    def part(self, factors: Sequence[int]) -> FloatArray:
        r"""Return the weights :math:`w_c \prod_f \delta_f` (n,) of the interaction of some factors, or of one alone."""
        return np.asarray(self.channel * self.delta[:, list(factors)].prod(1))


def ladder_weights(
    log: LoggedDecisions, probabilities: Sequence[FloatArray], factors: Sequence[Sequence[int]]
) -> LadderWeights:
    r"""Return the weights of a policy on a log whose content modules are divided into factors.

    A factor's logged probability is the product of its modules' propensities. These are given the earlier modules, so
    that the product is the factor's own probability given the context and the channel only where no module of another
    factor changes it: that is what `find_factors` establishes. Where all modules are one factor it is the logged
    probability of the whole action over that of the channel, so that order 1 is IPS or DR.

    Args:
        log: Decisions with a propensity of every module, or, where there is one factor, of the channel and jointly.
        probabilities: The policy's, one array (n, *modules.shape(m)) per module.
        factors: The indices of the content modules (1 to M - 1) in each factor.

    Raises:
        ConfigError: If the factors do not divide the content modules, or separate modules that a policy chooses
            together.
        InputError: If a propensity is missing.
    """
    check_partition(log, factors)
    sent = log.modules.sends(log.actions)
    taken = log.modules.chosen_probabilities(probabilities, log.actions)
    channel = taken[:, 0] / log.propensity[:, 0]
    if len(factors) == 1:
        logged = np.where(np.isnan(log.joint), log.propensity.prod(1), log.joint) / log.propensity[:, 0]
        ratios = [taken[:, 1:].prod(1) / logged]
    else:
        ratios = [(taken[:, list(f)] / log.propensity[:, list(f)]).prod(1) for f in factors]
    delta = np.stack(ratios, axis=1) - 1.0 if ratios else np.zeros((len(log), 0))
    delta[~sent] = 0.0
    return LadderWeights(channel=channel, delta=delta)


def check_partition(log: LoggedDecisions, factors: Sequence[Sequence[int]]) -> None:
    """Refuse factors that are not a partition of the content modules, or that separate a module from its parent.

    Raises:
        ConfigError: If they are.
    """
    modules = log.modules
    if sorted(m for f in factors for m in f) != list(range(1, len(modules))):
        raise ConfigError(
            f"the factors {[list(f) for f in factors]} do not name each of the modules 1 to {len(modules) - 1} once"
        )
    factor_of = {m: f for f, members in enumerate(factors) for m in members}
    for m in range(1, len(modules)):
        parent = modules.parent(m)
        earlier = modules.condition(m) if parent is None else parent[0]
        if earlier and factor_of[earlier] != factor_of[m]:
            raise ConfigError(
                f"the modules {modules.names[earlier]!r} and {modules.names[m]!r} are in different factors, but the "
                "second depends on the first: put them into one"
            )
