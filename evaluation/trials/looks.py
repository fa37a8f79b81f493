"""The looks at a trial: what an outcome showed at each, what it had to reach, and which outcomes are significant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import duration
from crosschannel.evaluation.trials.boundaries import (
    MIN_USERS_PER_ARM,
    critical_values,
    spent_alpha,
    stopping_boundaries,
)
from crosschannel.evaluation.trials.effects import Contrast
from crosschannel.evaluation.trials.settings import TrialConfig


@dataclass(frozen=True)
class Looks:
    """When a trial was looked at.

    Attributes:
        times: Ends of what each look saw, microseconds (K,), ascending; the last one is this look.
        shares: Share of the declared length at each (K,).
        past: How many of them took place before and keep what they found.
        planned_users: Number of users at which a confidence sequence is narrowest.
    """

    times: IntArray
    shares: FloatArray
    past: int = 0
    planned_users: int = 1

    def __len__(self) -> int:
        return len(self.times)


def plan_looks(settings: TrialConfig, start: int, at: int, past: IntArray | None, planned_users: int) -> Looks:
    """Return the looks up to a time: those that took place, or else one after each `every` from the start on.

    Args:
        settings: The declaration of the trial.
        start: Start of the trial, microseconds.
        at: Time of this look, microseconds.
        past: Times of the looks that took place (P,), or None if they are not known.
        planned_users: Number of users at which a confidence sequence is narrowest.

    Raises:
        ConfigError: If an earlier look saw more than this one.
    """
    if past is not None and len(past) and past[-1] > at:
        raise ConfigError("the previous look was later than this one: read the log up to a later time, with --at")
    if past is None:
        step = duration(settings.every)
        earlier = np.arange(start + step, at, step) if settings.looks != "once" else np.zeros(0, dtype=np.int64)
    else:
        earlier = past[past < at]
    times = np.append(earlier, at).astype(np.int64)
    kept = 0 if past is None else len(past)
    return Looks(times, (times - start) / settings.length, min(kept, len(times)), planned_users)


@dataclass(frozen=True)
class Course:
    """What one outcome of one comparison showed at each look.

    Attributes:
        contrasts: The difference at each look; None where an arm had too few users.
        covariance: Of the differences at the looks (K, K).
        z: Standardised differences (K,), those of past looks as they were found then.
        known: Boundaries of past looks by the number that divides alpha (Holm), infinity for none.
    """

    contrasts: tuple[Contrast | None, ...]
    covariance: FloatArray
    z: FloatArray
    known: Mapping[int, FloatArray] = field(default_factory=dict)

    @property
    def last(self) -> Contrast:
        """The difference at this look."""
        found = self.contrasts[-1]
        assert found is not None  # the readout refuses an arm without users
        return found


def critical_of(
    course: Course, looks: Looks, settings: TrialConfig, divisor: int, rng: np.random.Generator
) -> FloatArray:
    """Return what the standardised difference must reach at each look (K,), at the level alpha / divisor."""
    alpha = settings.alpha / divisor
    if settings.looks == "once":
        return np.where(looks.shares >= 1, -ndtri(alpha / 2), np.inf)
    known = course.known.get(divisor)
    if settings.looks == "group_sequential":
        return stopping_boundaries(course.covariance, looks.shares, alpha, rng, known)
    users = np.array([0 if one is None else sum(one.users) for one in course.contrasts])
    few = np.array([one is None or min(one.users) < MIN_USERS_PER_ARM for one in course.contrasts])
    found = np.where(few, np.inf, critical_values(np.maximum(users, 1), alpha, looks.planned_users, settings.alpha))
    if known is not None:
        found[: len(known)] = known
    return np.asarray(found)


def least_critical(looks: Looks, settings: TrialConfig, divisor: int) -> FloatArray:
    """Return what no boundary is below (K,): who crosses one now or before is among those beyond it now.

    The probability of crossing up to a look is what may be spent up to it, so that its boundary is at least the
    quantile of that.
    """
    if settings.looks != "group_sequential":
        return np.zeros(len(looks))
    return np.asarray(-ndtri(spent_alpha(looks.shares, settings.alpha / divisor) / 2))


@dataclass(frozen=True)
class Decision:
    """Whether an outcome is significant, over all looks and all goals.

    Attributes:
        divisor: By what alpha is divided at the step of Holm's method that decided.
        look: The first look that crossed, from 0 on; None for none.
        criticals: Boundaries of all looks by divisor, as far as they were needed.
    """

    divisor: int
    look: int | None
    criticals: Mapping[int, FloatArray]


def decide_over_goals(
    z: Sequence[FloatArray],
    critical: Callable[[int, int], FloatArray],
    least: Callable[[int], FloatArray] | None = None,
) -> tuple[Decision, ...]:
    """Decide which of m outcomes are significant at the family-wise level alpha, over all looks.

    Holm's method on group-sequential tests: all m are tested at alpha / m over all their looks; with r rejected, the
    others are tested at alpha / (m - r), and so on. It is valid because an outcome that crosses the boundaries of a
    level crosses those of every larger one up to the same look. Holm (1979), Scandinavian J. of Statistics 6; Maurer &
    Bretz (2013), "Multiple testing in group sequential trials using graphical approaches", Statistics in
    Biopharmaceutical Research 5.

    Args:
        z: Standardised differences at the looks, for each outcome (K,).
        critical: Function from an outcome's index and a divisor of alpha to its boundaries (K,).
        least: Function from a divisor to what no boundary is below (K,): where no look reaches it, boundaries are not
            found. None finds all that are tested, and those at alpha itself.
    """
    found: list[dict[int, FloatArray]] = [{} for _ in z]

    def first_crossing(k: int, divisor: int) -> int | None:
        if least is not None and (np.abs(z[k]) < least(divisor)).all():
            return None
        if divisor not in found[k]:
            found[k][divisor] = critical(k, divisor)
        crossed = np.flatnonzero(np.abs(z[k]) >= found[k][divisor])
        return int(crossed[0]) if len(crossed) else None

    open_ones, decided = list(range(len(z))), dict[int, tuple[int, int]]()
    while open_ones:
        divisor = len(open_ones)
        looks = {k: first_crossing(k, divisor) for k in open_ones}
        crossed = {k: look for k, look in looks.items() if look is not None}
        if not crossed:
            break
        decided |= {k: (divisor, look) for k, look in crossed.items()}
        open_ones = [k for k in open_ones if k not in crossed]
    if least is None:
        for k in range(len(z)):
            first_crossing(k, 1)
    last = max(len(open_ones), 1)
    return tuple(
        Decision(decided[k][0], decided[k][1], found[k]) if k in decided else Decision(last, None, found[k])
        for k in range(len(z))
    )
