"""Action modules: canonical form, masks without dead ends, composites and probabilities, on random module trees."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError

pytestmark = pytest.mark.numerics

TREE = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("hour", ("morning", "evening")),
        Module("offer", ("long", "short", "tiny"), parent="channel", requires=("email", "email", "push")),
        Module("tone", ("plain", "warm"), labels={"warm": {"emoji": 1}}),
    ]
)


@st.composite
def module_trees(draw: st.DrawFn) -> ActionSpace:
    """One to four modules; each later one may have a parent, whose sending actions it covers, or a condition."""
    sizes = draw(st.lists(st.integers(2, 3), min_size=1, max_size=4))
    modules = [Module("m0", tuple(f"a{i}" for i in range(sizes[0])))]
    for m, size in enumerate(sizes[1:], start=1):
        p = draw(st.one_of(st.none(), st.integers(0, m - 1)))
        if p is None or draw(st.booleans()):
            condition = None if p is None else f"m{p}"
            modules.append(Module(f"m{m}", tuple(f"a{i}" for i in range(size)), condition_on=condition))
            continue
        upper = modules[p].actions[1:] if p == 0 else modules[p].actions
        extra = draw(st.lists(st.sampled_from(upper), max_size=2))
        requires = draw(st.permutations([*upper, *extra]))
        actions = tuple(f"a{i}" for i in range(len(requires)))
        modules.append(Module(f"m{m}", actions, parent=f"m{p}", requires=tuple(requires)))
    return ActionSpace(modules)


@st.composite
def masked(draw: st.DrawFn) -> tuple[ActionSpace, np.ndarray]:
    modules = draw(module_trees())
    rows = draw(
        st.lists(st.lists(st.booleans(), min_size=modules.total, max_size=modules.total), min_size=1, max_size=4)
    )
    return modules, np.array(rows, dtype=bool)


def every_action(modules: ActionSpace) -> list[tuple[int, ...]]:
    """All actions by trying every row of codes, slowly."""
    rows = itertools.product(*[range(size) for size in modules.sizes])
    out = set()
    for row in rows:
        names = {module.name: module.actions[code] for module, code in zip(modules, row, strict=True)}
        fits = all(m.parent is None or m.requires[c] == names[m.parent] for m, c in zip(modules, row, strict=True))
        if row[0] == 0:
            out.add((0,) * len(modules))
        elif fits:
            out.add(row)
    return sorted(out)


def allowed(modules: ActionSpace, mask: np.ndarray, row: tuple[int, ...]) -> bool:
    if row[0] == 0:
        return True
    return all(mask[s.start + code] for s, code in zip(modules.slices, row, strict=True))


@given(module_trees())
@settings(max_examples=60, deadline=None)
def test_composites_are_every_action_once(modules: ActionSpace):
    assert [tuple(row) for row in modules.joint_actions.tolist()] == every_action(modules)
    np.testing.assert_array_equal(modules.joint_index(modules.joint_actions), np.arange(len(modules.joint_actions)))
    assert modules.valid(modules.joint_actions).all()


@given(masked())
@settings(max_examples=200, deadline=None)
def test_a_closed_mask_has_no_dead_ends_and_loses_nothing(case: tuple[ActionSpace, np.ndarray]):
    modules, mask = case
    closed = modules.feasible_mask(mask)
    for before, after in zip(mask, closed, strict=True):
        possible = [row for row in every_action(modules) if allowed(modules, before, row)]
        assert possible == [row for row in every_action(modules) if allowed(modules, after, row)]
        reached = {(m, code) for row in possible if row[0] != 0 for m, code in enumerate(row)} | {(0, 0)}
        left = {(m, c) for m, s in enumerate(modules.slices) for c in np.flatnonzero(after[s]).tolist()}
        if left & {(0, code) for code in range(1, modules.sizes[0])}:
            assert left == reached
        else:
            # Only sending nothing is eligible; what modules without a parent offer then has no meaning.
            assert reached == {(0, 0)}
    np.testing.assert_array_equal(modules.feasible_mask(closed), closed)


def test_closing_a_mask_leaves_the_original_alone():
    mask = np.zeros((1, TREE.total), dtype=bool)
    closed = TREE.feasible_mask(mask)
    assert not mask.any()
    assert closed[0, 0]
    assert not closed[0, 1:3].any()


def random_policy(modules: ActionSpace, n: int, seed: int) -> list[np.ndarray]:
    """Probabilities that sum to 1 within each group, and in each row of a table."""
    rng = np.random.default_rng(seed)
    shares = []
    for m in range(len(modules)):
        p = rng.random((n, *modules.shape(m))) + 0.01
        for group in modules.groups(m):
            p[..., group] /= p[..., group].sum(axis=-1, keepdims=True)
        shares.append(p)
    return shares


def chance(modules: ActionSpace, shares: list[np.ndarray], row: int, action: tuple[int, ...]) -> float:
    """Probability of one action, factor by factor, slowly."""
    out = float(shares[0][row, action[0]])
    if action[0] == 0:
        return out
    for m in range(1, len(modules)):
        name = modules[m].condition_on
        table = shares[m][row] if name is None else shares[m][row, action[modules.names.index(name)]]
        out *= float(table[action[m]])
    return out


@given(masked(), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_joint_probabilities_are_products_and_add_up_to_1(case: tuple[ActionSpace, np.ndarray], seed: int):
    modules, _ = case
    shares = random_policy(modules, 3, seed)
    joint = modules.all_joint_probabilities(shares)
    np.testing.assert_allclose(joint.sum(axis=1), 1.0, rtol=1e-12)
    for j, action in enumerate(modules.joint_actions):
        slow = [chance(modules, shares, row, tuple(action)) for row in range(3)]
        np.testing.assert_allclose(joint[:, j], slow, rtol=1e-12)
        taken = modules.chosen_probabilities(shares, np.tile(action, (3, 1)))
        np.testing.assert_allclose(taken.prod(axis=1), joint[:, j], rtol=1e-12)
        if action[0] == 0:
            assert (taken[:, 1:] == 1).all()


@given(masked(), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_marginals_are_sums_over_joint_actions(case: tuple[ActionSpace, np.ndarray], seed: int):
    modules, _ = case
    shares = random_policy(modules, 3, seed)
    joint = modules.all_joint_probabilities(shares)
    for m, found in enumerate(modules.marginals(shares)):
        sent = (modules.joint_actions[:, 0] != 0) | (m == 0)
        for code in range(modules.sizes[m]):
            rows = sent & (modules.joint_actions[:, m] == code)
            np.testing.assert_allclose(found[:, code], joint[:, rows].sum(axis=1), atol=1e-12)


@given(module_trees(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_what_is_given_earlier_choices_is_a_ratio_of_joint_probabilities(modules: ActionSpace, seed: int):
    shares = random_policy(modules, 1, seed)
    joint = modules.all_joint_probabilities(shares)[0]
    for action in modules.joint_actions[1:]:
        for m in range(1, len(modules)):
            found = modules.conditional(m, shares[m], action[None])[0]
            before = (modules.joint_actions[:, :m] == action[:m]).all(axis=1) & (modules.joint_actions[:, 0] != 0)
            for code in range(modules.sizes[m]):
                here = before & (modules.joint_actions[:, m] == code)
                np.testing.assert_allclose(found[code], joint[here].sum() / joint[before].sum(), atol=1e-12)


@given(module_trees())
@settings(max_examples=60, deadline=None)
def test_cells_number_the_rows_of_a_table(modules: ActionSpace):
    for m in range(len(modules)):
        table = np.arange(modules.n_table_cells(m)).reshape(modules.shape(m))
        name = modules[m].condition_on
        for action in modules.joint_actions:
            place = (action[m],) if name is None else (action[modules.names.index(name)], action[m])
            assert modules.table_cell(m, action[None])[0] == table[place]


@given(module_trees())
@settings(max_examples=60, deadline=None)
def test_groups_divide_each_module(modules: ActionSpace):
    for m, size in enumerate(modules.sizes):
        groups = modules.groups(m)
        assert sorted(np.concatenate(groups).tolist()) == list(range(size))
        if modules[m].parent is not None:
            assert all(len({modules[m].requires[c] for c in group}) == 1 for group in groups)
            assert len(groups) == len(set(modules[m].requires))


@given(module_trees())
@settings(max_examples=60, deadline=None)
def test_a_description_gives_the_same_modules_back(modules: ActionSpace):
    assert ActionSpace.from_dict(modules.to_dict()) == modules


def test_the_description_keeps_labels():
    again = ActionSpace.from_dict(TREE.to_dict())
    assert again == TREE
    assert again["tone"].labels == {"warm": {"emoji": 1}}


def test_equal_actions_are_equal_in_canonical_form():
    actions = np.array([[0, 1, 2, 1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(TREE.canonical(actions), [[0, 0, 0, 0], [1, 1, 1, 0]])
    assert actions[0, 1] == 1, "the given array is left alone"
    assert TREE.sends(actions).tolist() == [False, True]


def test_valid_actions():
    rows = [[1, 0, 1, 0], [1, 0, 2, 0], [2, 1, 2, 1], [2, 1, 3, 1], [0, 1, 2, 1], [-1, 0, 0, 0]]
    assert TREE.valid(np.array(rows)).tolist() == [True, False, True, False, True, False]


def test_names_of_actions():
    assert TREE.names_of(np.array([[0, 0, 0, 0], [2, 1, 2, 0]])) == [("none",), ("push", "evening", "tiny", "plain")]


def test_a_conditional_mask_follows_the_parents_choice():
    mask = np.ones((2, TREE.total), dtype=bool)
    mask[:, TREE.slices[2].start] = False
    actions = np.array([[1, 0, 0, 0], [2, 0, 0, 0]])
    np.testing.assert_array_equal(TREE.conditional_mask(2, mask, actions), [[False, True, False], [False, False, True]])
    assert TREE.conditional_mask(3, mask, actions).all()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "there are no modules"),
        ([{"name": "a", "actions": []}], "has no actions"),
        ([{"name": "a", "actions": ["x", False]}], "action False, which is not text"),
        ([{"name": "a", "actions": ["x", "x"]}], "names an action twice"),
        ([{"name": "a", "actions": ["x"]}, {"name": "a", "actions": ["x"]}], "the same name"),
        ([{"name": "a", "actions": ["x"], "parent": "b"}], "`parent` and `requires` go together"),
        ([{"name": "a", "actions": ["x"], "parent": "b", "requires": ["y"]}], "not an earlier module"),
        ([{"name": "a", "actions": ["x"], "parent": "b", "requires": ["y", "z"]}], "`requires` has 2"),
        (
            [{"name": "a", "actions": ["x"]}, {"name": "b", "actions": ["y"], "parent": "a", "requires": ["z"]}],
            r"requires \['z'\], not among",
        ),
        ([{"name": "a", "actions": ["x"], "condition_on": "b"}], "conditioned on 'b', which is not an earlier module"),
        (
            [
                {"name": "a", "actions": ["x"]},
                {"name": "b", "actions": ["y"], "parent": "a", "requires": ["x"], "condition_on": "a"},
            ],
            "has the parent 'a', which determines its actions already",
        ),
        ([{"name": "a", "actions": ["x"], "labels": {"y": {}}}], r"labels for \['y'\]"),
        ([{"name": "a", "action": ["x"]}], r"unknown keys \['action'\]"),
        ([{"name": "a"}], r"lacks \['actions'\]"),
    ],
)
def test_modules_that_cannot_be(entries: list[dict[str, Any]], message: str):
    with pytest.raises(ConfigError, match=message):
        ActionSpace.from_dict(entries)


def test_too_many_joint_actions_are_not_listed():
    wide = ActionSpace([Module(f"m{i}", tuple(f"a{j}" for j in range(20))) for i in range(5)])
    with pytest.raises(ConfigError, match="has more than 100,000 joint actions"):
        _ = wide.joint_actions


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": 7, "actions": ["none", "email"]}, "name 7, which is not text"),
        ({"name": "channel", "actions": "email"}, "`actions` is 'email', which is not a list"),
        ({"name": "channel", "actions": None}, "`actions` is None"),
        ({"name": "channel", "actions": ["none", "a"], "parent": "x", "requires": "xy"}, "`requires` is 'xy'"),
        ({"name": "channel", "actions": ["none", "a"], "nothing": False}, "name False, which is not text"),
        ({"name": "channel", "actions": ["none", "a"], "labels": 3}, "`labels` is 3"),
        ({"name": "channel", "actions": ["none", "a"], "labels": {"a": 3}}, "labels of 'a': 3 is not a mapping"),
        ({"name": "channel", "actions": ["none", "a"], "labels": {"a": {"x": {}}}}, "x is {}, which is neither text"),
        ({"name": "channel", "actions": ["none", "a"], "labels": {"a": {"x": math.nan}}}, "x is nan"),
        ({"name": "channel", "actions": ["none", "a"], "labels": {"a": {"x": 1e300}}}, "x is 1e.300, which is too"),
        ({"name": "channel", "actions": ["none", "a"], "labels": {"a": {"duration": -1}}}, "duration is -1: give a"),
        ({"name": "channel", "actions": ["none", "a"], "labels": {"a": {"duration": "7d"}}}, "duration is '7d': give"),
        ({"name": "channel", "actions": ["none", "a"], "labels": {"a": {"send_from": True}}}, "send_from is True"),
    ],
)
def test_an_entry_of_another_type_is_named(entry: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        ActionSpace.from_dict([entry])


def test_a_mapping_chooses_content_given_the_first_module_unless_it_says_otherwise() -> None:
    entries = [
        {"name": "channel", "actions": ["none", "email", "push"]},
        {"name": "hour", "actions": ["morning", "evening"]},
        {"name": "picture", "actions": ["product", "people"], "condition_on": "hour"},
        {"name": "sender", "actions": ["shop", "team"], "condition_on": None},
        {"name": "layout", "actions": ["long", "short"], "parent": "channel", "requires": ["email", "push"]},
    ]
    found = ActionSpace.from_mapping(entries)
    assert [module.condition_on for module in found] == [None, "channel", "hour", None, None]
    assert found.shape(1) == (3, 2)
    assert ActionSpace.from_dict(found.to_dict()) == found
    assert found.without_conditions() == ActionSpace([replace(one, condition_on=None) for one in found])


def test_a_mapping_may_have_one_module() -> None:
    entries = [{"name": "channel", "actions": ["none", "email"]}]
    assert ActionSpace.from_mapping(entries) == ActionSpace.from_dict(entries)
