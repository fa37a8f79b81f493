"""Cross-fitted outcome models: the decisions of each fold of users are modelled from those of the other folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.serialization import reproducible
from crosschannel.evaluation.outcomes.outcome_model import (
    OutcomeModel,
    QValues,
    check_fold_of_users,
    check_folds,
    check_shapes,
    folds_of_users,
)
from crosschannel.evaluation.outcomes.regressors import Regressor, RegressorOutcomes

FOLDS = 5


class ModelledRewards(Protocol):
    """A fitted outcome model."""

    def q_values(
        self, context: npt.NDArray[Any], actions: IntArray, probabilities: Sequence[FloatArray]
    ) -> list[QValues]:
        """Return modelled rewards for the joint estimand and then for each module's: see `OutcomeModel.q_values`."""


@dataclass(frozen=True)
class CrossFittedOutcomes:
    """K outcome models of n decisions, of which none saw the users that it is used for.

    So an outcome model shares no noise with the rewards that correct it, nor with an agent that learned from users who
    are not evaluated. Chernozhukov et al. (2018), "Double/debiased machine learning for treatment and structural
    parameters", Econometrics Journal.

    Attributes:
        models: The model of each fold, fitted to the other folds.
        fold: Fold of each decision (n,).
    """

    models: tuple[ModelledRewards, ...]
    fold: IntArray

    @classmethod
    def fit(
        cls,
        modules: ActionSpace,
        context: npt.NDArray[Any],
        actions: IntArray,
        rewards: FloatArray,
        user: IntArray,
        *,
        regressor: Callable[[], Regressor] | None = None,
        folds: int = FOLDS,
        fold: IntArray | None = None,
    ) -> CrossFittedOutcomes:
        """Fit the models on the decisions that are evaluated.

        Args:
            modules: What can be chosen.
            context: Standardised context features (n, D).
            actions: Canonical codes (n, M).
            rewards: Rewards (n,); decisions whose reward is NaN teach nothing, but have a fold.
            user: Integer codes of the users (n,); a hash of the code assigns a user to a fold by default.
            regressor: A function that makes a regressor with `fit` and `predict`, as those of scikit-learn; by default
                the ridge regression of `OutcomeModel`, whose sums are computed once for all folds. Its penalty, one of
                seven numbers, is chosen by the errors of all folds.
            folds: Number of folds of users.
            fold: Fold of each decision (n,), 0 to `folds` - 1, where others have divided the users.

        Raises:
            InputError: If shapes differ, or a user is in several folds.
            ConfigError: If there are fewer users with a reward than folds.
        """
        check_shapes(len(modules), context, actions, user, n=len(rewards))
        check_folds(user[np.isfinite(rewards)], folds)
        fold = folds_of_users(user, folds) if fold is None else fold
        check_fold_of_users(user, fold, folds)
        if regressor is None:
            models: Sequence[ModelledRewards] = OutcomeModel.fit_folds(
                modules, context, actions, rewards, user, folds=folds, fold=fold
            )
            return cls(models=tuple(models), fold=fold)
        known = np.isfinite(rewards)
        fits = [known & (fold != k) for k in range(folds)]
        models = [
            RegressorOutcomes.fit(reproducible(regressor), modules, context[rows], actions[rows], rewards[rows])
            for rows in fits
        ]
        return cls(models=tuple(models), fold=fold)

    def q_values(
        self, context: npt.NDArray[Any], actions: IntArray, probabilities: Sequence[FloatArray]
    ) -> list[QValues]:
        """Return modelled rewards of the decisions that the models were fitted to: see `OutcomeModel.q_values`."""
        n = len(actions)
        out = [QValues(np.empty(n), np.empty(n)) for _ in range(1 + len(probabilities))]
        for k, model in enumerate(self.models):
            rows = np.flatnonzero(self.fold == k)
            if not len(rows):
                continue
            found = model.q_values(context[rows], actions[rows], [p[rows] for p in probabilities])
            for q, part in zip(out, found, strict=True):
                q.logged[rows], q.policy[rows] = part.logged, part.policy
        return out

    def of_rows(self, rows: npt.NDArray[Any]) -> CrossFittedOutcomes:
        """Return the models of some of the decisions."""
        return CrossFittedOutcomes(models=self.models, fold=self.fold[rows])
