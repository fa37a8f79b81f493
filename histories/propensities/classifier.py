"""Any classifier as a model of propensities, such as one of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.core.serialization import reproducible

#: Decisions of each group of actions to which a classifier is fitted; more would cost time without more precision.
MAX_ROWS_OF_CLASSIFIER = 200_000


class Classifier(Protocol):
    """What is asked of a classifier; the classifiers of scikit-learn that state probabilities have it."""

    classes_: npt.NDArray[Any]

    def fit(self, x: FloatArray, y: IntArray, /) -> Any:
        """Learn from features (n, p) and codes (n,)."""

    def predict_proba(self, x: FloatArray, /) -> FloatArray:
        """Return the probabilities (n, classes) of `classes_` at features (n, p)."""


@dataclass(frozen=True)
class ClassifiedActions:
    """A classifier of which of G competing actions was taken.

    Its features are the covariates, and whether each of the actions was eligible.

    Attributes:
        classifier: The fitted classifier; None where a single action was taken.
        taken: The actions that were taken in the decisions it was fitted to (k,).
        size: Number of actions G.
        least: The smallest probability that it may state.
    """

    classifier: Classifier | None
    taken: IntArray
    size: int
    least: float

    @classmethod
    def fit(
        cls, make: Callable[[], Classifier], x: FloatArray, taken: IntArray, eligible: BoolArray
    ) -> ClassifiedActions:
        """Fit a new classifier to covariates (n, p), codes (n,) and eligible actions (n, G).

        Of more than `MAX_ROWS_OF_CLASSIFIER` decisions it learns from the first, so they should come in random order.
        """
        rows = slice(0, MAX_ROWS_OF_CLASSIFIER)
        classes = np.unique(taken[rows])
        classifier = None
        if len(classes) > 1:
            classifier = reproducible(make)()
            classifier.fit(_features(x[rows], eligible[rows]), taken[rows])
        return cls(classifier, classes, eligible.shape[1], 0.5 / max(len(taken[rows]), 1))

    def scores(self, x: FloatArray, eligible: BoolArray) -> FloatArray:
        """Return the logarithms (n, G) of its probabilities; of actions that it has not seen, of the smallest one.

        Raises:
            InputError: If the classifier does not state probabilities.
        """
        out = np.full((len(x), self.size), np.log(self.least))
        if self.classifier is None:
            out[:, self.taken] = 0.0
        elif len(x):
            found = np.asarray(self.classifier.predict_proba(_features(x, eligible)), dtype=np.float64)
            known = np.asarray(self.classifier.classes_, dtype=np.int64)
            valid = found.shape == (len(x), len(known)) and np.isfinite(found).all() and (found >= 0).all()
            if not valid:
                problem = f"predictions of shape {found.shape} are not probabilities of {len(known)} actions"
                remedy = "Name a classifier whose `predict_proba` has one column for each of its `classes_`."
                raise InputError(
                    [Fault(file="propensity model", problem=problem, remedy=remedy, column="predict_proba")]
                )
            out[:, known] = np.log(np.maximum(found, self.least))
        return out


def _features(x: FloatArray, eligible: BoolArray) -> FloatArray:
    return np.concatenate([x, eligible.astype(np.float64)], axis=1)
