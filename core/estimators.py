"""Estimators that a configuration names, such as those of scikit-learn: made with their defaults and a fixed seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Seed of estimators that draw random numbers, so that a run that is repeated finds the same numbers.
ESTIMATOR_SEED = 0


def reproducible(make: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that makes estimators whose random numbers are the same each time.

    scikit-learn's estimators draw from NumPy's global generator unless `random_state` is set; one that is None is set
    here. Whoever draws random numbers elsewhere has to do the same.

    Args:
        make: The estimator's class, or a function that makes one.
    """

    def made() -> Any:
        estimator = make()
        if getattr(estimator, "random_state", ESTIMATOR_SEED) is None:
            estimator.random_state = ESTIMATOR_SEED
        return estimator

    return made
