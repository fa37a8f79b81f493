"""Trajectories: several slots of a user taken together, and what a policy that decided every one of them is worth.

`evaluate` values one decision with all else as logged. Where effects outlast a slot (fatigue, habits, unsubscribes), a
policy that is followed changes what later slots are like. The estimand here is *the mean discounted sum of rewards over
the first H slots, if the policy chose at every one of them*. Its weights are products of H ratios, so their effective
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

from histories.errors import ConfigError, Fault, InputError, NotIdentified
from histories.modules import BoolArray, FloatArray, IntArray

SOURCE = "trajectories"


@dataclass(frozen=True)
class Episodes:
    """Which decisions of a log follow each other: n stretches of H slots, each of one user.

    Attributes:
        rows: The log's rows (n, H) in the order of their slots; -1 after the user was gone.
        user: The users' codes (n,).
        left_out: Stretches that are left out because the log ends before they do.
    """

    rows: IntArray
    user: IntArray
    left_out: int = 0

    @property
    def horizon(self) -> int:
        """Slots of a stretch, H."""
        return int(self.rows.shape[1])

    @property
    def length(self) -> IntArray:
        """Slots that the user was there for (n,)."""
        return np.asarray((self.rows >= 0).sum(1), dtype=np.int64)

    def of(self, column: npt.NDArray[Any]) -> FloatArray:
        """The log's column (decisions,) as (n, H), 0 after the user was gone."""
        return np.where(self.rows >= 0, column[self.rows], 0.0)


def first_slots(user: IntArray, order: npt.NDArray[Any], horizon: int, gone: BoolArray | None = None) -> Episodes:
    """Each user's first H slots: one stretch a user, all from where the log begins with the user.

    Args:
        user: Users' codes of the decisions (decisions,).
        order: What a user's slots are ordered by, such as their times (decisions,).
        horizon: H, 1 or more.
        gone: Whether the user was gone for good after the decision (decisions,), and so earned nothing more; such a
            stretch is whole with fewer slots. By default nobody was. Users whose log ends otherwise are left out: that
            is right only where how long a log is does not depend on what was sent.

    Raises:
        ConfigError: If the horizon is below 1.
        InputError: If shapes differ, two slots of a user have the same order, or a user has slots after being gone.
        NotIdentified: If no stretch is whole.
    """
    return _cut(user, order, horizon, gone, first=True)


def blocks(user: IntArray, order: npt.NDArray[Any], horizon: int, gone: BoolArray | None = None) -> Episodes:
    """Each user's slots in consecutive stretches of H: the policy takes over where the log has led users to.

    More stretches than `first_slots`, and another estimand: H slots from where the *logged* policy's users stand at the
    beginning of the stretches. Arguments and errors are those of `first_slots`.
    """
    return _cut(user, order, horizon, gone, first=False)


def _cut(user: IntArray, order: npt.NDArray[Any], horizon: int, gone: BoolArray | None, *, first: bool) -> Episodes:
    if horizon < 1:
        raise ConfigError(f"a horizon of {horizon} slots is below 1")
    n = len(user)
    gone = np.zeros(n, dtype=bool) if gone is None else gone
    faults = [
        Fault(SOURCE, f"the shape is {array.shape}, not ({n},)", "Give one entry for each decision.", name)
        for name, array in (("user", user), ("order", order), ("gone", gone))
        if array.shape != (n,)
    ]
    if faults:
        raise InputError(faults)
    sort = np.lexsort((order, user))
    same = user[sort][1:] == user[sort][:-1]
    for name, wrong, problem, remedy in (
        ("order", same & (order[sort][1:] == order[sort][:-1]), "is that of another slot of the user", "Order slots."),
        ("gone", same & gone[sort][:-1], "the user has later slots", "Mark only a user's last decision."),
    ):
        if wrong.any():
            row = int(sort[:-1][wrong].min())
            faults.append(Fault(SOURCE, problem, remedy, name, row + 1, count=int(wrong.sum())))
    if faults:
        raise InputError(faults)
    begins = np.flatnonzero(np.concatenate([[True], ~same])[:n])
    number = np.arange(n) - np.repeat(begins, np.diff(np.append(begins, n)))
    stretch = np.cumsum(number % horizon == 0) - 1
    starts = np.flatnonzero(number % horizon == 0)
    rows = np.full((len(starts), horizon), -1, dtype=np.int64)
    rows[stretch, number % horizon] = sort
    wanted = number[starts] == 0 if first else np.ones(len(starts), dtype=bool)
    last = np.append(starts[1:], n)[: len(starts)] - 1
    whole = (rows[:, -1] >= 0) | gone[sort[last]]
    if not (wanted & whole).any():
        raise NotIdentified(f"no user's log has {horizon} slots: choose a shorter horizon")
    keep = wanted & whole
    return Episodes(rows[keep], user[sort[starts[keep]]], int((wanted & ~whole).sum()))


@dataclass(frozen=True)
class Trajectories:
    r"""What an estimator sees of n stretches of H slots, all 0 (ratios 1) once a user was gone, whatever is handed in.

    Attributes:
        rewards: Rewards :math:`r_{it}` of the logged actions, each of its own slot, in reward units (n, H).
        ratios: :math:`\rho_{it} = \pi(a_{it}|x_{it}) / \mu(a_{it}|x_{it})` of the whole action (n, H); NaN where the
            log has no propensity.
        length: Slots that the user was there for, 1 to H (n,).
        user: Integer codes of the users (n,).
        counts: How often each stretch counts (n,).
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
        if self.rewards.ndim != 2 or 0 in self.rewards.shape:
            problem = f"the shape is {self.rewards.shape}, not (n, H)"
            raise InputError([Fault(SOURCE, problem, "Give a row for each stretch of slots.", "rewards")])
        n, horizon = self.rewards.shape
        shapes = {"ratios": (n, horizon), "length": (n,), "user": (n,), "counts": (n,)}
        shapes |= {"q_logged": (n, horizon), "q_policy": (n, horizon)}
        faults = [
            Fault(SOURCE, f"the shape is {array.shape}, not {shape}", "Give a row for each stretch of slots.", name)
            for name, shape in shapes.items()
            if (array := getattr(self, name)) is not None and array.shape != shape
        ]
        if faults:
            raise InputError(faults)
        faults += _fault(
            "length", (self.length < 1) | (self.length > horizon), self.length, f"is not in 1 to {horizon}"
        )
        faults += _fault("counts", ~(np.isfinite(self.counts) & (self.counts >= 0)), self.counts, "is no count")
        alive = np.arange(horizon) < self.length[:, None]
        for name, fill in (("rewards", 0.0), ("ratios", 1.0), ("q_logged", 0.0), ("q_policy", 0.0)):
            array = getattr(self, name)
            if array is None:
                continue
            array = np.where(alive, array, fill)
            finite = np.isfinite(array)
            if name == "ratios":
                finite = (finite & (array >= 0)) | np.isnan(array)
            faults += _fault(name, ~finite, array, "is no ratio" if name == "ratios" else "is not a finite number")
            object.__setattr__(self, name, array)
        if faults:
            raise InputError(faults)

    @property
    def horizon(self) -> int:
        """Slots of a stretch, H."""
        return int(self.rewards.shape[1])

    @cached_property
    def unknown(self) -> int:
        """How many decisions have no ratio."""
        return int(np.isnan(self.ratios).sum())

    @cached_property
    def discounts(self) -> FloatArray:
        r""":math:`\gamma^t` (H,)."""
        return np.asarray(float(self.discount) ** np.arange(self.horizon))

    @cached_property
    def returns(self) -> FloatArray:
        r"""Logged discounted sums :math:`\sum_t \gamma^t r_{it}` (n,)."""
        return np.asarray(self.rewards @ self.discounts)

    @cached_property
    def weights(self) -> FloatArray:
        r""":math:`w_{it} = \prod_{s \le t} \rho_{is}` (n, H). Raises `NotIdentified` where a ratio is unknown."""
        if self.unknown:
            raise NotIdentified(f"the log has no propensity of {self.unknown:,} decisions")
        return np.asarray(self.ratios.cumprod(axis=1))

    @cached_property
    def before(self) -> FloatArray:
        """The weights of what came before each slot (n, H): 1 at the first, then those of the slot before."""
        return np.concatenate([np.ones((len(self.rewards), 1)), self.weights[:, :-1]], axis=1)

    def model(self) -> tuple[FloatArray, FloatArray]:
        """Modelled sums of the logged action and of the policy. Raises `NotIdentified` where there are none."""
        if self.q_logged is None or self.q_policy is None:
            raise NotIdentified("there are no modelled sums of rewards: hand in `q_logged` and `q_policy`")
        return self.q_logged, self.q_policy


def _fault(column: str, wrong: BoolArray, values: npt.NDArray[Any], problem: str) -> list[Fault]:
    if not wrong.any():
        return []
    row = int(np.flatnonzero(wrong.reshape(len(wrong), -1).any(1))[0])
    remedy = "Leave out users by what was known before their first slot, or correct it."
    return [Fault(SOURCE, problem, remedy, column, row + 1, values[row].tolist(), int(wrong.sum()))]
