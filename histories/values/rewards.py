"""Validate rewards before a learner gets them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.core.table_validator import TableValidator, first_true


def check_rewards(rewards: npt.ArrayLike, ids: npt.ArrayLike, file: str = "rewards") -> FloatArray:
    """Validate rewards (n,) before a learner gets them, and return them as float64.

    Args:
        rewards: One reward for each decision (n,).
        ids: Decision ids (n,), for messages.
        file: The source of the rewards, for messages.

    Raises:
        InputError: If a reward is missing, infinite or not a number, or the numbers of rewards and ids differ.
    """
    names = np.asarray(ids)
    faults: list[Fault] = []
    table = TableValidator(pd.DataFrame({"reward": rewards}), file, faults)
    if len(table) != len(names):
        table.flag(
            f"there are {len(table):,} rewards for {len(names):,} decisions",
            "Give each decision exactly one reward.",
            column="reward",
        )
        raise InputError(faults)
    values, missing = table.numbers("reward")
    for bad, what, remedy in (
        (missing, "NaN", "Leave out the decisions whose reward the log does not identify; do not fill them in."),
        (np.isinf(values), "infinite", "Check the values of the goal events."),
    ):
        if (row := first_true(bad)) is not None:
            table.flag_rows("reward", bad, f"the reward of decision {names[row]!s} is {what}", remedy)
    if faults:
        raise InputError(faults)
    return values
