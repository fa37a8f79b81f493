"""Factors: which content modules of a log are drawn independently of the others, given the context and the channel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError
from crosschannel.evaluation.ladder.dependence import DependenceTest, dependence_tests
from crosschannel.evaluation.logged_decisions import LoggedDecisions

TESTED, INDEPENDENT = "tested", "independent"
#: How far the logged probability of a whole action may be from the product of its modules', as a share: rounding.
MAX_ROUNDING = 0.05


@dataclass(frozen=True)
class Factors:
    """The content modules, divided into factors that log and policy draw independently given context and channel.

    Attributes:
        members: Indices of the modules of each factor, in the order of their first modules.
        names: Name of each factor: its modules' names, joined by `+`.
        source: How the factors were found, as a sentence.
        tests: The tests of independence, one for each tested pair of modules; empty where it was declared.
    """

    members: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    source: str
    tests: tuple[DependenceTest, ...] = ()

    @classmethod
    def from_links(
        cls, modules: ActionSpace, links: Iterable[tuple[int, int]], source: str, tests: Sequence[DependenceTest] = ()
    ) -> Factors:
        """Join linked modules, and those that are linked through others, to one factor each."""
        pairs = np.array([*links], dtype=np.int64).reshape(-1, 2)
        graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(modules), len(modules)))
        _, label = connected_components(graph, directed=False)
        content = range(1, len(modules))
        firsts = dict.fromkeys(int(label[m]) for m in content)
        members = tuple(tuple(m for m in content if label[m] == first) for first in firsts)
        names = tuple("+".join(modules.names[m] for m in factor) for factor in members)
        return cls(members=members, names=names, source=source, tests=tuple(tests))


def first_module_in_words(name: str) -> str:
    """Return the first module as it stands in sentences: the channel, or the name of what comes before the content."""
    return "the channel" if name == "channel" else f"`{name}`"


def structural_links(modules: ActionSpace) -> list[tuple[int, int]]:
    """Return the pairs of content modules of which one is the other's parent or condition.

    A parent or a condition that is the channel joins nothing, since factors are drawn given the channel.
    """
    links = []
    for m in range(1, len(modules)):
        parent = modules.parent(m)
        earlier = modules.condition(m) if parent is None else parent[0]
        if earlier:
            links.append((earlier, m))
    return links


def find_factors(log: LoggedDecisions, declared: str = TESTED) -> Factors:
    """Divide the content modules of a log into factors.

    A module with a parent or a condition is in its factor. What else belongs together is declared, or tested on the log
    (`dependence_tests`); a pair that the tests reject is joined, since orders below the highest are biased where a
    module's propensity depends on a module of another factor. Pairs are tested: modules that depend on each other only
    three at a time are not found. Where the logged probability of the whole action is not the product of those of its
    modules, these are not given the earlier modules, and all modules are one factor.

    Args:
        log: The logged decisions, with propensities.
        declared: `tested`; `independent` for a log whose content modules were drawn independently by design; or which
            modules were drawn together, such as `offer+tone, time+greeting`: modules that are not named are factors of
            their own.

    Raises:
        ConfigError: If a declared module is unknown, the first one, or named twice.
    """
    modules, links, given = log.modules, structural_links(log.modules), first_module_in_words(log.modules.names[0])
    everything = [(1, m) for m in range(2, len(modules))]
    if len(modules) <= 2:
        return Factors.from_links(modules, links, "There is one content module.")
    if different := _not_a_product(log):
        source = (
            f"The logged probability of the whole action is not the product of its modules' at {different:,} "
            "decisions, so that all content modules are one factor."
        )
        return Factors.from_links(modules, everything, source)
    if declared != TESTED:
        source = f"The configuration declares which content modules were drawn independently given {given}."
        return Factors.from_links(modules, [*links, *declared_links(modules, declared)], source)
    known = {frozenset(pair) for pair in links}
    pairs = [(j, m) for m in range(2, len(modules)) for j in range(1, m) if frozenset((j, m)) not in known]
    tests = dependence_tests(log, pairs)
    joined = [(t.first, t.second) for t in tests if t.dependent]
    if joined:
        named = ", ".join(f"`{modules.names[a]}` and `{modules.names[b]}`" for a, b in joined)
        source = f"Tested on the log: given {given}, {named} were not drawn independently and are one factor."
        if len({m for pair in joined for m in pair}) > 2:
            source = f"Tested on the log: given {given}, these were not drawn independently: {named}."
    else:
        source = f"Tested on the log: no pair of content modules was found to depend on each other given {given}."
    return Factors.from_links(modules, [*links, *joined], source, tests)


def check_factors(modules: ActionSpace, declared: str) -> None:
    """Check a declaration of factors (`find_factors`) against the modules of a log.

    Raises:
        ConfigError: If a declared module is unknown, the first one, or named twice.
    """
    if declared != TESTED:
        declared_links(modules, declared)


def declared_links(modules: ActionSpace, declared: str) -> list[tuple[int, int]]:
    """Return the pairs of modules that a declaration such as `offer+tone, time+greeting` joins.

    Raises:
        ConfigError: If a module is unknown, the first one, or named twice.
    """
    if declared == INDEPENDENT:
        return []
    groups = [[name.strip() for name in group.split("+")] for group in declared.split(",")]
    named = [name for group in groups for name in group]
    content = modules.names[1:]
    if unknown := [name for name in named if name not in content]:
        raise ConfigError(
            f"factors {declared!r} names {unknown[0]!r}, which is not a content module: name some of {list(content)}, "
            f"or use {TESTED!r} or {INDEPENDENT!r}"
        )
    if len(set(named)) != len(named):
        raise ConfigError(f"factors {declared!r} names a module twice")
    codes = [[modules.names.index(name) for name in group] for group in groups]
    return [(group[0], m) for group in codes for m in group[1:]]


def _not_a_product(log: LoggedDecisions) -> int:
    """Return the number of messages whose joint propensity is not the product of their modules', beyond rounding."""
    ratio = log.propensity.prod(1) / log.joint
    differs = np.abs(ratio - 1) > MAX_ROUNDING
    return int((differs & log.modules.sends(log.actions)).sum())
