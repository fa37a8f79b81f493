"""Any regressor as an outcome model, such as one of scikit-learn, and its mean under a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.evaluation.outcomes.outcome_model import QValues, action_indicators, conditional_probabilities

#: Joint actions up to which the mean under a policy is a sum over all of them.
MAX_ENUMERATED = 64
#: Actions that are drawn for each decision where there are more; the draws are those of a fixed seed.
DRAWS, DRAW_SEED = 8, 0x9AD1


class Regressor(Protocol):
    """What is asked of a regressor; the regressors of scikit-learn have it."""

    def fit(self, x: FloatArray, y: FloatArray, /) -> Any:
        """Learn from features (n, p) and rewards (n,)."""

    def predict(self, x: FloatArray, /) -> FloatArray:
        """Return the expected rewards (n,) at features (n, p)."""


@dataclass(frozen=True)
class RegressorOutcomes:
    """One regressor for each number of modules: number m sees the context and the choices of modules 0 to m.

    Its features are the context and an indicator of each action of these modules; those of later modules than the first
    are 0 where nothing is sent.

    Attributes:
        modules: What can be chosen.
        regressors: The fitted regressors, one for each module; the last one serves the whole action too.
    """

    modules: ActionSpace
    regressors: tuple[Regressor, ...]

    @classmethod
    def fit(
        cls,
        make: Callable[[], Regressor],
        modules: ActionSpace,
        context: npt.NDArray[Any],
        actions: IntArray,
        rewards: FloatArray,
    ) -> RegressorOutcomes:
        """Fit a new regressor for each number of modules."""
        h = action_indicators(modules, actions)[:, 1:]
        fitted = []
        for part in modules.slices:
            regressor = make()
            regressor.fit(_features(context, h[:, : part.stop]), rewards)
            fitted.append(regressor)
        return cls(modules=modules, regressors=tuple(fitted))

    def q_values(
        self, context: npt.NDArray[Any], actions: IntArray, probabilities: Sequence[FloatArray]
    ) -> list[QValues]:
        """Return modelled rewards for the joint estimand and then for each module's: see `OutcomeModel.q_values`.

        The mean under the policy is exact for each module, and for the whole action up to `MAX_ENUMERATED` joint
        actions; above it is a mean over `DRAWS` draws, whose error adds to the noise and not to the bias.
        """
        h = action_indicators(self.modules, actions)[:, 1:]
        logged = [self._predict(m, context, h[:, : part.stop]) for m, part in enumerate(self.modules.slices)]
        whole = QValues(logged[-1], self._mean_of_whole(context, probabilities))
        return [
            whole,
            *(
                QValues(logged[m], self._mean_of(m, context, actions, probabilities, h, logged[m]))
                for m in range(len(self.modules))
            ),
        ]

    def _mean_of(
        self,
        m: int,
        context: npt.NDArray[Any],
        actions: IntArray,
        probabilities: Sequence[FloatArray],
        h: FloatArray,
        logged: FloatArray,
    ) -> FloatArray:
        """Return the mean over module m's choices by the policy, the earlier ones as logged; `logged` where none."""
        part = self.modules.slices[m]
        p = conditional_probabilities(self.modules, probabilities, actions, m)
        out = np.where(p.any(1), 0.0, logged)
        for a in range(self.modules.sizes[m]):
            rows = np.flatnonzero(p[:, a] > 0)
            if not len(rows):
                continue
            features = h[rows, : part.stop].copy()
            features[:, part] = np.arange(self.modules.sizes[m]) == a
            out[rows] += p[rows, a] * self._predict(m, context[rows], features)
        return out

    def _mean_of_whole(self, context: npt.NDArray[Any], probabilities: Sequence[FloatArray]) -> FloatArray:
        last, out = len(self.modules) - 1, np.zeros(len(context))
        if np.prod([float(size) for size in self.modules.sizes]) <= MAX_ENUMERATED:
            joint = self.modules.all_joint_probabilities(probabilities)
            for j, row in enumerate(action_indicators(self.modules, self.modules.joint_actions)[:, 1:]):
                rows = np.flatnonzero(joint[:, j] > 0)
                if len(rows):
                    features = np.broadcast_to(row, (len(rows), len(row)))
                    out[rows] += joint[rows, j] * self._predict(last, context[rows], features)
            return out
        rng = np.random.default_rng(DRAW_SEED)
        for _ in range(DRAWS):
            drawn = action_indicators(self.modules, _draw(self.modules, probabilities, rng))[:, 1:]
            out += self._predict(last, context, drawn) / DRAWS
        return out

    def _predict(self, m: int, context: npt.NDArray[Any], h: FloatArray) -> FloatArray:
        found = np.asarray(self.regressors[m].predict(_features(context, h)), dtype=np.float64)
        if found.shape != (len(context),) or not np.isfinite(found).all():
            problem = f"predictions of shape {found.shape} are not ({len(context)},) and finite"
            remedy = "Name a regressor that returns one number for each row."
            raise InputError([Fault(file="outcome model", problem=problem, remedy=remedy, column="predict")])
        return found


def _features(context: npt.NDArray[Any], h: FloatArray) -> FloatArray:
    return np.concatenate([np.asarray(context, dtype=np.float64), h], axis=1)


def _draw(modules: ActionSpace, probabilities: Sequence[FloatArray], rng: np.random.Generator) -> IntArray:
    """Draw one action (n, M) of a policy at each slot."""
    actions = np.zeros((len(probabilities[0]), len(modules)), dtype=np.int64)
    for m, p in enumerate(probabilities):
        cumulative = np.cumsum(modules.conditional(m, p, actions), axis=1)
        u = rng.random(len(actions))[:, None] * cumulative[:, -1:]
        actions[:, m] = (u >= cumulative).sum(1).clip(max=modules.sizes[m] - 1)
    return modules.canonical(actions)
