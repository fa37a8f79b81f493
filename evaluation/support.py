"""How well a log supports a policy: effective sample sizes, kurtosis of the rewards, mass without support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.evaluation.logged_decisions import LoggedDecisions
from crosschannel.evaluation.weights import effective_sample_size, has_choice

MAX_CELLS_IN_ALL = 200_000_000
#: Decisions whose mass is computed at once, so that it stays in the cache.
MASS_ROWS_PER_CHUNK = 256


@dataclass(frozen=True)
class Support:
    r"""How well a log supports a policy, over the decisions at which the estimand's choice is made.

    Attributes:
        decisions: Number of these decisions.
        ess: Effective sample size :math:`(\sum w)^2 / \sum w^2`: as many equally weighted decisions are as precise.
            So it is where some weights of the ladder are negative: :math:`(\sum |w|)^2` would count what cancels.
        ess_users: The same over users, each with the sum of its weights. Carter, Schnepel & Steigerwald (2017),
            "Asymptotic behavior of a t-test robust to cluster heterogeneity", Review of Economics and Statistics.
        kurtosis: Kurtosis of the rewards: 3 if normal, about 1/p if a share p of them is 1 and the others are 0.
        kurtosis_users: The same over users, each with the sum of its rewards' deviations from the mean.
        largest_weight: Largest importance weight, in absolute value (those of the ladder may be negative).
        mean_weight: Mean importance weight: 1 with full support and right propensities. One minus it estimates the
            policy's mass where the log has no support.
        mean_weight_se: User-clustered standard error of the mean weight.
        unsupported_mass: Share of the policy's mass on actions that are ineligible or that the log never takes.
    """

    decisions: int
    ess: float
    ess_users: float
    kurtosis: float
    kurtosis_users: float
    largest_weight: float
    mean_weight: float
    mean_weight_se: float
    unsupported_mass: float

    @classmethod
    def overall(
        cls, weights: FloatArray, counts: FloatArray, rewards: FloatArray, user: IntArray, unsupported_mass: float
    ) -> Support:
        """Compute the diagnostics over all decisions, each of which counts `counts` (n,) times: see `from_weights`."""
        everywhere = np.ones(len(weights), dtype=bool)
        return cls.from_weights(weights * counts / counts.mean(), rewards, user, everywhere, unsupported_mass)

    @classmethod
    def from_weights(
        cls, weights: FloatArray, rewards: FloatArray, user: IntArray, chosen: BoolArray, unsupported_mass: float
    ) -> Support:
        """Compute the diagnostics of weights (n,) and rewards (n,) of users (n,) over the chosen decisions (n,).

        All but `decisions` and `unsupported_mass` are NaN if a weight is.
        """
        w = weights[chosen]
        if len(w) == 0 or np.isnan(w).any():
            ess = np.nan if len(w) else 0.0
            return cls(
                decisions=len(w),
                ess=ess,
                ess_users=ess,
                kurtosis=np.nan,
                kurtosis_users=np.nan,
                largest_weight=np.nan,
                mean_weight=np.nan,
                mean_weight_se=np.nan,
                unsupported_mass=unsupported_mass,
            )
        deviations = rewards[chosen] - rewards[chosen].mean()
        _, code = np.unique(user[chosen], return_inverse=True)
        user_weights = np.bincount(code, weights=w).astype(np.float64)
        mean = float(w.mean())
        se = float(np.sqrt(((user_weights - mean * np.bincount(code)) ** 2).sum()) / len(w))
        return cls(
            decisions=len(w),
            ess=effective_sample_size(w),
            ess_users=effective_sample_size(user_weights),
            kurtosis=kurtosis(deviations),
            kurtosis_users=kurtosis(np.bincount(code, weights=deviations).astype(np.float64)),
            largest_weight=float(np.abs(w).max()),
            mean_weight=mean,
            mean_weight_se=se,
            unsupported_mass=unsupported_mass,
        )


def kurtosis(deviations: FloatArray) -> float:
    r"""Return the kurtosis :math:`n \sum d^2 d^2 / (\sum d^2)^2` of deviations (n,) from their mean.

    It is n where all are 0, as if a single one were not: n decisions without an event do not show that events are
    impossible.
    """
    square = deviations**2
    total = float(square.sum())
    return len(square) * float(square @ square) / total**2 if total > 0 else float(len(square))


def required_ess(minimum: float, kurtosis: float) -> float:
    r"""Return the effective sample size that is required for rewards of this kurtosis.

    .. math:: \text{minimum} \cdot \max(1, \kappa / 3)

    The variance of n values is estimated as imprecisely as that of 3n / kappa normal ones, since its relative error is
    about :math:`\sqrt{(\kappa - 1) / n}`: of 1,000 decisions with 20 sales, 20 count. Cochran (1977), "Sampling
    techniques", section 2.15, requires more data where values are skewed in the same manner.
    """
    return minimum * max(1.0, kurtosis / 3)


def distinct_actions(modules: ActionSpace, actions: IntArray) -> tuple[IntArray, IntArray]:
    """Return the distinct rows of canonical actions (n, M), and the index of each row's among them (n,)."""
    if np.prod([float(size) for size in modules.sizes]) >= 2**62:
        rows, inverse = np.unique(actions, axis=0, return_inverse=True)
        return rows, inverse.reshape(-1)
    flat, inverse = np.unique(np.ravel_multi_index(tuple(actions.T), modules.sizes), return_inverse=True)
    return np.stack(np.unravel_index(flat, modules.sizes), axis=1).astype(np.int64), inverse


def unsupported_mass(log: LoggedDecisions, probabilities: Sequence[FloatArray], m: int | None) -> float:
    """Return the share of a policy's mass on actions that are ineligible or that the log never takes, in [0, 1].

    For module m it is the mass of its choice given the log's earlier choices, over the decisions at which it makes one.
    For the whole action it is computed from evenly spaced decisions, at most as many as keep decisions times distinct
    actions below `MAX_CELLS_IN_ALL`.
    """
    if m is not None:
        chosen = has_choice(log, m)
        if not chosen.any():
            return 1.0
        taken = np.zeros(log.modules.sizes[m], dtype=bool)
        taken[log.actions[chosen, m]] = True
        possible = log.modules.conditional(m, probabilities[m][chosen], log.actions[chosen]) * taken
        if log.eligible is not None:
            possible = possible * log.eligible[chosen, log.modules.slices[m]]
        return _one_minus_mean(possible.sum(1))
    taken_actions, _ = distinct_actions(log.modules, log.actions)
    n = min(len(log), MAX_CELLS_IN_ALL // len(taken_actions) + 1)
    rows = np.unique(np.linspace(0, len(log) - 1, n).astype(np.int64))
    eligible_p = [p[rows] for p in probabilities]
    if log.eligible is not None:
        masks = log.modules.split(log.eligible[rows])
        eligible_p = [
            p * mask.reshape(len(rows), *[1] * (p.ndim - 2), -1) for p, mask in zip(eligible_p, masks, strict=True)
        ]
    return _one_minus_mean(total_probability(log.modules, eligible_p, taken_actions))


def total_probability(modules: ActionSpace, probabilities: Sequence[FloatArray], actions: IntArray) -> FloatArray:
    """Return the summed probability (N,) of some distinct actions.

    Actions with the same first choices share the product of their probabilities: from the last module to the first, the
    probabilities of what follows a choice are added up before they are multiplied by that of the choice.

    Args:
        modules: The modules.
        probabilities: The policy's, one array (N, *modules.shape(m)) per module.
        actions: Canonical and distinct, sorted by their codes (J, M).
    """
    sent, last = actions[modules.sends(actions)], len(modules) - 1
    out = np.zeros(len(probabilities[0])) if len(sent) == len(actions) else probabilities[0][:, 0].astype(np.float64)
    if not len(sent):
        return out
    differs = np.cumsum(sent[1:] != sent[:-1], axis=1) > 0
    # Where each distinct row of the first m choices begins; for m = 0 there is a single one.
    begins = [np.zeros(1, dtype=np.int64), *(np.flatnonzero(np.append(True, column)) for column in differs.T)]
    ends = np.zeros((len(begins[last]), modules.n_table_cells(last)))
    place = np.searchsorted(begins[last], np.arange(len(sent)), side="right") - 1
    ends[place, modules.table_cell(last, sent)] = 1.0
    for start in range(0, len(out), MASS_ROWS_PER_CHUNK):
        rows = slice(start, start + MASS_ROWS_PER_CHUNK)
        each = [np.ascontiguousarray(p[rows].reshape(len(out[rows]), -1).T) for p in probabilities]
        mass = ends @ each[last]
        for m in range(last - 1, -1, -1):
            mass *= each[m][modules.table_cell(m, sent[begins[m + 1]])]
            mass = np.add.reduceat(mass, np.searchsorted(begins[m + 1], begins[m]), axis=0)
        out[rows] += mass[0]
    return out


def _one_minus_mean(mass: FloatArray) -> float:
    return float(np.clip(1.0 - mass.mean(), 0.0, 1.0))
