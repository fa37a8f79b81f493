"""Read the actions of decisions from a table, with their propensities and the eligible alternatives."""

from __future__ import annotations

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import nearest
from crosschannel.core.table_validator import TableValidator, first_true

#: How far, relatively, a logged joint propensity may be from the modules' product: enough for rounding.
JOINT_PROPENSITY_TOLERANCE = 1e-3


def action_codes(table: TableValidator, modules: ActionSpace) -> IntArray:
    """Return codes (n, M) of the actions, -1 for an unknown action; 0 in later modules where nothing is sent."""
    actions = np.zeros((len(table), len(modules)), dtype=np.int64)
    sent = np.ones(len(table), dtype=bool)
    for m, module in enumerate(modules):
        if not table.has(module.name):
            actions[:, m] = -1
            sent &= m > 0
            continue
        missing = table.missing(module.name) & sent
        pattern, names = pd.factorize(table.texts(module.name))
        code = pd.Index(module.actions).get_indexer(pd.Index(names))[pattern].astype(np.int64)
        actions[:, m] = np.where(sent, code, 0)
        table.flag_rows(
            module.name,
            missing,
            "the action is missing" + (" although something was sent" if m > 0 else ""),
            f"Name one of the actions of `{module.name}`."
            if m > 0
            else f"Write {module.actions[0]!r} where nothing was sent.",
        )
        unknown = sent & ~missing & (code < 0)
        if (row := first_true(unknown)) is not None:
            table.flag_rows(
                module.name,
                unknown,
                f"this is not an action of the module {module.name!r}",
                f"Correct it, or add the action to the module. {nearest(names[pattern[row]], module.actions)}",
            )
        if m == 0:
            sent = code > 0
        _check_parent(table, modules, m, actions)
    return actions


def _check_parent(table: TableValidator, modules: ActionSpace, m: int, actions: IntArray) -> None:
    parent = modules.parent(m)
    if parent is None:
        return
    p, required = parent
    code, upper = actions[:, m], actions[:, p]
    wrong = (actions[:, 0] > 0) & (code >= 0) & (upper >= 0) & (required[np.maximum(code, 0)] != upper)
    if (row := first_true(wrong)) is not None:
        module = modules[m]
        table.flag_rows(
            module.name,
            wrong,
            f"the action requires {module.requires[code[row]]!r} in `{module.parent}`, but the row has "
            f"{modules[p].actions[upper[row]]!r}",
            f"Correct either column, or `requires` of the module {module.name!r}.",
        )


def propensities(table: TableValidator, modules: ActionSpace, actions: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return conditional (n, M) and joint (n,) propensities, NaN in rows that have none."""
    sent = actions[:, 0] != 0
    columns = [f"propensity_{name}" for name in modules.names]
    logged = [column for column in columns if table.has(column) and not table.missing(column).all()]
    propensity = np.full((len(table), len(modules)), np.nan)
    if logged and (absent := [column for column in columns if column not in logged]):
        table.flag(
            f"some modules have propensities, but {', '.join(f'`{c}`' for c in absent)} are missing",
            "Log the propensities of all modules, or only that of the joint action (`propensity`), or none.",
            column=logged[0],
        )
    applies = np.stack([sent | (m == 0) for m in range(len(modules))], axis=1)
    for m, column in enumerate(columns):
        if column in logged:
            propensity[:, m] = np.where(applies[:, m], _probabilities(table, column, applies[:, m]), 1.0)
    if logged:
        _refuse_gaps(table, logged, [columns.index(column) for column in logged], propensity, applies)
        propensity[np.isnan(propensity).any(axis=1)] = np.nan
    product = propensity.prod(axis=1)
    if not table.has("propensity") or table.missing("propensity").all():
        return propensity, product
    joint = _probabilities(table, "propensity", np.ones(len(table), dtype=bool))
    # Numbers that are not probabilities have been flagged already.
    valid = (product > 0) & (product <= 1) & (joint > 0) & (joint <= 1)
    differs = valid & (np.abs(joint - product) > JOINT_PROPENSITY_TOLERANCE * product)
    if (row := first_true(differs)) is not None:
        table.flag_rows(
            "propensity",
            differs,
            f"the product of the modules' propensities is {product[row]:.6g}",
            "The joint propensity is the product of the modules' conditional propensities: correct one of them.",
        )
    joint = np.where(np.isnan(joint), product, joint)
    if len(modules) == 1:
        propensity[:, 0] = joint
    return propensity, joint


def _refuse_gaps(
    table: TableValidator, columns: list[str], modules: list[int], propensity: FloatArray, applies: BoolArray
) -> None:
    """Flag rows that have the propensities of some modules only, once for each of the columns."""
    gap = np.stack([applies[:, m] & table.missing(column) for m, column in zip(modules, columns, strict=True)], axis=1)
    given = applies[:, modules] & ~np.isnan(propensity[:, modules])
    for k, column in enumerate(columns):
        table.flag_rows(
            column,
            gap[:, k] & given.any(axis=1),
            "the propensity is missing, although the row has those of other modules",
            "Fill it in, or leave those of all modules empty in this row: missing propensities are estimated.",
        )


def _probabilities(table: TableValidator, column: str, applies: BoolArray) -> FloatArray:
    """Return a propensity column (n,), NaN where empty, validated in the rows of a mask (n,)."""
    values, _ = table.numbers(column)
    table.flag_rows(
        column,
        applies & (values <= 0),
        "a propensity must be above 0, since the action was taken",
        "Log the probability with which the policy chose this action, not rounded.",
    )
    table.flag_rows(
        column,
        applies & (values > 1),
        "a propensity is at most 1",
        "Log a probability, not a percentage or a score.",
    )
    return values


def eligible_mask(table: TableValidator, modules: ActionSpace, actions: IntArray) -> BoolArray | None:
    """Return the logged action mask (n, sum of actions), or None if no module has one."""
    columns = [f"eligible_{name}" for name in modules.names]
    if not any(table.has(column) for column in columns):
        return None
    mask = np.ones((len(table), modules.total), dtype=bool)
    for m, (column, part) in enumerate(zip(columns, modules.split(mask), strict=True)):
        if not table.has(column):
            continue
        module = modules[m]
        # There are few different lists, and only those are parsed.
        pattern, lists = pd.factorize(table.texts(column))
        parsed = [[name for name in str(text).split("|") if name] for text in lists]
        listed = np.array([[name in names for name in module.actions] for names in parsed], dtype=bool)
        part[...] = listed.reshape(len(lists), len(module.actions))[pattern]

        others = [[name for name in names if name not in module.actions] for names in parsed]
        unknown = np.array([len(names) > 0 for names in others], dtype=bool)[pattern]
        if (row := first_true(unknown)) is not None:
            name = others[pattern[row]][0]
            table.flag_rows(
                column,
                unknown,
                f"{name!r} is not an action of the module {module.name!r}",
                f"List action names joined by |. {nearest(name, module.actions)}",
            )
        code = actions[:, m]
        # Sending nothing is always eligible.
        absent = (actions[:, 0] > 0) & (code >= 0) & ~part[np.arange(len(table)), np.maximum(code, 0)]
        if (row := first_true(absent)) is not None:
            table.flag_rows(
                column,
                absent,
                f"the action taken, {module.actions[code[row]]!r}, is not among the eligible ones",
                "Log the actions that were eligible before the decision was made.",
            )
    return mask
