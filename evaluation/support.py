"""Importance weights of a policy on a log, and whether the log supports it: ESS, mean weight, mass without support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.histories.history import PROPENSITY_SOURCES, History

SOURCE = "evaluated log"
TOLERANCE = 1e-4
MASS_CELLS = 200_000_000


@dataclass(frozen=True)
class LoggedDecisions:
    """The evaluated part of a log, n decisions.

    Attributes:
        modules: What could be chosen.
        actions: Canonical codes (n, M).
        propensity: Logged probability of each module's choice given the earlier ones (n, M); NaN where unknown.
        joint: Logged probability of the whole action (n,); where NaN, the product of `propensity`.
        user: Integer codes of the users (n,).
        eligible: Action mask (n, sum of actions), or None if every action is eligible.
        propensity_source: One of `PROPENSITY_SOURCES`.
        name: The log's name, for reports.

    Raises:
        InputError: If shapes differ, an action is none of its module's, or a propensity is not in (0, 1].
    """

    modules: ActionSpace
    actions: IntArray
    propensity: FloatArray
    joint: FloatArray
    user: IntArray
    eligible: BoolArray | None = None
    propensity_source: str = "logged"
    name: str = "log"

    def __post_init__(self) -> None:
        n, m = len(self.actions), len(self.modules)
        shapes = {
            "actions": (n, m),
            "propensity": (n, m),
            "joint": (n,),
            "user": (n,),
            "eligible": (n, self.modules.total),
        }
        faults = [
            Fault(SOURCE, f"the shape is {array.shape}, not {shape}", "Give one row for each decision.", name)
            for name, shape in shapes.items()
            if (array := getattr(self, name)) is not None and array.shape != shape
        ]
        if n == 0:
            faults.append(Fault(SOURCE, "there are no decisions", "Evaluate on a part of the log that has some."))
        if self.propensity_source not in PROPENSITY_SOURCES:
            choices = ", ".join(PROPENSITY_SOURCES)
            faults.append(
                Fault(SOURCE, "is unknown", f"Use one of {choices}.", "propensity_source", value=self.propensity_source)
            )
        if not faults:
            faults += self._content_faults()
        if faults:
            raise InputError(faults)

    def _content_faults(self) -> list[Fault]:
        valid = self.modules.valid(self.actions)
        faults = _fault("actions", ~valid, self.actions, "is not an action of the modules", "Check the modules.")
        columns = [(f"propensity_{name}", self.propensity[:, m]) for m, name in enumerate(self.modules.names)]
        for name, column in [*columns, ("propensity", self.joint)]:
            wrong = ~np.isnan(column) & ~((column > 0) & (column <= 1 + TOLERANCE))
            faults += _fault(name, wrong, column, "is not in (0, 1]", "Correct it, or leave it missing.")
        return faults

    @classmethod
    def of(cls, history: History) -> LoggedDecisions:
        """All decisions of a history."""
        d = history.decisions
        return cls(
            history.modules,
            d.actions,
            d.propensity,
            d.joint,
            d.user,
            d.eligible,
            history.propensity_source,
            history.name,
        )

    def __len__(self) -> int:
        return len(self.actions)

    def __getitem__(self, rows: BoolArray) -> LoggedDecisions:
        return LoggedDecisions(
            self.modules,
            self.actions[rows],
            self.propensity[rows],
            self.joint[rows],
            self.user[rows],
            None if self.eligible is None else self.eligible[rows],
            self.propensity_source,
            self.name,
        )


def distinct_actions(modules: ActionSpace, actions: IntArray) -> tuple[IntArray, IntArray]:
    """The distinct rows of canonical actions (n, M), and which of them each row is (n,)."""
    if np.prod([float(size) for size in modules.sizes]) >= 2**62:
        rows, inverse = np.unique(actions, axis=0, return_inverse=True)
        return rows, inverse.reshape(-1)
    flat, inverse = np.unique(np.ravel_multi_index(tuple(actions.T), modules.sizes), return_inverse=True)
    return np.stack(np.unravel_index(flat, modules.sizes), axis=1).astype(np.int64), inverse


def check_policy(modules: ActionSpace, probabilities: Sequence[FloatArray], n: int) -> None:
    """Checks a policy's probabilities, as `Agent.action_probabilities` gives them: (n, *modules.shape(m)) a module.

    Raises:
        InputError: If a shape is wrong, an entry is not in [0, 1], or the first module's row does not sum to 1.
    """
    if len(probabilities) != len(modules):
        problem = f"there are probabilities of {len(probabilities)} modules, not of {len(modules)}"
        raise InputError([Fault("policy", problem, "Give one array for each module.")])
    faults: list[Fault] = []
    for m, (name, p) in enumerate(zip(modules.names, probabilities, strict=True)):
        shape = (n, *modules.shape(m))
        if p.shape != shape:
            faults.append(Fault("policy", f"the shape is {p.shape}, not {shape}", "Give one row a decision.", name))
            continue
        wrong = ~((p >= -TOLERANCE) & (p <= 1 + TOLERANCE)).reshape(n, -1).all(1)
        faults += _fault(name, wrong, p, "is not a row of probabilities", "Entries are in [0, 1].", "policy")
    if not faults:
        total = probabilities[0].sum(1)
        wrong = np.asarray(np.abs(total - 1) > TOLERANCE)
        faults += _fault(modules.names[0], wrong, total, "is not a sum of 1", "Probabilities add up to 1.", "policy")
    if faults:
        raise InputError(faults)


def _fault(
    column: str, wrong: Any, values: npt.NDArray[Any], problem: str, remedy: str, file: str = SOURCE
) -> list[Fault]:
    if not wrong.any():
        return []
    row = int(wrong.argmax())
    return [Fault(file, problem, remedy, column, row + 1, values[row].tolist(), int(wrong.sum()))]


@dataclass(frozen=True)
class Support:
    r"""How well a log supports a policy, over the decisions at which the estimand's choice came up.

    Attributes:
        decisions: How many these are.
        ess: Effective sample size :math:`(\sum w)^2 / \sum w^2`: so many equally weighted decisions are as good.
        ess_users: The same over users, each with the sum of its weights. Carter, Schnepel & Steigerwald (2017),
            "Asymptotic behavior of a t-test robust to cluster heterogeneity", Review of Economics and Statistics.
        kurtosis: Kurtosis of the rewards: 3 if normal, about 1/p if a share p of them is 1 and the others are 0.
        kurtosis_users: The same over users, each with the sum of its rewards' deviations from the mean.
        largest_weight: Largest importance weight.
        mean_weight: Mean importance weight: 1 with full support and right propensities. What it lacks estimates the
            policy's mass where the log has no support.
        mean_weight_se: Its user-clustered standard error.
        unsupported: Share of the policy's mass on actions that are ineligible or that the log never takes.
    """

    decisions: int
    ess: float
    ess_users: float
    kurtosis: float
    kurtosis_users: float
    largest_weight: float
    mean_weight: float
    mean_weight_se: float
    unsupported: float


def effective_sample_size(weights: FloatArray) -> float:
    """How many equally weighted decisions weights (n,) are worth, 0 where all are 0. Kish (1965), "Survey sampling"."""
    square = float(weights @ weights)
    return float(weights.sum() ** 2 / square) if square > 0 else 0.0


def kurtosis(deviations: FloatArray) -> float:
    r"""Kurtosis :math:`n \sum d^2 d^2 / (\sum d^2)^2` of deviations (n,) from their mean.

    It is n where all are 0, as if a single one were not: that nothing has happened in n decisions does not say that
    nothing can.
    """
    square = deviations**2
    total = float(square.sum())
    return len(square) * float(square @ square) / total**2 if total > 0 else float(len(square))


def raised_floor(floor: float, kurtosis: float) -> float:
    r"""The least effective sample size for rewards of this kurtosis.

    .. math:: \text{floor} \cdot \max(1, \kappa / 3)

    The variance of n values is known as badly as that of 3n / kappa normal ones, since its relative error is about
    :math:`\sqrt{(\kappa - 1) / n}`: of 1,000 decisions with 20 sales, 20 count. Cochran (1977), "Sampling techniques",
    section 2.15, asks for more data where values are skewed in the same manner.
    """
    return floor * max(1.0, kurtosis / 3)


def describe_weights(
    weights: FloatArray, rewards: FloatArray, user: IntArray, chosen: BoolArray, unsupported: float
) -> Support:
    """Diagnostics of weights (n,) and rewards (n,) of users (n,) over the chosen decisions; NaN if a weight is."""
    w = weights[chosen]
    if len(w) == 0:
        return Support(0, 0.0, 0.0, np.nan, np.nan, np.nan, np.nan, np.nan, unsupported)
    if np.isnan(w).any():
        return Support(len(w), np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, unsupported)
    deviations = rewards[chosen] - rewards[chosen].mean()
    _, code = np.unique(user[chosen], return_inverse=True)
    per_user = np.bincount(code, weights=w).astype(np.float64)
    mean = float(w.mean())
    se = float(np.sqrt(((per_user - mean * np.bincount(code)) ** 2).sum()) / len(w))
    return Support(
        decisions=len(w),
        ess=effective_sample_size(w),
        ess_users=effective_sample_size(per_user),
        kurtosis=kurtosis(deviations),
        kurtosis_users=kurtosis(np.bincount(code, weights=deviations).astype(np.float64)),
        largest_weight=float(w.max()),
        mean_weight=mean,
        mean_weight_se=se,
        unsupported=unsupported,
    )


def applies(log: LoggedDecisions, m: int | None) -> BoolArray:
    """At which decisions (n,) module m made a choice: all for the first and for the whole action, else those sent."""
    return log.modules.sends(log.actions) if m else np.ones(len(log), dtype=bool)


def importance_weights(log: LoggedDecisions, probabilities: Sequence[FloatArray], m: int | None) -> FloatArray:
    r"""Importance weights (n,) of a policy, for the whole action (m None) or for module m alone.

    .. math:: w = \prod_m \pi_m(a_m | x, a_{<m}) / \mu(a | x), \qquad
        w_m = \pi_m(a_m | x, a_{<m}) / \mu_m(a_m | x, a_{<m})

    The weight of module m belongs to the policy that chooses `m` as the evaluated one does and every other module as
    the log does given the earlier choices: all other factors cancel. Where module m makes no choice (nothing was
    sent), the weight is 1. NaN where the log has no propensity.
    """
    taken = log.modules.chosen_probabilities(probabilities, log.actions)
    if m is None:
        propensity = log.propensity.copy()
        propensity[~log.modules.sends(log.actions), 1:] = 1.0
        joint = np.where(np.isnan(log.joint), propensity.prod(1), log.joint)
        return np.asarray(taken.prod(1) / joint)
    return np.where(applies(log, m), taken[:, m] / log.propensity[:, m], 1.0)


def unsupported_mass(log: LoggedDecisions, probabilities: Sequence[FloatArray], m: int | None) -> float:
    """Share of a policy's mass on actions that are ineligible or that the log never takes, in [0, 1].

    For module m it is the mass of its choice given the log's earlier choices, over the decisions at which it made one.
    For the whole action it is computed from at most as many evenly spaced decisions as keep decisions times distinct
    actions below `MASS_CELLS`.
    """
    if m is not None:
        chosen = applies(log, m)
        if not chosen.any():
            return 1.0
        taken = np.zeros(log.modules.sizes[m], dtype=bool)
        taken[log.actions[chosen, m]] = True
        possible = log.modules.conditional(m, probabilities[m][chosen], log.actions[chosen]) * taken
        if log.eligible is not None:
            possible = possible * log.eligible[chosen, log.modules.slices[m]]
        return _missing(possible.sum(1))
    taken_actions, _ = distinct_actions(log.modules, log.actions)
    rows = np.unique(np.linspace(0, len(log) - 1, min(len(log), MASS_CELLS // len(taken_actions) + 1)).astype(np.int64))
    some = [p[rows] for p in probabilities]
    if log.eligible is not None:
        parts = log.modules.split(log.eligible[rows])
        some = [p * part.reshape(len(rows), *[1] * (p.ndim - 2), -1) for p, part in zip(some, parts, strict=True)]
    mass = np.zeros(len(rows))
    for block in np.array_split(taken_actions, -(-len(taken_actions) * len(rows) // 4_000_000)):
        mass += log.modules.joint_probabilities(some, block).sum(1)
    return _missing(mass)


def _missing(mass: FloatArray) -> float:
    return float(np.clip(1.0 - mass.mean(), 0.0, 1.0))
