"""The decisions of a log that a policy is evaluated on, and the policy's probabilities at them, both checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import PROPENSITY_SOURCES, count_sources, source_codes

SOURCE = "evaluated log"
TOLERANCE = 1e-4


@dataclass(frozen=True)
class LoggedDecisions:
    """The evaluated part of a log, n decisions.

    Attributes:
        modules: What could be chosen.
        actions: Canonical codes (n, M).
        propensity: Logged probability of each module's choice given the earlier ones (n, M); NaN where unknown.
        joint: Logged probability of the whole action (n,); where NaN, the product of `propensity` is used.
        user: Integer codes of the users (n,).
        eligible: Action mask (n, sum of actions), or None if every action is eligible.
        propensity_source: Source of the propensities: one of `PROPENSITY_SOURCES`, or a code for each row (n,).
            Rows without a propensity are `missing` in any case.
        name: The log's name, for reports.

    Raises:
        InputError: If shapes differ, an action does not belong to its module, or a propensity is not in (0, 1].
    """

    modules: ActionSpace
    actions: IntArray
    propensity: FloatArray
    joint: FloatArray
    user: IntArray
    eligible: BoolArray | None = None
    propensity_source: str | IntArray = "logged"
    name: str = "log"

    def __post_init__(self) -> None:
        faults = self._shape_faults() or self._content_faults()
        if faults:
            raise InputError(faults)

    @classmethod
    def from_history(cls, history: History) -> LoggedDecisions:
        """Take all decisions of a history."""
        d = history.decisions
        return cls(
            modules=history.modules,
            actions=d.actions,
            propensity=d.propensity,
            joint=d.joint,
            user=d.user,
            eligible=d.eligible,
            propensity_source=d.propensity_source,
            name=history.name,
        )

    def __len__(self) -> int:
        return len(self.actions)

    def __getitem__(self, rows: BoolArray) -> LoggedDecisions:
        by_row = isinstance(self.propensity_source, np.ndarray)
        return replace(
            self,
            propensity_source=self.propensity_source[rows] if by_row else self.propensity_source,
            actions=self.actions[rows],
            propensity=self.propensity[rows],
            joint=self.joint[rows],
            user=self.user[rows],
            eligible=None if self.eligible is None else self.eligible[rows],
        )

    @property
    def propensity_counts(self) -> dict[str, int]:
        """Number of decisions by the source of their propensities."""
        return count_sources(source_codes(self.propensity, self.joint, self.propensity_source))

    def _shape_faults(self) -> list[Fault]:
        n, m = len(self.actions), len(self.modules)
        shapes = {
            "actions": (n, m),
            "propensity": (n, m),
            "joint": (n,),
            "user": (n,),
            "eligible": (n, self.modules.total),
            "propensity_source": (n,),
        }
        faults = [
            Fault(
                file=SOURCE,
                problem=f"the shape is {array.shape}, not {shape}",
                remedy="Pass one row for each decision.",
                column=name,
            )
            for name, shape in shapes.items()
            if isinstance(array := getattr(self, name), np.ndarray) and array.shape != shape
        ]
        if n == 0:
            faults.append(Fault(SOURCE, "there are no decisions", "Evaluate on a part of the log that has some."))
        if isinstance(self.propensity_source, str) and self.propensity_source not in PROPENSITY_SOURCES:
            faults.append(
                Fault(
                    file=SOURCE,
                    problem="is unknown",
                    remedy=f"Use one of {', '.join(PROPENSITY_SOURCES)}.",
                    column="propensity_source",
                    value=self.propensity_source,
                )
            )
        return faults

    def _content_faults(self) -> list[Fault]:
        valid = self.modules.valid(self.actions)
        faults = _first_fault(
            SOURCE,
            column="actions",
            wrong=~valid,
            values=self.actions,
            problem="is not an action of the modules",
            remedy="Check the modules.",
        )
        columns = [(f"propensity_{name}", self.propensity[:, m]) for m, name in enumerate(self.modules.names)]
        for name, column in [*columns, ("propensity", self.joint)]:
            faults += _first_fault(
                SOURCE,
                column=name,
                wrong=~np.isnan(column) & ~((column > 0) & (column <= 1 + TOLERANCE)),
                values=column,
                problem="is not in (0, 1]",
                remedy="Correct it, or leave it missing.",
            )
        return faults


def check_probabilities(modules: ActionSpace, probabilities: Sequence[FloatArray], n: int) -> None:
    """Check a policy's probabilities, in the form of `Agent.action_probabilities`: (n, *modules.shape(m)) per module.

    Raises:
        InputError: If a shape is wrong, an entry is not in [0, 1], or the first module's row does not sum to 1.
    """
    if len(probabilities) != len(modules):
        problem = f"there are probabilities of {len(probabilities)} modules, not of {len(modules)}"
        raise InputError([Fault("policy", problem, "Pass one array for each module.")])
    faults: list[Fault] = []
    for m, (name, p) in enumerate(zip(modules.names, probabilities, strict=True)):
        shape = (n, *modules.shape(m))
        if p.shape != shape:
            problem = f"the shape is {p.shape}, not {shape}"
            faults.append(Fault(file="policy", problem=problem, remedy="Pass one row for each decision.", column=name))
            continue
        faults += _first_fault(
            "policy",
            column=name,
            wrong=np.asarray(~((p >= -TOLERANCE) & (p <= 1 + TOLERANCE)).reshape(n, -1).all(1)),
            values=p,
            problem="is not a row of probabilities",
            remedy="Entries are in [0, 1].",
        )
    if not faults:
        total = probabilities[0].sum(1)
        faults += _first_fault(
            "policy",
            column=modules.names[0],
            wrong=np.asarray(np.abs(total - 1) > TOLERANCE),
            values=total,
            problem="is not a sum of 1",
            remedy="Probabilities add up to 1.",
        )
    if faults:
        raise InputError(faults)


def _first_fault(
    file: str, *, column: str, wrong: BoolArray, values: npt.NDArray[Any], problem: str, remedy: str
) -> list[Fault]:
    """Return the first faulty row with the number of all of them, or an empty list."""
    if not wrong.any():
        return []
    row = int(wrong.argmax())
    return [
        Fault(
            file=file,
            problem=problem,
            remedy=remedy,
            column=column,
            row=row + 1,
            value=values[row].tolist(),
            count=int(wrong.sum()),
        )
    ]
