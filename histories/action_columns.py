"""Reads what was chosen at each decision: actions, their propensities, and what was eligible."""

from __future__ import annotations

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import nearest
from crosschannel.core.table_validator import Sheet, first

# Logged joint propensities are often rounded; a different policy is further away than this.
JOINT_TOLERANCE = 1e-3


def action_codes(d: Sheet, modules: ActionSpace) -> IntArray:
    """Codes (n, M) of the actions, -1 where there is no such action; 0 in later modules where nothing is sent."""
    actions = np.zeros((len(d), len(modules)), dtype=np.int64)
    sent = np.ones(len(d), dtype=bool)
    for m, module in enumerate(modules):
        if not d.has(module.name):
            actions[:, m] = -1
            sent &= m > 0
            continue
        missing = d.missing(module.name) & sent
        pattern, names = pd.factorize(d.texts(module.name))
        code = pd.Index(module.actions).get_indexer(pd.Index(names))[pattern].astype(np.int64)
        actions[:, m] = np.where(sent, code, 0)
        d.note(
            module.name,
            missing,
            "the action is missing" + (" although something was sent" if m > 0 else ""),
            f"Name one of the actions of `{module.name}`."
            if m > 0
            else f"Write {module.actions[0]!r} where nothing was sent.",
        )
        unknown = sent & ~missing & (code < 0)
        if (row := first(unknown)) is not None:
            d.note(
                module.name,
                unknown,
                f"this is not an action of the module {module.name!r}",
                f"Correct it, or add the action to the module. {nearest(names[pattern[row]], module.actions)}",
            )
        if m == 0:
            sent = code > 0
        _check_parent(d, modules, m, actions)
    return actions


def _check_parent(d: Sheet, modules: ActionSpace, m: int, actions: IntArray) -> None:
    parent = modules.parent(m)
    if parent is None:
        return
    p, required = parent
    code, upper = actions[:, m], actions[:, p]
    wrong = (actions[:, 0] > 0) & (code >= 0) & (upper >= 0) & (required[np.maximum(code, 0)] != upper)
    if (row := first(wrong)) is not None:
        module = modules[m]
        d.note(
            module.name,
            wrong,
            f"the action needs {module.requires[code[row]]!r} in `{module.parent}`, but the row has "
            f"{modules[p].actions[upper[row]]!r}",
            f"Correct either column, or `requires` of the module {module.name!r}.",
        )


def propensities(d: Sheet, modules: ActionSpace, actions: IntArray) -> tuple[FloatArray, FloatArray]:
    """Conditional (n, M) and joint (n,) propensities; NaN throughout where the log has none."""
    sent = actions[:, 0] != 0
    columns = [f"propensity_{name}" for name in modules.names]
    logged = [column for column in columns if d.has(column) and not d.missing(column).all()]
    propensity = np.full((len(d), len(modules)), np.nan)
    if logged and (absent := [column for column in columns if column not in logged]):
        d.add(
            f"there are propensities of some modules only, and none in {', '.join(f'`{c}`' for c in absent)}",
            "Log all of them, or only `propensity`, that of the whole action, or none.",
            column=logged[0],
        )
    for m, column in enumerate(columns):
        if column in logged:
            applies = sent | (m == 0)
            propensity[:, m] = np.where(applies, _probabilities(d, column, applies), 1.0)
    product = propensity.prod(axis=1)
    if not d.has("propensity") or d.missing("propensity").all():
        return propensity, product
    joint = _probabilities(d, "propensity", np.ones(len(d), dtype=bool))
    # Numbers that are no probabilities have been noted already.
    sound = (product > 0) & (product <= 1) & (joint > 0) & (joint <= 1)
    differs = sound & (np.abs(joint - product) > JOINT_TOLERANCE * product)
    if (row := first(differs)) is not None:
        d.note(
            "propensity",
            differs,
            f"the modules' propensities multiply to {product[row]:.6g}",
            "The joint propensity is the product of the modules', each given the earlier choices: correct one.",
        )
    if len(modules) == 1 and not logged:
        propensity[:, 0] = joint
    return propensity, joint


def _probabilities(d: Sheet, column: str, applies: BoolArray) -> FloatArray:
    """A propensity column (n,), checked in the rows that a mask (n,) names."""
    values, missing = d.numbers(column)
    d.note(
        column,
        missing & applies,
        "the propensity is missing in some rows only",
        "Fill it in, or leave the whole column out: missing propensities are estimated.",
    )
    d.note(
        column,
        applies & (values <= 0),
        "a propensity must be above 0: an action that is taken had a chance",
        "Log the probability with which the policy chose this action.",
    )
    d.note(
        column,
        applies & (values > 1),
        "a propensity is at most 1",
        "Log a probability, neither a percentage nor a score.",
    )
    return values


def eligible_mask(d: Sheet, modules: ActionSpace, actions: IntArray) -> BoolArray | None:
    """The logged action mask (n, sum of actions), or None where no module has one."""
    columns = [f"eligible_{name}" for name in modules.names]
    if not any(d.has(column) for column in columns):
        return None
    mask = np.ones((len(d), modules.total), dtype=bool)
    for m, (column, part) in enumerate(zip(columns, modules.split(mask), strict=True)):
        if not d.has(column):
            continue
        module = modules[m]
        # Rows share few different lists, and only those are taken apart.
        pattern, lists = pd.factorize(d.texts(column))
        parsed = [[name for name in str(text).split("|") if name] for text in lists]
        table = np.array([[name in names for name in module.actions] for names in parsed], dtype=bool)
        part[...] = table.reshape(len(lists), len(module.actions))[pattern]

        strange = [[name for name in names if name not in module.actions] for names in parsed]
        unknown = np.array([len(names) > 0 for names in strange], dtype=bool)[pattern]
        if (row := first(unknown)) is not None:
            name = strange[pattern[row]][0]
            d.note(
                column,
                unknown,
                f"{name!r} is not an action of the module {module.name!r}",
                f"List action names joined by |. {nearest(name, module.actions)}",
            )
        code = actions[:, m]
        # Sending nothing needs no leave: it is always eligible.
        absent = (actions[:, 0] > 0) & (code >= 0) & ~part[np.arange(len(d)), np.maximum(code, 0)]
        if (row := first(absent)) is not None:
            d.note(
                column,
                absent,
                f"the action taken, {module.actions[code[row]]!r}, is not among the eligible ones",
                "Log the actions that were eligible before the choice was made.",
            )
    return mask
