"""Action spaces of modules (channel, send time, offer, ...) whose choices together make one joint action."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_labels import check_labels
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError

MAX_JOINT_ACTIONS = 100_000


@dataclass(frozen=True)
class Module:
    """One part of the joint action, such as the channel.

    Attributes:
        name: The module's name, and the name of its column in files.
        actions: The names of its actions.
        parent: An earlier module that determines which actions are eligible, or None.
        requires: For each action, the action of `parent` under which it is eligible.
        labels: Optional facts about an action (`{"offer_1": {"difficulty": 10}}`).
        condition_on: An earlier module on whose action the policy may condition this one, or None: every action stays
            eligible, but a policy has one row of probabilities for each action of the earlier module. A module has a
            parent or a condition, not both.
        nothing: The action that sends nothing, declared because its name may be taken for a message. It must be the
            first of the first module.
    """

    name: str
    actions: tuple[str, ...]
    parent: str | None = None
    requires: tuple[str, ...] = ()
    labels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    condition_on: str | None = None
    nothing: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for key in ("actions", "requires"):
            if not isinstance(getattr(self, key), list | tuple):
                raise ConfigError(f"module {self.name!r}: `{key}` is {getattr(self, key)!r}, which is not a list")
            object.__setattr__(self, key, tuple(getattr(self, key)))
        if not self.actions:
            raise ConfigError(f"module {self.name!r} has no actions: give it at least one")
        # YAML reads `no` and `off` without quotes as false, and 10 as a number.
        if odd := [action for action in self.actions if not isinstance(action, str)]:
            raise ConfigError(f"module {self.name!r} has the action {odd[0]!r}, which is not text: quote it")
        others = (self.parent, self.condition_on, self.nothing)
        names = (self.name, *self.requires, *(name for name in others if name is not None))
        if odd := [name for name in names if not isinstance(name, str)]:
            raise ConfigError(f"module {self.name!r} has the name {odd[0]!r}, which is not text: quote it")
        check_labels(self.name, self.labels)
        if len(set(self.actions)) != len(self.actions):
            raise ConfigError(f"module {self.name!r} names an action twice: {list(self.actions)}")
        if (self.parent is None) != (not self.requires):
            raise ConfigError(f"module {self.name!r}: `parent` and `requires` go together; give both or neither")
        if self.requires and len(self.requires) != len(self.actions):
            raise ConfigError(
                f"module {self.name!r} has {len(self.actions)} actions but `requires` has {len(self.requires)} "
                "entries: give one for each action"
            )
        if self.parent is not None and self.condition_on is not None:
            raise ConfigError(
                f"module {self.name!r} has the parent {self.parent!r}, which determines its actions already: "
                "leave out `condition_on`"
            )
        if unknown := sorted(set(self.labels) - set(self.actions)):
            raise ConfigError(f"module {self.name!r} has labels for {unknown}, which are not among its actions")


def any_of(mask: npt.NDArray[Any]) -> BoolArray:
    """Return whether any entry of the last axis is set (...,), column by column, as reducing short rows is slow."""
    return np.asarray(functools.reduce(np.logical_or, np.moveaxis(mask, -1, 0)))


class ActionSpace(Sequence[Module]):
    """The M modules of a history, in order. Action 0 of the first module is *send nothing*.

    A joint action is a row of M integer codes, one per module. If its first code is 0, nothing is sent; the other codes
    then have no meaning and are 0 in canonical form, so that equal actions have equal codes.

    A flat array over the actions of all modules (such as an action mask) concatenates the modules: the columns
    `slices[m]` belong to module m.

    Probabilities of a policy are a list with one array per module, (N, *shape(m)): (N, A_m), or a table (N, A_c, A_m)
    with a row for each action of the module c that m is conditioned on. If c is the first module, row 0 of the table
    has no meaning, as nothing is sent then.
    """

    def __init__(self, modules: Sequence[Module]) -> None:
        self._modules = tuple(modules)
        if not self._modules:
            raise ConfigError("there are no modules: give at least one, whose first action is to send nothing")
        self.names = tuple(module.name for module in self._modules)
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"two modules have the same name: {list(self.names)}")
        self.sizes = tuple(len(module.actions) for module in self._modules)
        bounds = np.concatenate([[0], np.cumsum(self.sizes)])
        self.slices = tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(bounds))
        self.total = int(bounds[-1])
        self._parents = [self._find_parent(m) for m in range(len(self._modules))]
        self._conditions = [self._find_condition(m) for m in range(len(self._modules))]

    def _find_parent(self, m: int) -> tuple[int, IntArray] | None:
        module = self._modules[m]
        if module.parent is None:
            return None
        p = self._find_earlier(m, module.parent, "depends on")
        actions = self._modules[p].actions
        if unknown := sorted(set(module.requires) - set(actions)):
            raise ConfigError(f"module {module.name!r} requires {unknown}, not among the actions of {module.parent!r}")
        return p, np.array([actions.index(name) for name in module.requires], dtype=np.int64)

    def _find_condition(self, m: int) -> int | None:
        name = self._modules[m].condition_on
        return None if name is None else self._find_earlier(m, name, "is conditioned on")

    def _find_earlier(self, m: int, name: str, relation: str) -> int:
        """Return the index of the module of a name, to which module m has a relation; it is an earlier one."""
        if name not in self.names[:m]:
            raise ConfigError(
                f"module {self.names[m]!r} {relation} {name!r}, which is not an earlier module: "
                f"name one of {list(self.names[:m])}"
            )
        return self.names.index(name)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules)

    def __getitem__(self, index: Any) -> Any:
        return self._modules[self.names.index(index) if isinstance(index, str) else index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActionSpace) and self._modules == other._modules

    def __hash__(self) -> int:
        return hash((self.names, self.sizes))

    def __repr__(self) -> str:
        return f"ActionSpace({', '.join(f'{module.name}[{len(module.actions)}]' for module in self)})"

    def parent(self, m: int) -> tuple[int, IntArray] | None:
        """Return the index of module m's parent, and for each action of m the parent's code that it requires."""
        return self._parents[m]

    def condition(self, m: int) -> int | None:
        """Return the index of the earlier module that module m is conditioned on, or None."""
        return self._conditions[m]

    def shape(self, m: int) -> tuple[int, ...]:
        """Return the shape of one row of module m's probabilities: (A_m,), or (A_c, A_m) if it is conditioned on c."""
        c = self._conditions[m]
        return (self.sizes[m],) if c is None else (self.sizes[c], self.sizes[m])

    def n_table_cells(self, m: int) -> int:
        """Return the number of entries of `shape(m)`: module m's actions, for each action it is conditioned on."""
        return math.prod(self.shape(m))

    def table_cell(self, m: int, actions: IntArray) -> IntArray:
        """Return the index of each action (N, M) in the flattened `shape(m)` of module m, (N,)."""
        c, codes = self._conditions[m], np.asarray(actions)
        return np.asarray(codes[:, m] if c is None else codes[:, c] * self.sizes[m] + codes[:, m], dtype=np.int64)

    def groups(self, m: int) -> list[IntArray]:
        """Return the sets of alternatives in module m: all actions, or those that require the same parent's action."""
        parent = self._parents[m]
        if parent is None:
            return [np.arange(self.sizes[m], dtype=np.int64)]
        return [np.flatnonzero(parent[1] == code) for code in np.unique(parent[1])]

    def sends(self, actions: IntArray) -> BoolArray:
        """Return whether each action (N, M) sends a message, (N,)."""
        return np.asarray(np.asarray(actions)[:, 0] != 0)

    def canonical(self, actions: IntArray) -> IntArray:
        """Return a copy of the actions (N, M) with 0 in every module where nothing is sent."""
        out = np.array(actions, dtype=np.int64)
        out[out[:, 0] == 0] = 0
        return out

    def valid(self, actions: IntArray) -> BoolArray:
        """Return whether each row (N, M) is an action, (N,): codes in range, and parents' actions as required."""
        actions = np.asarray(actions)
        inside = np.logical_and(actions >= 0, actions < np.asarray(self.sizes)).all(1)
        ok = inside.copy()
        sent = self.sends(actions)
        for m, parent in enumerate(self._parents):
            if parent is not None:
                code = np.clip(actions[:, m], 0, self.sizes[m] - 1)
                ok &= ~sent | (parent[1][code] == actions[:, parent[0]])
        return np.asarray(ok)

    def split(self, flat: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Return views (N, A_m) of a flat array (N, total), one per module."""
        return [flat[..., s] for s in self.slices]

    def feasible_mask(self, mask: npt.NDArray[Any]) -> BoolArray:
        """Return a copy of the mask (N, total) without actions that are not part of any eligible joint action.

        Sending nothing is always eligible. An action of a parent module without an eligible child is not eligible. If
        a module has no eligible action at all, sending nothing is the only eligible joint action.
        """
        out = np.array(mask, dtype=bool)
        parts = self.split(out)
        parts[0][..., 0] = True
        for m in range(len(self) - 1, 0, -1):
            parent = self._parents[m]
            if parent is not None:
                p, required = parent
                parts[m][...] &= parts[p][..., required]
                for code in range(1 if p == 0 else 0, self.sizes[p]):
                    parts[p][..., code] &= parts[m][..., required == code].any(-1)
        self._descend(parts)
        if len(self) > 1:
            sendable = np.logical_and.reduce([any_of(part) for part in parts[1:]])
            parts[0][..., 1:] &= sendable[..., None]
        self._descend(parts)
        return out

    def _descend(self, parts: Sequence[npt.NDArray[Any]]) -> None:
        """Remove, in place, the actions whose parent's action is not eligible."""
        for m, parent in enumerate(self._parents):
            if parent is not None:
                parts[m][...] &= parts[parent[0]][..., parent[1]]

    def conditional_mask(self, m: int, mask: npt.NDArray[Any], actions: IntArray) -> BoolArray:
        """Return the eligible actions of module m (N, A_m), given the earlier modules' codes in `actions` (N, M)."""
        part = np.array(mask[:, self.slices[m]], dtype=bool)
        parent = self._parents[m]
        if parent is not None:
            part &= parent[1][None, :] == np.asarray(actions)[:, parent[0], None]
        return part

    def conditional(self, m: int, probabilities: FloatArray, actions: IntArray) -> FloatArray:
        """Return the probabilities (N, A_m) of module m, given the earlier modules' codes in `actions` (N, M).

        Args:
            m: Index of the module.
            probabilities: Its probabilities (N, *shape(m)).
            actions: Codes; those of module m and of later ones are ignored.
        """
        codes = np.asarray(actions)
        c, parent = self._conditions[m], self._parents[m]
        if c is not None:
            return np.asarray(probabilities[np.arange(len(codes)), codes[:, c]])
        if parent is not None:
            return np.where(parent[1][None, :] == codes[:, parent[0], None], probabilities, 0.0)
        return probabilities

    def chosen_probabilities(self, probabilities: Sequence[FloatArray], actions: IntArray) -> FloatArray:
        """Return the conditional probabilities (N, M) of given actions, from one array (N, *shape(m)) per module.

        Where nothing is sent, the later modules have probability 1. The joint probability of an action is the product
        of its row.
        """
        actions = self.canonical(actions)
        rows = np.arange(len(actions))
        columns = [
            p.reshape(len(p), self.n_table_cells(m))[rows, self.table_cell(m, actions)]
            for m, p in enumerate(probabilities)
        ]
        out = np.stack(columns, axis=1).astype(np.float64)
        out[~self.sends(actions), 1:] = 1.0
        return out

    @cached_property
    def joint_actions(self) -> IntArray:
        """All joint actions in canonical form, (J, M); row 0 sends nothing.

        Raises:
            ConfigError: If there are more than `MAX_JOINT_ACTIONS`.
        """
        if np.prod([float(size) for size in self.sizes]) > MAX_JOINT_ACTIONS:
            raise ConfigError(
                f"{self} has more than {MAX_JOINT_ACTIONS:,} joint actions: evaluate each module separately"
            )
        grid = np.stack(np.meshgrid(*[np.arange(size) for size in self.sizes], indexing="ij"), -1).reshape(
            -1, len(self)
        )
        grid = grid[(grid[:, 0] != 0) & self.valid(grid)]
        return np.concatenate([np.zeros((1, len(self)), dtype=np.int64), grid.astype(np.int64)])

    def joint_index(self, actions: IntArray) -> IntArray:
        """Return the row of `joint_actions` that holds each action (N, M), (N,)."""
        flat = np.ravel_multi_index(tuple(self.canonical(actions).T), self.sizes)
        table = np.ravel_multi_index(tuple(self.joint_actions.T), self.sizes)
        return np.asarray(np.searchsorted(table, flat), dtype=np.int64)

    def joint_mask(self, mask: npt.NDArray[Any]) -> BoolArray:
        """Return which `joint_actions` are eligible (N, J), from a mask (N, total); sending nothing always is."""
        out = np.ones((len(mask), len(self.joint_actions)), dtype=bool)
        for m, part in enumerate(self.split(mask)):
            out &= np.asarray(part, dtype=bool)[:, self.joint_actions[:, m]]
        out[:, 0] = True
        return out

    def all_joint_probabilities(self, probabilities: Sequence[FloatArray]) -> FloatArray:
        """Return joint probabilities (N, J) of all `joint_actions`, from one array (N, *shape(m)) per module."""
        return self.joint_probabilities(probabilities, self.joint_actions)

    def joint_probabilities(self, probabilities: Sequence[FloatArray], actions: IntArray) -> FloatArray:
        """Return the probability (N, J) of each of J canonical actions (J, M) at each of N slots."""
        out = np.ones((len(probabilities[0]), len(actions)))
        for m, p in enumerate(probabilities):
            factor = p.reshape(len(p), self.n_table_cells(m))[:, self.table_cell(m, actions)]
            out *= factor if m == 0 else np.where(actions[None, :, 0] == 0, 1.0, factor)
        return out

    def marginals(self, probabilities: Sequence[FloatArray]) -> list[FloatArray]:
        """Return the marginal probability (N, A_m) of each action, one array per module.

        Where nothing is sent, no action of a later module is taken. A module depends on at most one earlier module, its
        parent or its condition, so its marginals follow from those of that module.

        Args:
            probabilities: One conditional array (N, *shape(m)) per module.
        """
        found = [np.asarray(probabilities[0], dtype=np.float64)]
        sent = found[0].copy()
        sent[:, 0] = 0.0
        for m in range(1, len(self)):
            parent, c = self._parents[m], self._conditions[m]
            if c is not None:
                found.append(np.einsum("nc,nca->na", found[c] if c else sent, probabilities[m]))
            elif parent is not None:
                found.append((found[parent[0]] if parent[0] else sent)[:, parent[1]] * probabilities[m])
            else:
                found.append(sent.sum(1, keepdims=True) * probabilities[m])
        return found

    def names_of(self, actions: IntArray) -> list[tuple[str, ...]]:
        """Return the action names of each row (N, M); only the first where nothing is sent."""
        return [
            (self[0].actions[0],)
            if row[0] == 0
            else tuple(module.actions[code] for module, code in zip(self, row, strict=True))
            for row in np.asarray(actions)
        ]

    def to_dict(self) -> list[dict[str, Any]]:
        """Return a description of lists, mappings and text, for YAML and checkpoints."""
        out: list[dict[str, Any]] = []
        for module in self:
            entry: dict[str, Any] = {"name": module.name, "actions": list(module.actions)}
            if module.parent is not None:
                entry |= {"parent": module.parent, "requires": list(module.requires)}
            if module.condition_on is not None:
                entry["condition_on"] = module.condition_on
            if module.nothing is not None:
                entry["nothing"] = module.nothing
            if module.labels:
                entry["labels"] = {action: dict(labels) for action, labels in module.labels.items()}
            out.append(entry)
        return out

    @classmethod
    def from_dict(cls, entries: Sequence[Mapping[str, Any]]) -> ActionSpace:
        """Build an action space from what `to_dict` returned.

        Raises:
            ConfigError: If an entry has an unknown key or lacks its name or actions.
        """
        known = {"name", "actions", "parent", "requires", "labels", "condition_on", "nothing"}
        for entry in entries:
            if unknown := sorted(set(entry) - known):
                raise ConfigError(f"a module has the unknown keys {unknown}; known are {sorted(known)}")
            if missing := sorted({"name", "actions"} - set(entry)):
                raise ConfigError(f"a module lacks {missing}: {dict(entry)}")
        return cls([Module(**entry) for entry in entries])

    @classmethod
    def from_mapping(cls, entries: Sequence[Mapping[str, Any]]) -> ActionSpace:
        """Build the action space that a mapping declares, whose content is chosen given the first module.

        A module after the first one that names neither a parent nor a `condition_on` is conditioned on the first: which
        offer works best may differ by channel. With `condition_on: null` it is not.

        Raises:
            ConfigError: As for `from_dict`.
        """
        declared = cls.from_dict(entries)
        given = [
            module
            if m == 0 or module.parent is not None or "condition_on" in entry
            else replace(module, condition_on=declared.names[0])
            for m, (module, entry) in enumerate(zip(declared, entries, strict=True))
        ]
        return cls(given)

    def without_conditions(self) -> ActionSpace:
        """Return the same actions with modules that are not conditioned on others."""
        return ActionSpace([replace(module, condition_on=None) for module in self])
