"""Check that a log's propensities are those of its own actions, before anything is weighted by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from crosschannel.core.action_space import Module
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.core.multiple_tests import holm_adjusted
from crosschannel.histories.history import History
from crosschannel.histories.propensities.groups import groups_of, past_groups
from crosschannel.histories.propensities.mean_weights import (
    Choices,
    MeanWeights,
    above_one,
    below_one_of_many,
    below_one_of_two,
    likely_actions,
    unseen_mass,
)
from crosschannel.histories.propensities.mistakes import likely_mistake
from crosschannel.histories.propensities.sources import BY_DESIGN, ESTIMATED, LOGGED

LEVEL = float(special.ndtr(-3.0))
"""Level of each of the two families of tests, that of three standard errors."""

MAX_UNCERTAIN_SHARE = 0.01
"""Share of the decisions with alternatives that may have a propensity below 1 in a log without overlap."""

MAX_LIMITS = 5
"""How many such limits are named for each module."""

SMALL_MEAN = 0.9
"""A mean that is below this, three standard errors included, is reported as a limit of where an action was possible."""

_WHOLE_ACTION = "the whole action"


@dataclass(frozen=True)
class Contradiction:
    """One test that the propensities of a log fail.

    Attributes:
        module: The module, or None for the whole action.
        what: What was tested, in words.
        group: Which decisions: empty for all of a source, else a week, an arm, a policy, or a level of past activity.
        mean: Mean of 1[a]/p, which is 1 for right propensities (or at most 1: see `what`).
        se: Its standard error, clustered by user.
        rows: Number of decisions.
        p_value: P-value, adjusted for all tests of its family.
    """

    module: str | None
    what: str
    group: str
    mean: float
    se: float
    rows: int
    p_value: float

    def __str__(self) -> str:
        where = f" {self.group}" if self.group else ""
        return f"{self.what} is {self.mean:.3g} +- {self.se:.2g} over {self.rows:,} decisions{where}"


@dataclass(frozen=True)
class PropensityCheck:
    """What is known of a log's propensities from the log itself.

    Attributes:
        name: The log's name.
        contradictions: The tests that fail, the most significant first; empty for right propensities.
        mistakes: The likely mistake by module, in words.
        no_overlap: Why nothing that is weighted by these propensities is identified; empty where it may be.
        no_controls: The same for what is weighted by the odds of a message against nothing, in which decisions without
            a message stand for those with one.
        notes: What a reader has to know, one line each.
    """

    name: str = "history"
    contradictions: tuple[Contradiction, ...] = ()
    mistakes: dict[str | None, str] = field(default_factory=dict)
    no_overlap: str = ""
    no_controls: str = ""
    notes: tuple[str, ...] = ()

    def refuse_contradictions(self) -> None:
        """Refuse propensities that are not of this log.

        Raises:
            InputError: With one fault for each module whose propensities are contradicted.
        """
        faults = []
        for module in dict.fromkeys(each.module for each in self.contradictions):
            worst, *others = (each for each in self.contradictions if each.module == module)
            more = f" ({len(others):,} more tests fail)" if others else ""
            faults.append(
                Fault(
                    file=self.name,
                    column="propensity" if module is None else f"propensity_{module}",
                    problem=f"the propensities are not those of the log's actions: {worst}{more}. "
                    f"{self.mistakes[module]}",
                    remedy="Log the probability with which the policy took the action of the row. Or leave the column "
                    "out, or set `propensity_source: missing`: propensities are then estimated, and labelled so.",
                )
            )
        if faults:
            raise InputError(faults)


def check_propensities(history: History) -> PropensityCheck:
    r"""Test the propensities of a log that are logged or known by design.

    For an action a and right propensities p, the mean of 1[a]/p over any decisions that are chosen by what was known
    before them is the share of them in which a was possible. So for each module, each action and the whole action:

    - a mean above 1 is a contradiction (`mean_weights.above_one`);
    - so is a mean below 1 where the action had to be possible: where there were two eligible actions and the
      propensity is below 1 (`below_one_of_two`), or where eligibility is logged (`below_one_of_many`) and the action
      was ever taken with those of the earlier modules, on which its propensity may depend. Where it is not, a mean
      below 1 says in how many decisions the action was possible at most, and is a note;
    - no policy gives more than k actions a probability above 1/(k+1) (`likely_actions`).

    Errors are clustered by user; a mean may be off by `mean_weights.TOLERANCE`. There are two families of tests: those
    over all decisions of a source, and those over single weeks, arms and policies, and over decisions with few and with
    many events of the user in the week before (`past_groups`); Holm's method holds the level of three standard errors
    in each. For estimated propensities see `notes_on_estimates`.

    Where nearly all decisions with alternatives have a propensity of 1, and yet took different actions, the log has no
    overlap.
    """
    d, modules = history.decisions, history.modules
    known = np.isin(d.propensity_source, (LOGGED, BY_DESIGN))
    if not known.any():
        return PropensityCheck(history.name)
    found: dict[bool, list[_Test]] = {True: [], False: []}
    no_overlap, limits, past = "", list[_Limit](), past_groups(history)
    for m, module in enumerate(modules):
        rows, choices = _choices(history, m, known)
        if not len(rows):
            continue
        no_overlap = no_overlap or _no_overlap(module.name, choices)
        possible = None if d.eligible is None else _possible(choices, d.actions[rows, 1:m])
        for group, part, whole in groups_of(history, rows, past):
            inside = None if possible is None else possible[part]
            found[whole] += _tests(module.name, module.actions, group, choices[part], inside)
            if whole:
                limits += _limits(m, module, choices[part])
    rows, choices = _joint_choices(history, known)
    for group, part, whole in groups_of(history, rows, past) if len(modules) > 1 and len(rows) else ():
        found[whole] += _tests(None, (), group, choices[part], None)
    contradictions = [each for family in found.values() for each in _contradictions(family)]
    contradictions.sort(key=lambda each: (each.p_value, -abs(np.log(max(each.mean, 1e-9)))))
    mistakes = {
        name: _mistake(history, None if name is None else modules.names.index(name), known)
        for name in dict.fromkeys(each.module for each in contradictions)
    }
    return PropensityCheck(
        name=history.name,
        contradictions=tuple(contradictions),
        mistakes=mistakes,
        no_overlap=no_overlap,
        no_controls=no_overlap or next((str(each) for each in limits if each.of == (0, 0)), ""),
        notes=tuple(filter(None, (no_overlap, *map(str, limits)))),
    )


def _choices(history: History, m: int, wanted: BoolArray) -> tuple[IntArray, Choices]:
    """Return the wanted rows in which module m made a choice and has a propensity, and their choices."""
    d, modules = history.decisions, history.modules
    rows = np.flatnonzero(wanted & ~np.isnan(d.propensity[:, m]) & (modules.sends(d.actions) | (m == 0)))
    eligible = None
    if d.eligible is not None or modules.parent(m) is not None:
        mask = np.ones((len(rows), modules.total), bool) if d.eligible is None else d.eligible[rows]
        eligible = modules.conditional_mask(m, modules.feasible_mask(mask), d.actions[rows])
        eligible[np.arange(len(rows)), d.actions[rows, m]] = True
    return rows, Choices(
        user=d.user[rows], taken=d.actions[rows, m], p=d.propensity[rows, m], eligible=eligible, size=modules.sizes[m]
    )


def _possible(choices: Choices, earlier: IntArray) -> Choices:
    """Return choices whose eligible actions were ever taken with each of the actions of the earlier modules (r, K).

    Where marketing has templates, a tone that is eligible may be in none with the offer that was drawn before it.
    """
    size = choices.size
    eligible = np.ones((len(choices), size), bool) if choices.eligible is None else choices.eligible.copy()
    for k in range(earlier.shape[1]):
        together = np.zeros((int(earlier[:, k].max(initial=0)) + 1, size), bool)
        together[earlier[:, k], choices.taken] = True
        eligible &= together[earlier[:, k]]
    return replace(choices, eligible=eligible)


def _joint_choices(history: History, wanted: BoolArray) -> tuple[IntArray, Choices]:
    """Return the wanted rows that have a propensity of the whole action, and their choices among those ever taken."""
    d = history.decisions
    rows = np.flatnonzero(wanted & ~np.isnan(d.joint))
    taken = np.zeros(len(rows), dtype=np.int64)
    for m, size in enumerate(history.modules.sizes):  # numbered again after each module, so that codes stay small
        _, taken = np.unique(taken * size + d.actions[rows, m], return_inverse=True)
    return rows, Choices(
        user=d.user[rows], taken=taken, p=d.joint[rows], eligible=None, size=int(taken.max(initial=0)) + 1
    )


@dataclass(frozen=True)
class _Test:
    """Tests of one kind and group that belong together."""

    module: str | None
    group: str
    what: Callable[[int], str]
    found: MeanWeights


def _tests(
    module: str | None, actions: tuple[str, ...], group: str, choices: Choices, possible: Choices | None
) -> list[_Test]:
    """Return all tests of one module, or of the whole action (None), on the decisions of a group.

    `possible` are the choices among the actions that had to be possible; None where that is not known.
    """

    def mean_of(k: int) -> str:
        of = _WHOLE_ACTION if module is None else repr(actions[k])
        return f"the mean of 1[a]/p for {of}, which is 1 (or less, where it was not always possible),"

    def only_two(k: int) -> str:
        return f"the mean of 1[a]/p for {actions[k]!r}, which is 1 where one other action was possible,"

    def eligible(k: int) -> str:
        return f"the mean of 1[a]/p for {actions[k]!r}, which is 1 where it was eligible,"

    def likely(_: int) -> str:
        return "the mean of 1/p where p is large, divided by its upper limit (at most k actions can have p > 1/(k+1)),"

    inner = choices[choices.inner]
    kinds = [(mean_of, above_one(choices)), (likely, likely_actions(choices))]
    if 0 < len(inner) < len(choices):
        kinds.append((mean_of, above_one(inner)))
    if module is not None:
        kinds.append((only_two, below_one_of_two(choices)))
        if possible is not None:
            kinds.append((eligible, below_one_of_many(possible)))
    return [_Test(module, group, what, found) for what, found in kinds]


def _adjusted(p_values: FloatArray) -> FloatArray:
    """Return p-values by Holm's method. A test without one counts as well: which have one depends on the same log."""
    return holm_adjusted(np.where(np.isnan(p_values), 1.0, p_values))


def _contradictions(tests: list[_Test]) -> list[Contradiction]:
    """Return the tests of a family that fail."""
    adjusted = _adjusted(np.concatenate([test.found.p_value for test in tests])) if tests else np.zeros(0)
    out, first = [], 0
    for test in tests:
        f, p = test.found, adjusted[first : first + len(test.found.p_value)]
        first += len(p)
        out += [
            Contradiction(
                module=test.module,
                what=test.what(int(f.action[k])),
                group=test.group,
                mean=float(f.mean[k]),
                se=float(f.se[k]),
                rows=int(f.rows[k]),
                p_value=float(p[k]),
            )
            for k in np.flatnonzero(p < LEVEL)
        ]
    return out


@dataclass(frozen=True)
class _Limit:
    """An action that was possible in a part of the decisions only: codes of module and action, names, share, rows."""

    of: tuple[int, int]
    names: tuple[str, str]
    most: float
    rows: int

    def __str__(self) -> str:
        module, action = self.names
        return (
            f"by its propensities, {action!r} of {module!r} was possible in at most {self.most:.0%} of {self.rows:,} "
            "decisions: the log says nothing about taking it in the others"
        )


def _limits(m: int, module: Module, choices: Choices) -> Iterator[_Limit]:
    """Yield the actions whose propensities say that they were not always possible where they were eligible."""
    found = above_one(choices)
    most = found.mean + 3 * found.se + unseen_mass(choices, found.rows)
    for k in np.flatnonzero(most < SMALL_MEAN)[:MAX_LIMITS]:
        action = int(found.action[k])
        yield _Limit((m, action), (module.name, module.actions[action]), float(most[k]), int(found.rows[k]))


def _no_overlap(module: str, choices: Choices) -> str:
    """Return why a module has no overlap, or an empty string."""
    free = choices[choices.alternatives > 1]
    if not len(free) or np.mean(free.p < 1.0) > MAX_UNCERTAIN_SHARE or len(np.unique(free.taken)) < 2:
        return ""
    return (
        f"the log has no overlap: {np.mean(free.p == 1.0):.0%} of the {len(free):,} decisions at which {module!r} had "
        "alternatives have a propensity of 1, so that no other action was possible there"
    )


def notes_on_estimates(history: History) -> Iterator[str]:
    """Yield a line for each module whose estimated propensities clearly do not fit its actions."""
    wanted = history.decisions.propensity_source == ESTIMATED
    for m, module in enumerate(history.modules) if wanted.any() else ():
        found = above_one(_choices(history, m, wanted)[1])
        failing = np.flatnonzero((_adjusted(found.p_value) < LEVEL) & (found.mean > 2 - SMALL_MEAN))
        if len(failing):
            k = failing[np.argmax(found.mean[failing])]
            yield (
                f"the estimated propensities of {module.name!r} do not fit its actions: the mean of 1[a]/p is "
                f"{found.mean[k]:.3g} +- {found.se[k]:.2g} for {module.actions[found.action[k]]!r}, not 1"
            )


def _mistake(history: History, m: int | None, known: BoolArray) -> str:
    """Return the likely mistake behind the propensities of module m, or of the whole action (None)."""
    rows, choices = _joint_choices(history, known) if m is None else _choices(history, m, known)
    first: FloatArray | None = history.decisions.propensity[rows, 0] if m else None
    nothing = ~history.modules.sends(history.decisions.actions[rows])
    return likely_mistake(choices, nothing, first)
