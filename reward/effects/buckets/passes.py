"""Estimate effects in passes over buckets: sums of controls, sums of groups, then the influence of users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, TypeVar

import numpy as np

from crosschannel.histories.history import History
from crosschannel.reward.effects.buckets.counts import RewardCounts
from crosschannel.reward.effects.buckets.designs import EVENT_TIME, MAIN, ON_CONTROLS, Design, Key, Plan
from crosschannel.reward.effects.buckets.sums import (
    CellSums,
    GroupSums,
    UserSums,
    influence_of_users,
    sum_controls,
)
from crosschannel.reward.effects.estimates import Effect
from crosschannel.reward.effects.inference import InfluenceProducts
from crosschannel.reward.models import FittedDid

Name = tuple[str, int]
Controls = dict[Name, tuple[CellSums, ...]]
#: Yields the comparisons of a bucket.
Designs = Callable[[History, Plan], Iterator[Design]]
#: Runs a function over the histories of all buckets.
Run = Callable[[Callable[[History], Any], str], Iterator[Any]]
K = TypeVar("K")


@dataclass(frozen=True)
class Estimates:
    """Effects over all buckets.

    Attributes:
        effects: The effects.
        products: The influence of users on the effects of a test together, by the test.
        counts: Counts of the rewards, where they were estimated.
        fitted: The reward, where it was estimated.
    """

    effects: Mapping[Key, Effect]
    products: Mapping[str, InfluenceProducts]
    counts: RewardCounts | None
    fitted: FittedDid | None

    def of(self, grouping: str) -> list[Effect]:
        """Return the effects of a grouping or test for which there was a decision, in their order."""
        return [self.effects[key] for key in sorted(self.effects) if key[0] == grouping]


def estimate(run: Run, plan: Plan, designs: Designs, what: str) -> Estimates:
    """Estimate all comparisons in three passes over the buckets.

    Args:
        run: Runs a function over the buckets, under a name.
        plan: What is estimated.
        designs: Yields the comparisons of a bucket.
        what: Name of the passes.
    """
    controls = reduce(_add_levels, run(SumControls(plan, designs), f"{what}, pass 1"))
    fitted = {name: fit_from_sums(plan, sums) for name, sums in controls.items()}
    sums, counts = reduce(_add_groups, run(SumGroups(plan, designs, fitted), f"{what}, pass 2"))
    tests = tests_of(sums)
    found, products = reduce(
        _add_users,
        run(
            SumUsers(plan=plan, designs=designs, fitted=fitted, controls=controls, sums=sums, tests=tests),
            f"{what}, pass 3",
        ),
    )
    effects = {
        key: effect_of(key[2], of_group, found.get(key))
        for key, of_group in sums.items()
        if of_group.sent or not key[0].startswith("module:")  # actions that were never sent have no row
    }
    return Estimates(effects, products, counts, fitted.get((MAIN, 0)))


def effect_of(label: str, sums: GroupSums, users: UserSums | None) -> Effect:
    """Return the effect on a group from its sums; not identified with fewer than two rewards."""
    if users is None:
        return Effect.not_identified(label, n_treated=sums.n, n_without=sums.sent - sums.n)
    return users.effect(sums, label)


def fit_from_sums(plan: Plan, sums: tuple[CellSums, ...]) -> FittedDid:
    """Fit the reward from sums of all controls."""
    return FittedDid(plan.spec, plan.preprocessing, tuple(level.means() for level in sums))


def tests_of(sums: Iterable[Key]) -> dict[str, tuple[Key, ...]]:
    """Return the effects that are tested together, in their order."""
    tests: dict[str, tuple[Key, ...]] = {}
    for key in sorted(sums):
        if key[0] == EVENT_TIME or key[0].startswith(ON_CONTROLS):
            tests[key[0]] = (*tests.get(key[0], ()), key)
    return tests


@dataclass(frozen=True)
class SumControls:
    """The first pass over a bucket: sums of the controls by cell."""

    plan: Plan
    designs: Designs

    def __call__(self, history: History) -> Controls:
        """Return the sums of each comparison, for each level of the matching."""
        plan = self.plan
        return {one.name: sum_controls(one.outcomes, plan.spec, plan.units) for one in self.designs(history, plan)}


@dataclass(frozen=True)
class SumGroups:
    """The second pass over a bucket: sums of the groups by cell, given the rewards that all controls give."""

    plan: Plan
    designs: Designs
    fitted: Mapping[Name, FittedDid]

    def __call__(self, history: History) -> tuple[dict[Key, GroupSums], RewardCounts | None]:
        """Return the sums of each group, and counts of the rewards."""
        plan, found, counts = self.plan, dict[Key, GroupSums](), None
        for one in self.designs(history, plan):
            frame = self.fitted[one.name].transform_outcomes(one.outcomes)
            for key, group in one.groups.items():
                found[key] = GroupSums.from_outcomes(one.outcomes, plan.spec, frame, group, plan.units)
            if one.name == (MAIN, 0):
                counts = RewardCounts.from_outcomes(one.outcomes, frame)
        return found, counts


@dataclass(frozen=True)
class SumUsers:
    """The third pass over a bucket: what intervals and tests need of its users' influence."""

    plan: Plan
    designs: Designs
    fitted: Mapping[Name, FittedDid]
    controls: Controls
    sums: Mapping[Key, GroupSums]
    tests: Mapping[str, tuple[Key, ...]]

    def __call__(self, history: History) -> tuple[dict[Key, UserSums], dict[str, InfluenceProducts]]:
        """Return the sums of each effect, and the products of each test."""
        found, influences = dict[Key, UserSums](), dict[Key, Any]()
        tested = {key for keys in self.tests.values() for key in keys}
        for one in self.designs(history, self.plan):
            fitted = self.fitted[one.name]
            frame = fitted.transform_outcomes(one.outcomes)
            for key, group in one.groups.items():
                sums = self.sums[key]
                if sums.n < 2:
                    continue
                found[key], influence = influence_of_users(
                    one.outcomes, fitted, frame, self.controls[one.name], group, sums, history.n_users
                )
                if key in tested:
                    influences[key] = influence
        nothing = np.zeros(history.n_users)
        products = {
            test: InfluenceProducts.from_users(np.stack([influences.get(key, nothing) for key in keys], axis=1))
            for test, keys in self.tests.items()
        }
        return found, products


def _add_levels(one: Controls, other: Controls) -> Controls:
    return _merge(one, other, lambda a, b: tuple(map(add, a, b)))


def _add_groups(
    one: tuple[dict[Key, GroupSums], RewardCounts | None], other: tuple[dict[Key, GroupSums], RewardCounts | None]
) -> tuple[dict[Key, GroupSums], RewardCounts | None]:
    counts = None if one[1] is None or other[1] is None else one[1] + other[1]
    return _merge(one[0], other[0], add), counts


def _add_users(
    one: tuple[dict[Key, UserSums], dict[str, InfluenceProducts]],
    other: tuple[dict[Key, UserSums], dict[str, InfluenceProducts]],
) -> tuple[dict[Key, UserSums], dict[str, InfluenceProducts]]:
    return _merge(one[0], other[0], add), _merge(one[1], other[1], add)


def _merge(one: dict[K, Any], other: dict[K, Any], added: Callable[[Any, Any], Any]) -> dict[K, Any]:
    """Return the entries of both, added where both have one."""
    both = {key: added(one[key], value) if key in one else value for key, value in other.items()}
    return {**one, **both}


def select_effects(estimates: Estimates, groupings: Sequence[str], modules: Sequence[str]) -> dict[str, list[Effect]]:
    """Return the effects by grouping, under the names and in the order of `effects_by`."""
    found: dict[str, list[Effect]] = {}
    for name in groupings:
        kind, _, detail = name.partition(":")
        if kind == "action":
            found |= {module: estimates.of(f"module:{module}") for module in modules}
        elif kind in ("module", "attribute"):
            found[detail] = estimates.of(name)
        else:
            found[kind] = estimates.of(name)
    return found
