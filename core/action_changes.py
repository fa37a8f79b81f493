"""Change the actions of an agent: map old codes to new ones, and share what was learned through labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError


def known_actions(present: ActionSpace, before: ActionSpace) -> ActionSpace:
    """Return the present actions, followed in each module by those that were known before and are retired.

    An agent keeps what it learned about retired actions: new actions with the same labels profit from it, and a retired
    action may return. Present actions come first, so that their codes are the same in both spaces.

    Raises:
        ConfigError: If more has changed than the actions: the modules' names, their order, their dependencies, or the
            action that sends nothing.
    """
    if present == before:
        return present
    if present.names != before.names:
        raise ConfigError(
            f"the modules {list(present.names)} differ from those the agent learned, {list(before.names)}: actions may "
            "be added and retired, but modules must stay the same"
        )
    if present[0].actions[0] != before[0].actions[0]:
        raise ConfigError(
            f"the action that sends nothing is {present[0].actions[0]!r}, but the agent learned "
            f"{before[0].actions[0]!r}: it must stay the first"
        )
    return ActionSpace([_known(new, old) for new, old in zip(present, before, strict=True)])


def _known(new: Module, old: Module) -> Module:
    if (new.parent, new.condition_on) != (old.parent, old.condition_on):
        raise ConfigError(
            f"module {new.name!r} depends on {_in_words(new)}, but the agent learned it depending on {_in_words(old)}: "
            "actions may change, dependencies may not. Declare `parent` and `condition_on` as they were, or train a "
            "new agent"
        )
    retired = [code for code, name in enumerate(old.actions) if name not in new.actions]
    names = [old.actions[code] for code in retired]
    return Module(
        name=new.name,
        actions=(*new.actions, *names),
        parent=new.parent,
        requires=(*new.requires, *(old.requires[code] for code in retired)) if new.parent else (),
        labels={**{name: old.labels[name] for name in names if name in old.labels}, **new.labels},
        condition_on=new.condition_on,
        nothing=new.nothing,
    )


def _in_words(module: Module) -> str:
    earlier = module.parent or module.condition_on
    return "nothing (`condition_on: null`)" if earlier is None else repr(earlier)


def recode_actions(actions: Tensor, before: ActionSpace, after: ActionSpace) -> Tensor:
    """Translate actions (n, M) from the codes of `before` to those of `after`, which has all of these actions."""
    out = actions.clone()
    for m in range(len(before)):
        code = [after[m].actions.index(name) for name in before[m].actions]
        out[:, m] = torch.tensor(code, dtype=actions.dtype)[actions[:, m].long()]
    return out


def previous_cells(before: ActionSpace, after: ActionSpace, m: int) -> IntArray:
    """Return the cell in `before` of each of module m's table cells in `after`, (cells,); -1 for new cells."""

    def codes(j: int) -> IntArray:
        there = {name: code for code, name in enumerate(before[j].actions)}
        return np.array([there.get(name, -1) for name in after[j].actions], dtype=np.int64)

    own, c = codes(m), after.condition(m)
    if c is None:
        return own
    upper = codes(c)
    cell = upper[:, None] * before.sizes[m] + own[None, :]
    return np.where((upper[:, None] < 0) | (own[None, :] < 0), -1, cell).reshape(-1)


def carry_over(saved: npt.NDArray[Any], place: IntArray, fresh: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Move saved values (cells before, ...) to their new cells (cells after, ...); new cells take those of `fresh`."""
    out = np.array(fresh)
    old = place >= 0
    out[old] = saved[place[old]]
    return out


def select_present(values: npt.NDArray[Any], known: ActionSpace, present: ActionSpace, m: int) -> npt.NDArray[Any]:
    """Select from values of all known cells (..., cells) those of the present actions (..., *present.shape(m))."""
    out = values.reshape(*values.shape[:-1], *known.shape(m))[..., : present.sizes[m]]
    c = present.condition(m)
    return out if c is None else out[..., : present.sizes[c], :]


def design_matrix(modules: ActionSpace, m: int) -> FloatArray:
    """Return the design matrix (cells, L) of module m's table cells: an intercept, labels, and indicators.

    A numeric label is one column, standardised over the module's actions; any other label has an indicator column for
    each of its values. Actions without the label have 0. If the module is conditioned on another, each action of either
    module has an indicator column as well, so that cells share what is learned.
    """
    own = np.concatenate([np.ones((modules.sizes[m], 1)), label_columns(modules[m])], axis=1)
    c = modules.condition(m)
    if c is None:
        return own
    own = np.concatenate([own, np.eye(modules.sizes[m])], axis=1)
    return np.concatenate(
        [np.tile(own, (modules.sizes[c], 1)), np.repeat(np.eye(modules.sizes[c]), modules.sizes[m], axis=0)], axis=1
    )


def label_columns(module: Module) -> FloatArray:
    """Return the labels of a module's actions as columns (A_m, labels)."""
    columns: list[FloatArray] = []
    for name in sorted({name for entry in module.labels.values() for name in entry}):
        values = [_hashable(module.labels.get(action, {}).get(name)) for action in module.actions]
        given = [value for value in values if value is not None]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in given):
            mean, deviation = np.mean(given), np.std(given)
            if deviation > 0:
                columns.append(np.array([0.0 if v is None else (v - mean) / deviation for v in values]))
            continue
        columns += [np.array([float(value == kind) for value in values]) for kind in dict.fromkeys(given)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(module.actions), 0))


def _hashable(value: Any) -> Any:
    """Return a label's value as something that can be a key of a mapping."""
    return tuple(value) if isinstance(value, list) else value
