"""Trajectories: several slots of a user taken together, and the value of a policy that decides at each of them.

`evaluate` values one decision with all else as logged. Where effects outlast a slot (fatigue, habits, unsubscribes), a
policy that is followed changes what later slots are like. The estimand here is *the mean discounted sum of rewards over
the first H slots, if the policy chose at each of them*. Its weights are products of H ratios, so that their effective
sample size falls geometrically: long horizons are not identified, whatever the estimator.

A reward must belong to its own slot: where its window is longer than the gap to the next slot, the next message's
effect is in two rewards and is counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, Fault, InputError, NotIdentified

SOURCE = "trajectories"


@dataclass(frozen=True)
class TrajectoryIndex:
    """The rows of a log that make up n trajectories of H slots, each of one user.

    Attributes:
        rows: The log's rows (n, H) in the order of their slots; -1 after the user churned.
        user: The users' codes (n,).
        excluded: Number of trajectories that are excluded because the log ends before they do.
    """

    rows: IntArray
    user: IntArray
    excluded: int = 0

    @property
    def horizon(self) -> int:
        """Return the slots of a trajectory, H."""
        return int(self.rows.shape[1])

    @property
    def length(self) -> IntArray:
        """Return the slots before the user churned (n,)."""
        return np.asarray((self.rows >= 0).sum(1), dtype=np.int64)

    def gather(self, column: npt.NDArray[Any]) -> FloatArray:
        """Return the log's column (decisions,) as (n, H), 0 after the user churned."""
        return np.where(self.rows >= 0, column[self.rows], 0.0)


def first_slots(
    user: IntArray, order: npt.NDArray[Any], horizon: int, churned: BoolArray | None = None
) -> TrajectoryIndex:
    """Take each user's first H slots: one trajectory per user, from the beginning of the user's log.

    Args:
        user: Users' codes of the decisions (decisions,).
        order: What a user's slots are ordered by, such as their times (decisions,).
        horizon: H, 1 or more.
        churned: Whether the user churned after the decision (decisions,), and so earned nothing more; such a trajectory
            is complete with fewer slots. By default nobody did. Users whose log ends otherwise are excluded, and so is
            whoever begins after the last one who has H slots, churned or not: that is right only where the length of a
            log does not depend on what was sent, and all logs end at about the same time.

    Raises:
        ConfigError: If the horizon is below 1.
        InputError: If shapes differ, two slots of a user have the same order, or a user has slots after churning.
        NotIdentified: If no trajectory is complete.
    """
    return _cut(user, order, horizon, churned, first=True)


def blocks(user: IntArray, order: npt.NDArray[Any], horizon: int, churned: BoolArray | None = None) -> TrajectoryIndex:
    """Cut each user's slots into consecutive trajectories of H slots.

    They are more than those of `first_slots`, and have another estimand: H slots from the states that the *logging*
    policy's users are in at the beginning of the trajectories. Arguments and errors are those of `first_slots`.
    """
    return _cut(user, order, horizon, churned, first=False)


def _cut(
    user: IntArray, order: npt.NDArray[Any], horizon: int, churned: BoolArray | None, *, first: bool
) -> TrajectoryIndex:
    if horizon < 1:
        raise ConfigError(f"a horizon of {horizon} slots is below 1")
    n = len(user)
    churned = np.zeros(n, dtype=bool) if churned is None else churned
    _check_columns(user, order, churned)
    sort = np.lexsort((order, user))
    same_user = user[sort][1:] == user[sort][:-1]
    _check_order(sort, same_user, order, churned)

    first_of_user = np.flatnonzero(np.concatenate([[True], ~same_user])[:n])
    number = np.arange(n) - np.repeat(first_of_user, np.diff(np.append(first_of_user, n)))
    trajectory = np.cumsum(number % horizon == 0) - 1
    starts = np.flatnonzero(number % horizon == 0)
    rows = np.full((len(starts), horizon), -1, dtype=np.int64)
    rows[trajectory, number % horizon] = sort
    wanted = number[starts] == 0 if first else np.ones(len(starts), dtype=bool)
    last = np.append(starts[1:], n)[: len(starts)] - 1
    full = wanted & (rows[:, -1] >= 0)
    if not full.any():
        raise NotIdentified(f"no user's log has {horizon} slots: choose a shorter horizon")
    begins = order[sort[starts]]
    # Of the trajectories that begin so late that no user's log has H slots any more, only those of users who churned
    # would be left.
    complete = full | (churned[sort[last]] & (begins <= begins[full].max()))
    chosen = wanted & complete
    return TrajectoryIndex(rows=rows[chosen], user=user[sort[starts[chosen]]], excluded=int((wanted & ~complete).sum()))


def _check_columns(user: IntArray, order: npt.NDArray[Any], churned: BoolArray) -> None:
    n = len(user)
    faults = [
        Fault(
            file=SOURCE,
            problem=f"the shape is {array.shape}, not ({n},)",
            remedy="Pass one entry for each decision.",
            column=name,
        )
        for name, array in (("user", user), ("order", order), ("churned", churned))
        if array.shape != (n,)
    ]
    if faults:
        raise InputError(faults)


def _check_order(sort: IntArray, same_user: BoolArray, order: npt.NDArray[Any], churned: BoolArray) -> None:
    faults = []
    for name, wrong, problem, remedy in (
        (
            "order",
            same_user & (order[sort][1:] == order[sort][:-1]),
            "is the same as that of another slot of the user",
            "Give each slot of a user its own order.",
        ),
        (
            "churned",
            same_user & churned[sort][:-1],
            "the user has later slots",
            "Mark only a user's last decision.",
        ),
    ):
        if wrong.any():
            row = int(sort[:-1][wrong].min())
            count = int(wrong.sum())
            faults.append(Fault(file=SOURCE, problem=problem, remedy=remedy, column=name, row=row + 1, count=count))
    if faults:
        raise InputError(faults)


@dataclass(frozen=True)
class Trajectories:
    r"""The data of n trajectories of H slots that an estimator sees.

    After a user has churned, all entries are set to 0 and ratios to 1, whatever is passed.

    Attributes:
        rewards: Rewards :math:`r_{it}` of the logged actions, each of its own slot, in reward units (n, H).
        ratios: :math:`\rho_{it} = \pi(a_{it}|x_{it}) / \mu(a_{it}|x_{it})` of the whole action (n, H); NaN where the
            log has no propensity.
        length: Slots before the user churned, 1 to H (n,).
        user: Integer codes of the users (n,).
        counts: How often each trajectory counts (n,).
        discount: :math:`\gamma` in [0, 1]: what a slot's reward is worth at the slot before.
        q_logged: Modelled discounted sum of rewards from slot t to the last, :math:`q_t(x_{it}, a_{it})`, if the logged
            action is taken and the policy followed thereafter (n, H), or None.
        q_policy: The same if the policy is followed from t on, :math:`E_{a \sim \pi} q_t(x_{it}, a)` (n, H), or None.

    Raises:
        InputError: If shapes differ, an entry is not finite, or a ratio, count or length is out of range.
        ConfigError: If the discount is not in [0, 1].
    """

    rewards: FloatArray
    ratios: FloatArray
    length: IntArray
    user: IntArray
    counts: FloatArray
    discount: float = 1.0
    q_logged: FloatArray | None = None
    q_policy: FloatArray | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ConfigError(f"the discount {self.discount} is not in [0, 1]")
        self._check_shapes()
        horizon = self.horizon
        faults = _row_fault(
            "length", (self.length < 1) | (self.length > horizon), self.length, f"is not in 1 to {horizon}"
        )
        faults += _row_fault("counts", ~(np.isfinite(self.counts) & (self.counts >= 0)), self.counts, "is not a count")
        active = np.arange(horizon) < self.length[:, None]
        for name, fill in (("rewards", 0.0), ("ratios", 1.0), ("q_logged", 0.0), ("q_policy", 0.0)):
            array = getattr(self, name)
            if array is None:
                continue
            array = np.where(active, array, fill)
            valid = np.isfinite(array)
            if name == "ratios":
                valid = (valid & (array >= 0)) | np.isnan(array)
            problem = "is not a ratio" if name == "ratios" else "is not a finite number"
            faults += _row_fault(name, ~valid, array, problem)
            object.__setattr__(self, name, array)
        if faults:
            raise InputError(faults)

    def _check_shapes(self) -> None:
        remedy = "Pass one row for each trajectory."
        if self.rewards.ndim != 2 or 0 in self.rewards.shape:
            problem = f"the shape is {self.rewards.shape}, not (n, H)"
            raise InputError([Fault(file=SOURCE, problem=problem, remedy=remedy, column="rewards")])
        n, horizon = self.rewards.shape
        shapes = {"ratios": (n, horizon), "length": (n,), "user": (n,), "counts": (n,)}
        shapes |= {"q_logged": (n, horizon), "q_policy": (n, horizon)}
        faults = [
            Fault(file=SOURCE, problem=f"the shape is {array.shape}, not {shape}", remedy=remedy, column=name)
            for name, shape in shapes.items()
            if (array := getattr(self, name)) is not None and array.shape != shape
        ]
        if faults:
            raise InputError(faults)

    @property
    def horizon(self) -> int:
        """Return the slots of a trajectory, H."""
        return int(self.rewards.shape[1])

    @cached_property
    def unknown_ratios(self) -> int:
        """Return the number of decisions without a ratio."""
        return int(np.isnan(self.ratios).sum())

    @cached_property
    def discount_factors(self) -> FloatArray:
        r"""Return :math:`\gamma^t` (H,)."""
        return np.asarray(float(self.discount) ** np.arange(self.horizon))

    @cached_property
    def returns(self) -> FloatArray:
        r"""Return the logged discounted sums :math:`\sum_t \gamma^t r_{it}` (n,)."""
        return np.asarray(self.rewards @ self.discount_factors)

    @cached_property
    def weights(self) -> FloatArray:
        r"""Return :math:`w_{it} = \prod_{s \le t} \rho_{is}` (n, H).

        Raises:
            NotIdentified: If a ratio is unknown.
        """
        if self.unknown_ratios:
            raise NotIdentified(f"the log has no propensity for {self.unknown_ratios:,} decisions")
        return np.asarray(self.ratios.cumprod(axis=1))

    @cached_property
    def previous_weights(self) -> FloatArray:
        """Return the weights up to the slot before each one (n, H): 1 at the first slot."""
        return np.concatenate([np.ones((len(self.rewards), 1)), self.weights[:, :-1]], axis=1)

    def modelled_sums(self) -> tuple[FloatArray, FloatArray]:
        """Return the modelled sums of rewards of the logged action and of the policy.

        Raises:
            NotIdentified: If there are none.
        """
        if self.q_logged is None or self.q_policy is None:
            raise NotIdentified("there are no modelled sums of rewards: pass `q_logged` and `q_policy`")
        return self.q_logged, self.q_policy


def _row_fault(column: str, wrong: BoolArray, values: npt.NDArray[Any], problem: str) -> list[Fault]:
    """Return the first faulty row with the number of faulty entries, or an empty list."""
    if not wrong.any():
        return []
    row = int(np.flatnonzero(wrong.reshape(len(wrong), -1).any(1))[0])
    return [
        Fault(
            file=SOURCE,
            problem=problem,
            remedy="Correct it, or leave out users by what was known before their first slot.",
            column=column,
            row=row + 1,
            value=values[row].tolist(),
            count=int(wrong.sum()),
        )
    ]
