"""Tests that the mean of 1[a]/p is 1 for each action of a module, or at most 1, clustered by user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray

TOLERANCE = 0.05
"""How far a mean may be from 1: enough for propensities of .1 that were rounded to two digits."""

NEARLY_CERTAIN = 1e-3
"""Below this (or above one minus it), tests that condition on the propensity leave the row out: there rounding decides
whether it is 1. With more than `MANY_ACTIONS` actions, small ones are common, and only those of 1 are left out."""

MANY_ACTIONS = 20

MIN_USERS = 9
"""Users who took an action for a test of its mean: with fewer, the mean cannot be three standard errors above 1."""

MAX_LIKELY = 4
"""The largest number of actions k for which `likely_actions` tests that at most k have a probability above 1/(k+1)."""

EXPLORATION = 0.01
"""Share of uniform draws that a policy is granted: it may take an eligible action as rarely as that divided by their
number, whatever the log shows."""

_UNSEEN = 7.0
"""Expected number of draws of which none is seen with a probability below .001."""

_CELLS_PER_CHUNK = 4_000_000


@dataclass(frozen=True)
class Choices:
    """The rows in which a module made a choice and has a propensity, r rows sorted by user.

    Attributes:
        user: Codes of the users (r,), ascending.
        taken: The action that was taken (r,).
        p: Its propensity (r,).
        eligible: Which actions were eligible (r, A), with the one that was taken; None if all were.
        size: Number of actions, A.
    """

    user: IntArray
    taken: IntArray
    p: FloatArray
    eligible: BoolArray | None
    size: int

    def __len__(self) -> int:
        return len(self.p)

    def __getitem__(self, rows: npt.NDArray[np.bool_]) -> Choices:
        eligible = None if self.eligible is None else self.eligible[rows]
        return replace(self, user=self.user[rows], taken=self.taken[rows], p=self.p[rows], eligible=eligible)

    @property
    def user_codes(self) -> IntArray:
        """The users of the rows numbered from 0 on (r,), without users who have none: rows are sorted by user."""
        return np.asarray(np.cumsum(np.diff(self.user, prepend=-1) != 0) - 1)

    @property
    def alternatives(self) -> IntArray:
        """Number of eligible actions of each row (r,)."""
        return np.full(len(self), self.size) if self.eligible is None else self.eligible.sum(axis=1)

    @property
    def inner(self) -> BoolArray:
        """Where the choice was open (r,): the propensity is not 1."""
        if self.size > MANY_ACTIONS:
            return np.asarray(self.p < 1.0)
        return np.asarray((self.p >= NEARLY_CERTAIN) & (self.p <= 1 - NEARLY_CERTAIN))


@dataclass(frozen=True)
class MeanWeights:
    """Means of 1[a]/p and one-sided tests of them, one entry for each of k tests.

    Attributes:
        action: The action of each test (k,); -1 where it is not about one action.
        mean: The mean; for tests without an action in units of its upper limit.
        se: Its standard error.
        p_value: One-sided p-value of a mean within the tolerance of 1.
        rows: Number of rows.
    """

    action: IntArray
    mean: FloatArray
    se: FloatArray
    p_value: FloatArray
    rows: IntArray


def above_one(choices: Choices) -> MeanWeights:
    r"""Test for each action that was taken that the mean of 1[a]/p over the rows in which it was eligible is at most 1.

    Its expectation is the share of these rows in which the action had a positive probability, whatever the policy. The
    sums of users are taken as independent. The variance includes one more user who never took the action: where all
    rows have it, they do not vary, although the next user may differ.
    """
    sums = _sums_by_action(choices)
    return _upper_test(sums, np.flatnonzero(sums.takers >= MIN_USERS))


def likely_actions(choices: Choices) -> MeanWeights:
    r"""Test that at most k actions have a probability above 1/(k+1), for k up to `MAX_LIKELY`.

    .. math:: E[\, 1\{p > 1/(k+1)\} / p \,] = \#\{a: \pi(a) > 1/(k+1)\} \le k

    This needs no action to be eligible or possible anywhere. It fails where propensities are not of the action that was
    taken: then too many rows have a large one.
    """
    found = []
    for k in range(1, min(MAX_LIKELY, choices.size - 1) + 1):
        large = choices.p > (1 + TOLERANCE) / (k + 1)
        weight = np.where(large, 1.0 / choices.p, 0.0) / k
        code = choices.user_codes
        count = np.bincount(code).astype(np.float64)
        total = np.bincount(code, weight)
        one = np.ones(1)
        sums = _Sums(
            weight=one * total.sum(),
            rows=one * count.sum(),
            users=one * len(count),
            takers=one * len(count),
            weight_squared=one * (total @ total),
            weight_times_rows=one * (total @ count),
            rows_squared=one * (count @ count),
        )
        found.append(replace(_upper_test(sums, np.zeros(1, dtype=np.int64)), action=np.full(1, -1)))
    return _joined(found)


def below_one_of_two(choices: Choices) -> MeanWeights:
    """Test for each action that its mean is at least 1, over rows with two eligible actions and a propensity below 1.

    There the other action has one minus the propensity of the one that was taken, and so both are possible: a mean
    below 1 contradicts the propensities whether or not eligibility was logged, and its variance is known.
    """
    inside = choices[choices.inner & (choices.alternatives == 2)]
    if not len(inside):
        return _nothing()
    p, taken = inside.p, inside.taken
    other = 1 - taken if inside.eligible is None else inside.eligible @ np.arange(inside.size) - taken
    action = np.concatenate([taken, other])
    score = np.concatenate([1 / p - 1, np.full(len(p), -1.0)])
    variance = np.concatenate([(1 - p) / p, p / (1 - p)])
    key, code = np.unique(np.tile(inside.user, 2) * inside.size + action, return_inverse=True)
    of, count = key % inside.size, _totals(code, np.ones(len(code)))
    total, expected = _totals(code, score), _totals(code, variance)

    def by_action(values: FloatArray) -> FloatArray:
        return _totals(of, values, inside.size)

    rows, users = by_action(count), by_action(np.ones(len(of)))
    some = np.flatnonzero(users > 1)
    mean = by_action(total)[some] / rows[some]
    centred = by_action((total - count * (by_action(total) / np.maximum(rows, 1))[of]) ** 2)
    clustered = (centred * users)[some] / (users[some] - 1)
    # One more user who took the action throughout: see `above_one`.
    spread = np.maximum(clustered, by_action(expected)[some]) + by_action(expected**2)[some] / users[some]
    se = np.sqrt(spread) / rows[some]
    freedom = np.maximum(rows[some] ** 2 / by_action(count**2)[some] - 1, 1)
    p_value = special.stdtr(freedom, (mean + TOLERANCE) / se)
    return MeanWeights(action=some, mean=1 + mean, se=se, p_value=p_value, rows=rows[some].astype(np.int64))


def below_one_of_many(choices: Choices) -> MeanWeights:
    """Test for each action that its mean is at least 1, over rows with more than two eligible actions.

    An action that is eligible with a tiny probability is hardly ever seen, and its mean is then nearly always below 1.
    So the mean is raised by what as many draws would add as are missed with a probability of .001, at the smallest
    propensity that the module has anywhere, or that `EXPLORATION` grants: only in a log that is long enough to show
    such draws can it be too small.
    """
    inside = choices[(choices.p <= 1 - NEARLY_CERTAIN) & (choices.alternatives > 2)]
    if not len(inside):
        return _nothing()
    sums = _sums_by_action(inside)
    some = np.flatnonzero((sums.rows > 0) & (sums.users > 1))
    rows, users = sums.rows[some], sums.users[some]
    mean = sums.weight[some] / rows
    clustered = sums.centred(some, mean) * users / (users - 1)
    squares = np.bincount(inside.taken, 1 / inside.p**2, minlength=inside.size)[some]
    design_effect = np.maximum(clustered / np.maximum(squares - rows * mean**2, 1e-12), 1)
    smallest = min(inside.p.min(), EXPLORATION / inside.alternatives.max())
    unseen = _UNSEEN * design_effect / (smallest * rows)
    se = np.sqrt(clustered + sums.rows_squared[some] / users) / rows
    freedom = np.maximum(rows**2 / sums.rows_squared[some] - 1, 1)
    p_value = special.stdtr(freedom, (mean + unseen - 1 + TOLERANCE) / se)
    return MeanWeights(action=some, mean=mean, se=se, p_value=p_value, rows=rows.astype(np.int64))


def unseen_mass(choices: Choices, rows: IntArray) -> FloatArray:
    """Return what rare choices that no row shows may add to the means of tests (k,) with so many rows (k,).

    An action that is taken with the smallest probability that the log has adds much to a mean when it is taken, and
    nothing before.
    """
    smallest = float(choices.p.min(initial=1.0))
    return np.asarray(_UNSEEN / (smallest * np.maximum(rows, 1)))


@dataclass(frozen=True)
class _Sums:
    """Sums of users' weights w and numbers of rows n, by action (A,)."""

    weight: FloatArray
    rows: FloatArray
    users: FloatArray
    takers: FloatArray
    weight_squared: FloatArray
    weight_times_rows: FloatArray
    rows_squared: FloatArray

    def centred(self, some: IntArray, mean: FloatArray) -> FloatArray:
        """Return the sum of the squares of w - mean n over users, of some actions (k,)."""
        cross = self.weight_squared[some] - 2 * mean * self.weight_times_rows[some]
        return np.maximum(cross + mean**2 * self.rows_squared[some], 0.0)


def _upper_test(sums: _Sums, some: IntArray) -> MeanWeights:
    some = some[sums.users[some] > 1]
    rows, users = sums.rows[some], sums.users[some]
    mean = sums.weight[some] / rows
    spread = sums.centred(some, mean) * users / (users - 1) + sums.rows_squared[some] / users
    se = np.sqrt(spread) / rows
    freedom = np.maximum(rows**2 / sums.rows_squared[some] - 1, 1)
    return MeanWeights(
        action=some,
        mean=mean,
        se=se,
        p_value=special.stdtr(freedom, -(mean - 1 - TOLERANCE) / se),
        rows=rows.astype(np.int64),
    )


def _sums_by_action(choices: Choices) -> _Sums:
    """Sum over users; only with their own eligible actions over all actions, some users at a time."""
    if choices.eligible is None:
        return _sums_of_taken(choices)
    parts = [
        np.stack(
            [
                weight.sum(0),
                rows.sum(0),
                (rows > 0).sum(0),
                (weight > 0).sum(0),
                (weight**2).sum(0),
                (weight * rows).sum(0),
                (rows**2).sum(0),
            ]
        )
        for weight, rows in _weights_of_users(choices)
    ]
    return _Sums(*np.sum(parts, axis=0)) if parts else _Sums(*np.zeros((7, choices.size)))


def _sums_of_taken(choices: Choices) -> _Sums:
    """Sum where every action is eligible in every row: only what users took need be kept apart."""
    user = choices.user_codes
    n = np.bincount(user)
    key, code = np.unique(user * choices.size + choices.taken, return_inverse=True)
    weight, of, rows = _totals(code, 1 / choices.p), key % choices.size, n[key // choices.size].astype(np.float64)
    every = np.ones(choices.size)

    def by_action(values: FloatArray) -> FloatArray:
        return _totals(of, values, choices.size)

    return _Sums(
        weight=by_action(weight),
        rows=every * n.sum(),
        users=every * len(n),
        takers=by_action(np.ones(len(of))),
        weight_squared=by_action(weight**2),
        weight_times_rows=by_action(weight * rows),
        rows_squared=every * float((n.astype(np.float64) ** 2).sum()),
    )


def _weights_of_users(choices: Choices) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield weights and numbers of rows by user and action (u, A), some users at a time."""
    assert choices.eligible is not None
    eligible = choices.eligible
    code = choices.user_codes
    starts = np.flatnonzero(np.diff(code, prepend=-1))
    ends = np.append(starts[1:], len(choices))
    step = max(1, _CELLS_PER_CHUNK // choices.size)
    for first in range(0, len(starts), step):
        last = min(first + step, len(starts))
        rows = slice(starts[first], ends[last - 1])
        cell = (code[rows] - first) * choices.size + choices.taken[rows]
        weight = _totals(cell, 1 / choices.p[rows], (last - first) * choices.size)
        count = np.add.reduceat(eligible[rows], starts[first:last] - starts[first], axis=0, dtype=np.int64)
        yield weight.reshape(last - first, choices.size), count.astype(np.float64)


def _totals(code: IntArray, values: FloatArray, size: int = 0) -> FloatArray:
    """Return the sums of values (r,) by code, at least `size` of them."""
    return np.asarray(np.bincount(code, values, minlength=size), dtype=np.float64)


def _joined(parts: list[MeanWeights]) -> MeanWeights:
    if not parts:
        return _nothing()
    names = ("action", "mean", "se", "p_value", "rows")
    return MeanWeights(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _nothing() -> MeanWeights:
    none = np.zeros(0)
    return MeanWeights(action=none.astype(np.int64), mean=none, se=none, p_value=none, rows=none.astype(np.int64))
