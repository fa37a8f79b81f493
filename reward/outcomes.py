"""Outcomes: goal values before and after each decision, and which decisions may serve as controls."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np

from histories.context import ContextFeatures, ContextSpec
from histories.errors import ConfigError
from histories.hashing import derive
from histories.history import History
from histories.modules import BoolArray, FloatArray, IntArray
from histories.times import duration
from histories.windows import Timeline
from reward.goals import Goal, GoalTotals

# Divisible by every number of folds that is in use, so that folds are equally large.
FOLDS = 60
_FOLD_SALT = 0xF01D


@dataclass(frozen=True)
class RewardSpec:
    """What is measured around each decision.

    Attributes:
        goals: What counts.
        pre: Length of the window before the decision, `[t - pre, t)`.
        post: Length of the window after it, `(t, t + post]`.
        cell: Decisions within the same calendar cell of this length are compared with each other.
        overlap: `shared` lets every decision keep its windows; `exclude` gives no reward where another message of
            the same user falls into them.
        controls: Who is compared with. `not_sent`: every decision of the cell at which nothing was sent; right where
            each slot is randomised, since then both sides were messaged alike at other times. `untouched`: only those
            whose two windows hold no message at all; right where messages follow one another by a plan. With
            `overlap: exclude` controls are untouched in any case.
        min_controls: Controls that a cell needs; with fewer, its decisions get no reward.
        covariates: What `did_regression` and `did_dr` adjust for: context features, known before the decision.
        folds: Folds of users for cross-fitting; 1 fits and predicts on the same users.
    """

    goals: tuple[Goal, ...] = field(default_factory=lambda: (Goal("order*"),))
    pre: str = "3d"
    post: str = "3d"
    cell: str = "1d"
    overlap: Literal["shared", "exclude"] = "shared"
    controls: Literal["not_sent", "untouched"] = "not_sent"
    min_controls: int = 20
    covariates: ContextSpec = field(default_factory=ContextSpec)
    folds: int = 5

    def __post_init__(self) -> None:
        if not self.goals:
            raise ConfigError("the reward has no goals: name at least one event that counts")
        for name in ("pre", "post", "cell"):
            duration(getattr(self, name))
        if self.overlap not in ("shared", "exclude"):
            raise ConfigError(f"overlap {self.overlap!r} is neither 'shared' nor 'exclude'")
        if self.controls not in ("not_sent", "untouched"):
            raise ConfigError(f"controls {self.controls!r} is neither 'not_sent' nor 'untouched'")
        if self.min_controls < 2:
            raise ConfigError(f"min_controls {self.min_controls} is below 2: an error needs at least two controls")
        if not 1 <= self.folds <= FOLDS:
            raise ConfigError(f"folds {self.folds} is not between 1 and {FOLDS}")


@dataclass(frozen=True)
class Outcomes:
    """Goal values around the n decisions of a history, in its order.

    Attributes:
        pre: Goal value in `[t - pre, t)`, scaled to the length of the post window (n,).
        post: Goal value in `(t, t + post]` (n,).
        treated: Whether a message was sent (n,).
        control: Whether the decision is a control: see `RewardSpec.controls` (n,).
        overlap: Whether another message of the user falls into the windows (n,).
        observed: Whether both windows lie within the observed time (n,).
        cell: Calendar cell: whole cell lengths since 1970 (n,).
        user: User codes (n,).
        actions: Actions (n, M).
        available_at: When the post window closes, microseconds (n,).
        fold: Stable hash of the user, for cross-fitting: below `FOLDS` (n,).
        p_nothing: Logged probability of sending nothing, where nothing was sent; else NaN (n,).
        covariates: Covariates (n, p); p is 0 where the reward uses none.
    """

    pre: FloatArray
    post: FloatArray
    treated: BoolArray
    control: BoolArray
    overlap: BoolArray
    observed: BoolArray
    cell: IntArray
    user: IntArray
    actions: IntArray
    available_at: IntArray
    fold: IntArray
    p_nothing: FloatArray
    covariates: FloatArray

    def __len__(self) -> int:
        return len(self.post)

    @property
    def change(self) -> FloatArray:
        """Post minus pre (n,)."""
        return self.post - self.pre

    def select(self, rows: BoolArray) -> Outcomes:
        """The outcomes of the chosen decisions."""
        return Outcomes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def measure(history: History, spec: RewardSpec, features: ContextFeatures | None = None) -> Outcomes:
    """Sums the goals in the windows around every decision of a history.

    Every window is a difference of two running totals, whose places are found by bisection for all decisions at
    once: no loop over users or decisions. `features` gives the covariates, if the reward uses any.

    Raises:
        ConfigError: If a goal names an event that the history does not have.
    """
    d = history.decisions
    pre, post = duration(spec.pre), duration(spec.post)
    events = Timeline(history.events.time, history.event_offsets)
    pre_rows = events.before(d.user, d.time - pre), events.before(d.user, d.time)
    post_rows = (
        events.before(d.user, d.time, inclusive=True),
        events.before(d.user, d.time + post, inclusive=True),
    )
    totals = [GoalTotals.of(goal, history) for goal in spec.goals]
    before = np.sum([total.window(*pre_rows) for total in totals], axis=0)
    after = np.sum([total.window(*post_rows) for total in totals], axis=0)

    treated = history.modules.sent(d.actions)
    overlap = _another_message(history, treated, pre, post)
    clean = ~overlap | (spec.controls == "not_sent" and spec.overlap == "shared")
    observed = (d.time - pre >= history.span[0]) & (d.time + post <= history.span[1])
    return Outcomes(
        pre=before * (post / pre),
        post=after,
        treated=treated,
        control=~treated & clean & observed,
        overlap=overlap,
        observed=observed,
        cell=d.time // duration(spec.cell),
        user=d.user,
        actions=d.actions,
        available_at=d.time + post,
        fold=_fold(history)[d.user],
        p_nothing=np.where(treated, np.nan, d.propensity[:, 0]),
        covariates=np.zeros((len(d), 0)) if features is None else features.covariates(history),
    )


def _fold(history: History) -> IntArray:
    return np.asarray(derive(history.user_keys, _FOLD_SALT) % np.uint64(FOLDS), dtype=np.int64)


def _another_message(history: History, sent: BoolArray, pre: int, post: int) -> BoolArray:
    """Whether the user got another message in `[t - pre, t)` or in `(t, t + post)`."""
    d = history.decisions
    offsets = np.searchsorted(d.user[sent], np.arange(history.n_users + 1)).astype(np.int64)
    messages = Timeline(d.time[sent], offsets)
    earlier = messages.before(d.user, d.time) > messages.before(d.user, d.time - pre)
    later = messages.before(d.user, d.time + post) > messages.before(d.user, d.time, inclusive=True)
    return np.asarray(earlier | later)
