"""The users of a trial whose arms are compared, and how their outcomes are compared at a look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import duration
from crosschannel.evaluation.trials.arms import ArmTable, TrialUsers, attribute, levels, trial_users
from crosschannel.evaluation.trials.boundaries import MIN_USERS_PER_ARM
from crosschannel.evaluation.trials.effects import Contrast, arm_means, contrast, merge_small_strata
from crosschannel.evaluation.trials.looks import Looks, plan_looks
from crosschannel.evaluation.trials.outcomes import Outcome, UserAmounts
from crosschannel.evaluation.trials.results import PastLooks
from crosschannel.evaluation.trials.settings import TrialConfig
from crosschannel.histories.history import History

#: A variance needs this many users (or clusters) of an arm.
MIN_UNITS = 2


@dataclass(frozen=True)
class Population:
    """The users who count at a look.

    Attributes:
        rows: Their rows among the users of the trial (m,).
        arm: Codes of their arms (m,).
        stratum: Codes of their strata (m,), each with enough users of every arm, or None.
        cluster: Codes of their clusters (m,), from 0 on, or None.
        units: Which of all units (users or clusters) they are, ascending.
    """

    rows: IntArray
    arm: IntArray
    stratum: IntArray | None
    cluster: IntArray | None
    units: IntArray


@dataclass(frozen=True)
class TrialDesign:
    """The users of a trial whose arms are compared, and how they are adjusted.

    Attributes:
        history: The log.
        settings: The declaration of the trial.
        users: Its users (n), those of arms that are not compared left out.
        arms: The arms that are compared.
        looks: When it was looked at.
        stratum: Code of each user's stratum (n,): declared attributes, and whether the user was known before.
        pre: Length of the period before, microseconds; None where nothing was observed before.
    """

    history: History
    settings: TrialConfig
    users: TrialUsers
    arms: tuple[str, ...]
    looks: Looks
    stratum: IntArray
    pre: int | None

    @property
    def arm(self) -> IntArray:
        """Code of each user's arm (n,)."""
        return self.users.arm

    @property
    def n_units(self) -> int:
        """Number of users, or of clusters."""
        cluster = self.users.cluster
        return len(self.users.user) if cluster is None else int(cluster.max(initial=-1)) + 1

    def begin(self) -> IntArray:
        """Return since when the outcome of each user counts (n,), microseconds.

        It is the start for all where users enter when they are observed: what they did from then on was after it, also
        the event by which a user was observed for the first time.
        """
        if self.settings.follow_up is None and self.settings.enrolment == "observed":
            return np.full(len(self.users.user), self.users.start, dtype=np.int64)
        return self.users.enrolled

    def edges(self) -> IntArray:
        """Return up to when the outcome of each user counts at each look, (K,) or (n, 1)."""
        if self.settings.follow_up is None:
            return self.looks.times
        return (self.users.enrolled + duration(self.settings.follow_up))[:, None]

    def inside(self, look: int) -> BoolArray:
        """Return which users count at a look (n,)."""
        if self.settings.follow_up is None:
            return np.asarray(self.users.enrolled < self.looks.times[look])
        return np.asarray(self.edges()[:, 0] <= self.looks.times[look])

    @cached_property
    def populations(self) -> list[Population | None]:
        """The users who count at each look."""
        return [self.population(self.inside(look)) for look in range(len(self.looks))]

    def population(self, inside: BoolArray, *, adjusted: bool = True) -> Population | None:
        """Return the users inside (n,) in the form in which they are compared; None where an arm has too few units."""
        rows, cluster = np.flatnonzero(inside), self.users.cluster
        arm = self.arm[rows]
        units, own = rows, None
        if cluster is not None:
            units, own = np.unique(cluster[rows], return_inverse=True)
            in_arm = np.unique(np.stack([own, arm]), axis=1)[1]
        else:
            in_arm = arm
        if np.bincount(in_arm, minlength=len(self.arms)).min() < MIN_UNITS:
            return None
        stratum = merge_small_strata(self.stratum[rows], arm, len(self.arms)) if adjusted else None
        return Population(rows=rows, arm=arm, stratum=stratum, cluster=own, units=units)

    def contrasts(
        self,
        population: Population | None,
        outcome: FloatArray,
        covariate: FloatArray | None,
        pairs: Sequence[tuple[int, int]],
    ) -> list[tuple[Contrast, FloatArray]] | None:
        """Compare arms in an outcome (n,); return the comparisons and the influences of all units on each (V,)."""
        if population is None:
            return None
        rows = population.rows
        x = None if covariate is None else covariate[rows]
        means = arm_means(outcome[rows], population.arm, len(self.arms), x, population.stratum, population.cluster)
        full = np.zeros((self.n_units, len(self.arms)))
        full[population.units] = means.influence
        means = replace(means, influence=full)
        return [contrast(means, *pair) for pair in pairs]


def trial_design(
    history: History,
    settings: TrialConfig,
    table: ArmTable | None,
    at: int | None,
    past: Callable[[int], PastLooks] | None,
) -> tuple[TrialDesign, list[tuple[int, int]]]:
    """Return the design of a trial, and the pairs of arms to compare; see `read_trial` for the arguments.

    Raises:
        ConfigError: If the declaration does not fit the log.
        InputError: If no user of the table of arms is in the log.
    """
    end = history.span[1] if at is None else at
    if end > history.span[1]:
        raise ConfigError("the look is after the end of the log: give an earlier --at, or a longer log")
    found = trial_users(history, settings, end, table)
    if settings.looks != "confidence_sequence" and end > found.start + settings.length:
        end = found.start + settings.length
        found = trial_users(history, replace(settings, start=_text(found.start)), end, table)
    named = settings.pairs_among(found.arms)
    arms = tuple(dict.fromkeys(name for pair in named for name in pair))
    code = np.array([arms.index(name) if name in arms else -1 for name in found.arms], dtype=np.int64)[found.arm]
    compared = code >= 0
    others = {name: int(n) for name, n in zip(found.arms, found.counts, strict=True) if name not in settings.shares}
    others = {name: n for name, n in others.items() if name not in arms and n}
    users = replace(
        found,
        user=found.user[compared],
        arm=code[compared],
        arms=arms,
        enrolled=found.enrolled[compared],
        known_before=found.known_before[compared],
        cluster=None
        if found.cluster is None
        else np.unique(found.cluster[compared], return_inverse=True)[1].astype(np.int64),
        changed=found.changed[compared],
        entry=found.entry[:, [found.arms.index(name) for name in arms]],
        notes=(*found.notes, *_of_other_arms(others)),
    )
    earlier = None if past is None else past(found.start)
    planned = earlier.planned_users if earlier is not None else _planned_users(settings, users)
    looks = plan_looks(settings, found.start, end, None if earlier is None else earlier.times, planned)
    stratum = users.known_before.astype(np.int64)
    for name in settings.strata:
        level, names = levels(attribute(history, name, "strata").iloc[users.user])
        stratum = stratum * len(names) + level
    pre = None
    if settings.pre is not None and users.known_before.any():
        pre = min(duration(settings.pre), int(users.enrolled[users.known_before].min() - history.span[0]))
    design = TrialDesign(
        history=history, settings=settings, users=users, arms=arms, looks=looks, stratum=stratum, pre=pre
    )
    return design, [(arms.index(treated), arms.index(control)) for treated, control in named]


def _of_other_arms(users: Mapping[str, int]) -> list[str]:
    """Return a note on users of arms that are neither declared nor compared, which may be mistakes in writing."""
    if not users:
        return []
    arms = ", ".join(f"`{name}` {n:,}" for name, n in users.items())
    return [f"users of arms that are neither in `trial.shares` nor compared do not count: {arms}"]


def _planned_users(settings: TrialConfig, users: TrialUsers) -> int:
    """Return the number of users at which a confidence sequence is narrowest; it depends on enrolment alone.

    Raises:
        ConfigError: If it is neither declared nor known at the start.
    """
    at_start = int((users.enrolled == users.start).sum())
    if settings.looks != "confidence_sequence":
        return at_start
    if settings.planned_users is None and at_start < 2 * MIN_USERS_PER_ARM:
        raise ConfigError(
            f"{at_start:,} users were in the trial when it started: declare trial.planned_users, the number of users "
            "at which the confidence sequence shall be narrowest"
        )
    return settings.planned_users or at_start


def _text(microseconds: int) -> str:
    return str(np.datetime64(microseconds, "us"))


def before(design: TrialDesign, outcomes: Sequence[Outcome], sums: UserAmounts) -> list[FloatArray | None]:
    """Return each user's outcomes in the period before the enrolment (n,), 0 where that was not observed."""
    if design.pre is None:
        return [None] * len(outcomes)
    users = design.users
    found = sums(outcomes, users.user, users.enrolled - design.pre, users.enrolled[:, None])
    return [amount[:, 0] for amount in found]
