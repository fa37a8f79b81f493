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
        known: Boundaries of past looks by the number that divides alpha, infinity for none.
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
        divisor: By what alpha is divided at the step that decided.
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

    The first outcome is the primary one, and has half of the level; the others share the other half by Holm's method:
    all are tested over all their looks at alpha / 2 / (m - 1), with r rejected the rest at alpha / 2 / (m - 1 - r), and
    so on. Once the primary one is rejected, the others have all of alpha; once all others are, so has the primary one.
    Holm (1979), Scandinavian J. of Statistics 6; Bretz, Maurer, Brannath & Posch (2009), "A graphical approach to
    sequentially rejective multiple test procedures", Statistics in Medicine 28, for handing the level on; Maurer &
    Bretz (2013), "Multiple testing in group sequential trials using graphical approaches", Statistics in
    Biopharmaceutical Research 5, for doing so over looks: whoever crosses the boundaries of a level crosses those of
    every larger one up to the same look.

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

    decided, others = dict[int, tuple[int, int]](), list(range(1, len(z)))
    divisors = _divisors(False, len(others))
    while True:
        tested = [(k, divisors[0] if k == 0 else divisors[1]) for k in range(len(z)) if k not in decided]
        looks = {k: (divisor, look) for k, divisor in tested if (look := first_crossing(k, divisor)) is not None}
        if not looks:
            break
        decided |= looks
        divisors = _divisors(0 in decided, sum(k not in decided for k in others))
    if least is None:
        for k in range(len(z)):
            first_crossing(k, 1)
    return tuple(
        Decision(*decided[k], found[k]) if k in decided else Decision(divisors[min(k, 1)], None, found[k])
        for k in range(len(z))
    )


def _divisors(primary_rejected: bool, others: int) -> tuple[int, int]:
    """Return by what alpha is divided for the primary outcome and for each of the other ones that are not rejected."""
    return 1 if others == 0 else 2, others if primary_rejected else 2 * others
