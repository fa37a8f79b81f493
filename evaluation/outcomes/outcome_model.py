"""Outcome model: the reward expected of an action in a context, by ridge regression, and its mean under a policy."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, Fault, InputError
from crosschannel.core.hashing import uniforms
from crosschannel.core.wording import counted
from crosschannel.evaluation.outcomes.normal_equations import NormalEquations
from crosschannel.evaluation.support import distinct_actions

PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)
FOLD_SALT = 0x0F01D
#: Decisions whose modelled rewards are computed at once, so that they stay in the cache.
ROWS_PER_CHUNK = 4096


@dataclass(frozen=True)
class QValues:
    """Modelled rewards of one estimand: of the logged action, and of the policy, each (n,)."""

    logged: FloatArray
    policy: FloatArray


@dataclass(frozen=True)
class OutcomeModel:
    r"""A linear model of the reward in context, action and their interactions.

    .. math:: q(x, a) = z^T C h(a), \qquad z = (1, x), \quad
        h(a) = (1, \text{one indicator for every action of every module})

    Where nothing is sent, only the first module's indicator is 1. As q is linear in h, its mean under a policy needs
    only the probability of each module's actions, not the list of joint actions.

    There is one model for each number of modules; `coefficients[m]` sees the context and the choices of modules 0 to m.
    The last one serves the whole action, and model m serves the estimand of module m (see `q_values`).

    Attributes:
        modules: What can be chosen.
        coefficients: C of every model, (D + 1, 1 + actions of modules 0 to m).
        penalty: The penalty that cross-validation chose.
        cv_errors: Mean squared error on held-out users, by penalty.
    """

    modules: ActionSpace
    coefficients: tuple[FloatArray, ...]
    penalty: float
    cv_errors: dict[float, float]

    @classmethod
    def fit(
        cls,
        modules: ActionSpace,
        context: npt.NDArray[Any],
        actions: IntArray,
        rewards: FloatArray,
        user: IntArray,
        *,
        penalties: Sequence[float] = PENALTIES,
        folds: int = 5,
    ) -> OutcomeModel:
        r"""Fit the model on decisions of which no user may be evaluated with it.

        The penalty is :math:`\lambda (\|C_{0x}\|^2 + \|C_{a1}\|^2 + D \|C_{ax}\|^2)`: an action's effect and all of
        its interactions with the context together have the same prior variance, :math:`\sigma^2 / \lambda`, so that
        the prior of *no effect* counts as much as :math:`\lambda` decisions. Single incremental rewards are nearly all
        noise, so the largest penalty gives a model that is nearly constant. Hoerl & Kennard (1970), "Ridge regression",
        Technometrics.

        Args:
            modules: What can be chosen.
            context: Standardised context features (n, D).
            actions: Canonical codes (n, M).
            rewards: Rewards (n,); decisions whose reward is NaN are left out.
            user: Integer codes of the users (n,).
            penalties: Penalties to choose from, by squared error on held-out users.
            folds: Folds of the cross-validation; a hash of the user's code assigns the user to one.

        Raises:
            InputError: If shapes differ.
            ConfigError: If there are fewer users with a reward than folds.
        """
        fold = folds_of_users(user, folds)
        sums = _Sums.from_decisions(modules, context, actions, rewards, user, folds, fold)
        errors = sums.cv_errors(penalties)
        return sums.model(sums.total, _best(errors), errors)

    @classmethod
    def fit_folds(
        cls,
        modules: ActionSpace,
        context: npt.NDArray[Any],
        actions: IntArray,
        rewards: FloatArray,
        user: IntArray,
        *,
        penalties: Sequence[float] = PENALTIES,
        folds: int = 5,
        fold: IntArray | None = None,
    ) -> list[OutcomeModel]:
        """Fit one model for each fold of users, from the decisions of the other folds.

        The penalty is one for all folds; arguments and errors are those of `fit`. The `fold` (n,) of each decision is
        by default that of `folds_of_users`.
        """
        fold = folds_of_users(user, folds) if fold is None else fold
        sums = _Sums.from_decisions(modules, context, actions, rewards, user, folds, fold)
        errors = sums.cv_errors(penalties)
        best = _best(errors)
        return [sums.model(sums.total - part, best, errors) for part in sums.by_fold]

    def q_values(
        self, context: npt.NDArray[Any], actions: IntArray, probabilities: Sequence[FloatArray]
    ) -> list[QValues]:
        r"""Return modelled rewards for the joint estimand and then for each module's, a list of 1 + M.

        Joint: :math:`q(x, a)` and :math:`E_{a \sim \pi} q(x, a)`. Module m: :math:`q_m(x, a_{\le m})` of the logged
        choices up to m, and :math:`\sum_b \pi_m(b | x, a_{<m}) q_m(x, a_{<m}, b)`, the earlier choices as logged. As
        model m does not see the later choices, it is a mean over how the log makes them, and for any :math:`q_m` the
        weighted logged term has the expectation of the policy term: so the doubly robust estimate is unbiased.

        Args:
            context: Context features (n, D).
            actions: Logged actions, canonical codes (n, M).
            probabilities: The policy's probabilities, one array (n, *modules.shape(m)) per module.
        """
        n = len(actions)
        out = [QValues(np.empty(n), np.empty(n)) for _ in range(1 + len(self.modules))]
        for start in range(0, n, ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            found = self._q_values_of_chunk(context[rows], actions[rows], [p[rows] for p in probabilities])
            for q, (logged, policy) in zip(out, found, strict=True):
                q.logged[rows], q.policy[rows] = logged, policy
        return out

    def _q_values_of_chunk(
        self, context: npt.NDArray[Any], actions: IntArray, probabilities: Sequence[FloatArray]
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield the two arrays of each entry of `q_values`: of the logged action, and of the policy."""
        z = _with_intercept(context)
        logged = action_indicators(self.modules, actions)
        scores = z @ self.coefficients[-1]
        yield _dot(scores, logged), _dot(scores, expected_indicators(self.modules, probabilities))
        for m, part in enumerate(self.modules.slices):
            scores = z @ self.coefficients[m]
            h = logged[:, : 1 + part.stop]
            mixed = h.copy()
            mixed[:, 1 + part.start :] = conditional_probabilities(self.modules, probabilities, actions, m)
            yield _dot(scores, h), _dot(scores, mixed)


@dataclass(frozen=True)
class _Sums:
    """The normal equations of each fold of users and of all together."""

    modules: ActionSpace
    by_fold: tuple[NormalEquations, ...]
    total: NormalEquations
    scale: FloatArray

    @classmethod
    def from_decisions(
        cls,
        modules: ActionSpace,
        context: npt.NDArray[Any],
        actions: IntArray,
        rewards: FloatArray,
        user: IntArray,
        folds: int,
        fold: IntArray,
    ) -> _Sums:
        check_shapes(len(modules), context, actions, user, n=len(rewards))
        known = np.isfinite(rewards)
        check_folds(user[known], folds)
        rows, width = np.flatnonzero(known), 1 + context.shape[1]
        distinct, pattern = distinct_actions(modules, modules.canonical(actions[rows]))
        h = action_indicators(modules, distinct)
        by_fold = []
        for k in range(folds):
            places = np.flatnonzero(fold[rows] == k)
            z, y = _with_intercept(context[rows[places]]), rewards[rows[places]]
            by_fold.append(NormalEquations.from_decisions(z, h, pattern[places], y))
        total = functools.reduce(operator.add, by_fold)
        return cls(modules=modules, by_fold=tuple(by_fold), total=total, scale=_penalty_scale(h.shape[1], width))

    def _indicators(self) -> list[slice]:
        return [slice(1 + part.start, 1 + part.stop) for part in self.modules.slices]

    def _largest(self) -> list[slice]:
        """Return the largest module up to each one, which is solved action by action: see `NormalEquations.solve`."""
        parts = self._indicators()
        return [max(parts[: m + 1], key=lambda part: part.stop - part.start) for m in range(len(parts))]

    def cv_errors(self, penalties: Sequence[float]) -> dict[float, float]:
        """Return the mean squared error on held-out users, by penalty."""
        errors = dict.fromkeys(map(float, penalties), 0.0)
        for part in self.by_fold:
            train = self.total - part
            for p in errors:
                errors[p] += part.squared_error(train.solve(p * self.scale, len(self.scale), self._largest()[-1]))
        return {p: error / self.total.n for p, error in errors.items()}

    def model(self, equations: NormalEquations, penalty: float, cv_errors: dict[float, float]) -> OutcomeModel:
        """Return the model that solves some equations."""
        coefficients = [
            np.ascontiguousarray(equations.solve(penalty * self.scale, part.stop, wide).T)
            for part, wide in zip(self._indicators(), self._largest(), strict=True)
        ]
        return OutcomeModel(
            modules=self.modules, coefficients=tuple(coefficients), penalty=penalty, cv_errors=cv_errors
        )


def _best(cv_errors: dict[float, float]) -> float:
    return min(cv_errors, key=lambda p: (cv_errors[p], -p))


def folds_of_users(user: IntArray, folds: int) -> IntArray:
    """Return the fold (n,) of each decision: a hash of its user's code."""
    return (uniforms(user.astype(np.uint64), FOLD_SALT) * folds).astype(np.int64)


def action_indicators(modules: ActionSpace, actions: IntArray) -> FloatArray:
    """Return a one and an indicator of each action of each module (n, 1 + sum of actions).

    The indicators of all modules but the first are 0 where nothing is sent.
    """
    out = np.zeros((len(actions), 1 + modules.total))
    out[:, 0] = 1.0
    rows, sent = np.arange(len(actions)), modules.sends(actions)
    for m, part in enumerate(modules.slices):
        out[rows, 1 + part.start + actions[:, m]] = sent if m else 1.0
    return out


def expected_indicators(modules: ActionSpace, probabilities: Sequence[FloatArray]) -> FloatArray:
    """Return the mean of `action_indicators` under a policy: a one, and every action's probability."""
    marginals = modules.marginals(probabilities)
    return np.concatenate([np.ones((len(marginals[0]), 1)), *marginals], axis=1)


def conditional_probabilities(
    modules: ActionSpace, probabilities: Sequence[FloatArray], actions: IntArray, m: int
) -> FloatArray:
    """Return module m's probabilities (n, A_m) given the logged earlier choices; all 0 where it makes no choice."""
    chosen: BoolArray = modules.sends(actions) if m else np.ones(len(actions), dtype=bool)
    return np.where(chosen[:, None], modules.conditional(m, probabilities[m], actions), 0.0)


def check_folds(user: IntArray, folds: int) -> None:
    """Refuse fewer than two folds, or fewer users than folds.

    Raises:
        ConfigError: If there are.
    """
    users = len(np.unique(user))
    if folds < 2 or users < folds:
        raise ConfigError(
            f"the outcome model needs 2 folds or more and as many users: {folds} folds, {counted(users, 'user')}"
        )


def check_fold_of_users(user: IntArray, fold: IntArray, folds: int) -> None:
    """Refuse folds (n,) that are out of range, or that divide the decisions of a user.

    Raises:
        InputError: If they do.
    """
    _, first, place = np.unique(user, return_index=True, return_inverse=True)
    problem = ""
    if fold.shape != user.shape or ((fold < 0) | (fold >= folds)).any():
        problem = f"an array of shape {fold.shape} is not {user.shape} with entries from 0 to {folds - 1}"
    elif (fold != fold[first][place]).any():
        problem = "a user is in several folds"
    if problem:
        remedy = "Give all decisions of a user the same fold."
        raise InputError([Fault(file="outcome model", problem=problem, remedy=remedy, column="fold")])


def check_shapes(n_modules: int, context: npt.NDArray[Any], actions: IntArray, user: IntArray, n: int) -> None:
    """Refuse arrays that do not have one row for each of n decisions.

    Raises:
        InputError: If there is one.
    """
    shapes: dict[str, tuple[npt.NDArray[Any], tuple[int, ...]]] = {
        "context": (context, (n, context.shape[-1])),
        "actions": (actions, (n, n_modules)),
        "user": (user, (n,)),
    }
    faults = [
        Fault(
            file="outcome model",
            problem=f"the shape is {array.shape}, not {shape}",
            remedy="Pass one row for each decision.",
            column=name,
        )
        for name, (array, shape) in shapes.items()
        if array.shape != shape
    ]
    if faults:
        raise InputError(faults)


def _with_intercept(context: npt.NDArray[Any]) -> FloatArray:
    return np.concatenate([np.ones((len(context), 1)), np.asarray(context, dtype=np.float64)], axis=1)


def _dot(scores: FloatArray, h: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("nt,nt->n", scores, h))


def _penalty_scale(n_indicators: int, width: int) -> FloatArray:
    """Return each coefficient's share of the penalty: 0 for the intercept, 1 for main effects, D for interactions."""
    out = np.full((n_indicators, width), float(max(width - 1, 1)))
    out[0, :] = 1.0
    out[:, 0] = 1.0
    out[0, 0] = 0.0
    return out
