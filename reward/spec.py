"""The settings of a reward: what is measured around each decision, and who is compared with whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import WEEK, duration
from crosschannel.histories.context.layout import ContextSpec, Weekday
from crosschannel.histories.goals import Goal as Goal  # exported by this package as well
from crosschannel.reward.funnel.spec import FunnelSpec

# A user's hash for cross-fitting lies below it. 60 is divisible by 2 to 6, so that folds are equally large.
MAX_FOLDS = 60

Level = tuple[str, ...]

_POOLED = "pooled:"


def pooled_buckets(level: Level) -> int:
    """Return how many time buckets the cells of a level span."""
    return next((int(part.removeprefix(_POOLED)) for part in level if part.startswith(_POOLED)), 1)


def describe_level(level: Level) -> str:
    """Return what the decisions of a cell share, in words."""
    buckets = pooled_buckets(level)
    time = "time bucket" if buckets == 1 else f"block of {buckets} time buckets"
    return " and ".join((time, *(part for part in level if not part.startswith(_POOLED))))


@dataclass(frozen=True)
class CovariateSpec(ContextSpec):
    """Context features that adjusted kinds use as covariates: an agent's, but without shares of activity by default.

    Shares hardly tell how much a user's events change from one window to the next, and they look back over all of the
    user's past: no bin before the decision would be free of them in an event study.

    Attributes:
        blocks: Hours of the day at which blocks begin, for the share of a user's own events in each. Empty: none.
        weekend: Days of the weekend, for the share of a user's own events in it. Empty: none.
    """

    blocks: tuple[int, ...] = ()
    weekend: tuple[Weekday, ...] = ()


@dataclass(frozen=True)
class Matching:
    """What a control must share with the decision it is compared with, besides the time bucket.

    Attributes:
        within: User attributes whose values must be equal. A missing value is a value.
        strata: Number of strata of past activity, 1 for none. A stratum lies between two quantiles of the goal value
            in a window that ends where the pre window begins, so that it is not part of the change itself.
        activity: Length of the window of past activity.
        fallback: What is dropped until a cell has enough controls, in this order. Without it a decision whose cell
            has too few gets no reward. Adjusted kinds fit one regression at each level. `time` compares within a
            calendar block of `wide` time buckets instead of one; right where days without a message change alike.
        buckets: Number of time buckets that a cell spans before anything is dropped.
        wide: Number of time buckets that it spans once `time` is dropped.
    """

    within: tuple[str, ...] = ()
    strata: int = 1
    activity: str = "28d"
    fallback: tuple[Literal["strata", "within", "time"], ...] = ("strata", "within")
    buckets: int = 1
    wide: int = 7

    def __post_init__(self) -> None:
        duration(self.activity)
        if self.strata < 1:
            raise ConfigError(f"strata {self.strata} is below 1: 1 compares without strata")
        if unknown := set(self.fallback) - {"strata", "within", "time"}:
            raise ConfigError(f"fallback names {sorted(unknown)}; it may name 'strata', 'within' and 'time'")
        if self.buckets < 1 or self.wide < 2:
            raise ConfigError(f"buckets {self.buckets} and wide {self.wide}: at least 1 and 2")
        for names, what in ((self.within, "within"), (self.fallback, "fallback")):
            if len(set(names)) < len(names):
                raise ConfigError(f"{what} {list(names)} names something twice")

    @property
    def levels(self) -> tuple[Level, ...]:
        """What the decisions of a cell share besides the time bucket, from the narrowest to the widest cells.

        A part `pooled:N` says that a cell spans N time buckets: see `pooled_buckets`.
        """
        parts = (*(("within",) if self.within else ()), *(("strata",) if self.strata > 1 else ()))
        if self.buckets > 1:
            parts = (*parts, f"{_POOLED}{self.buckets}")
        found = [parts]
        for name in self.fallback:
            if name == "time" and self.wide > pooled_buckets(parts):
                parts = (*(part for part in parts if not part.startswith(_POOLED)), f"{_POOLED}{self.wide}")
                found.append(parts)
            elif name in parts:
                parts = tuple(part for part in parts if part != name)
                found.append(parts)
        return tuple(found)


@dataclass(frozen=True)
class RewardSpec:
    """What is measured around each decision.

    Attributes:
        goals: Events that count, with their weights.
        pre: Length of the window before the decision, `(t - pre, t]`; `[t - pre, t)` with `history.ties: after`.
        post: Length of the window after it, `(t, t + post]`; `[t, t + post)` with `history.ties: after`.
        time_bucket: Calendar interval within which decisions are compared. Shifting all times by a multiple of it
            changes no reward (with `seasonality` or clock covariates: of the week).
        overlap: How another message of the user within the windows is handled. `shared` ignores it; `exclude` gives no
            reward then; `truncate` ends the post window at the user's next message, `(t, min(t + post, next
            message)]`, and scales its amount to the full length. Truncating assumes that a message acts evenly over
            the window (or as the goal's credit decays), and that what the message did does not bring the next one
            forward. The pre window stays whole: cut after the previous message, it would keep just the hours on which
            that message acted. That earlier messages act alike on treated and controls is part of parallel trends.
        min_post: Shortest post window that `truncate` may leave. With a shorter one there is no reward.
        controls: Which decisions are controls. `not_sent`: every decision of the cell at which nothing was sent;
            right where each slot is randomised, since then both sides were messaged alike at other times. `untouched`:
            only those whose two windows hold no message at all; right where messages follow one another by a plan.
            With `overlap: exclude` controls are untouched in any case. `holdout`: decisions of the arms in
            `holdout_arms` at which nothing was sent; right where the log keeps users without messages at random.
        holdout_arms: Experiment arms that get no messages, for controls `holdout`.
        min_controls: Least number of controls of a cell. With fewer, `Matching.fallback` widens the cell; with fewer in
            the widest cell, its decisions get no reward.
        matching: What controls share with a decision besides the time bucket.
        seasonality: Block of the week, such as `6h`, whose normal level is subtracted. The level is the user's own, and
            is subtracted from both windows. None to subtract nothing. See `reward.measurement.seasonality`.
        seasonality_weeks: Weight of the population's level in a user's own, in weeks.
        covariates: What `did_regression` and `did_dr` adjust for: context features, known before the decision.
        folds: Folds of users for cross-fitting. 1 fits and predicts on the same users.
        funnel: Steps between a message and the goals. Rewards then have components as well: see
            `reward.funnel.Components`. None for the reward alone.
    """

    goals: tuple[Goal, ...] = field(default_factory=lambda: (Goal("order*"),))
    pre: str = "3d"
    post: str = "3d"
    time_bucket: str = "1d"
    overlap: Literal["shared", "exclude", "truncate"] = "shared"
    min_post: str = "12h"
    controls: Literal["not_sent", "untouched", "holdout"] = "not_sent"
    holdout_arms: tuple[str, ...] = ()
    min_controls: int = 20
    matching: Matching = field(default_factory=Matching)
    seasonality: str | None = None
    seasonality_weeks: float = 4.0
    covariates: CovariateSpec = field(default_factory=CovariateSpec)
    folds: int = 5
    funnel: FunnelSpec | None = None

    def __post_init__(self) -> None:
        if not self.goals:
            raise ConfigError("the reward has no goals: name at least one event that counts")
        for name in ("pre", "post", "time_bucket", "min_post"):
            duration(getattr(self, name))
        if self.overlap not in ("shared", "exclude", "truncate"):
            raise ConfigError(f"overlap {self.overlap!r} is neither 'shared' nor 'exclude' nor 'truncate'")
        if self.overlap == "truncate" and duration(self.min_post) > duration(self.post):
            raise ConfigError(f"min_post {self.min_post} is longer than post {self.post}: nothing would have a reward")
        if self.controls not in ("not_sent", "untouched", "holdout"):
            raise ConfigError(f"controls {self.controls!r} is neither 'not_sent' nor 'untouched' nor 'holdout'")
        if (self.controls == "holdout") != bool(self.holdout_arms):
            raise ConfigError("`controls: holdout` and `holdout_arms` go together: name the arms, or other controls")
        if self.min_controls < 2:
            raise ConfigError(f"min_controls {self.min_controls} is below 2: an error needs at least two controls")
        if self.seasonality is not None and WEEK % duration(self.seasonality):
            raise ConfigError(
                f"seasonality {self.seasonality!r} does not divide the week into equal blocks: try 6h or 1d"
            )
        if not 0 < self.seasonality_weeks < float("inf"):
            raise ConfigError(f"seasonality_weeks {self.seasonality_weeks} is not a positive number")
        if not 1 <= self.folds <= MAX_FOLDS:
            raise ConfigError(f"folds {self.folds} is not between 1 and {MAX_FOLDS}")
        if self.funnel is not None:
            self.funnel.check_goals(self.goals)

    @property
    def fitted_from_all_users(self) -> list[str]:
        """What is fitted from all users at once before anything is measured, in words; see `FittedPreprocessing`."""
        quantiles = [f"the winsor quantile of {goal.event!r}" for goal in self.goals if goal.winsor is not None]
        strata, within = ["strata"] * (self.matching.strata > 1), ["attribute values"] * bool(self.matching.within)
        return [*quantiles, *strata, *within, *["seasonality"] * (self.seasonality is not None)]

    @property
    def learns_from_amounts(self) -> bool:
        """Whether preprocessing learns from the training history's amounts: winsor limits or strata."""
        return self.matching.strata > 1 or any(goal.winsor is not None for goal in self.goals)
