"""Outcome model: the reward expected of an action in a context, by ridge regression, and its mean under a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, Fault, InputError
from crosschannel.core.hashing import uniforms
from crosschannel.evaluation.support import distinct_actions

STRENGTHS = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)
FOLD_SALT = 0x0F01D
PATTERNS_AT_ONCE = 256


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
    only the probability of every single module's action, not the list of joint actions.

    There is one model for each number of modules, `coefficients[m]` seeing the context and the choices of modules 0
    to m: the last one serves the whole action, and model m serves the estimand of module m (see `q_values`).

    Attributes:
        modules: What can be chosen.
        coefficients: C of every model, (D + 1, 1 + actions of modules 0 to m).
        strength: The penalty that cross-validation chose.
        errors: Mean squared error of every tried penalty on held-out users, by penalty.
    """

    modules: ActionSpace
    coefficients: tuple[FloatArray, ...]
    strength: float
    errors: dict[float, float]

    @classmethod
    def fit(
        cls,
        modules: ActionSpace,
        context: npt.NDArray[Any],
        actions: IntArray,
        rewards: FloatArray,
        user: IntArray,
        *,
        strengths: Sequence[float] = STRENGTHS,
        folds: int = 5,
    ) -> OutcomeModel:
        r"""Fits on training decisions; give it none of the users that will be evaluated.

        The penalty is :math:`\lambda (\|C_{0x}\|^2 + \|C_{a1}\|^2 + D \|C_{ax}\|^2)`: an action's effect and all of
        its interactions with the context together have the same prior variance, :math:`\sigma^2 / \lambda`, so that
        :math:`\lambda` says how many decisions the belief in *no effect* weighs. Single incremental rewards are
        nearly all noise, so the tried strengths reach to a model that is a constant. Hoerl & Kennard (1970), "Ridge
        regression", Technometrics.

        Args:
            modules: What can be chosen.
            context: Standardised context features (n, D).
            actions: Canonical codes (n, M).
            rewards: Rewards (n,); decisions whose reward is NaN are left out.
            user: Integer codes of the users (n,).
            strengths: Penalties to choose from, by squared error on held-out users.
            folds: Folds of the cross-validation; a hash of the user's code says which one a user is in.

        Raises:
            InputError: If shapes differ.
            ConfigError: If there are fewer users with a reward than folds.
        """
        n = len(rewards)
        shapes: dict[str, tuple[npt.NDArray[Any], tuple[int, ...]]] = {
            "context": (context, (n, context.shape[-1])),
            "actions": (actions, (n, len(modules))),
            "user": (user, (n,)),
        }
        faults = [
            Fault("outcome model", f"the shape is {array.shape}, not {shape}", "Give one row for each decision.", name)
            for name, (array, shape) in shapes.items()
            if array.shape != shape
        ]
        if faults:
            raise InputError(faults)
        keep = np.isfinite(rewards)
        users = len(np.unique(user[keep]))
        if folds < 2 or users < folds:
            raise ConfigError(
                f"the outcome model needs 2 folds or more and as many users: {folds} folds, {users} users"
            )
        z = _with_one(context[keep])
        distinct, pattern = distinct_actions(modules, modules.canonical(actions[keep]))
        h = indicators(modules, distinct)
        fold = (uniforms(user[keep].astype(np.uint64), FOLD_SALT) * folds).astype(np.int64)
        parts = [_Moments.of(z[fold == k], h, pattern[fold == k], rewards[keep][fold == k]) for k in range(folds)]
        whole = _Moments.total(parts)
        penalty = _penalty(h.shape[1], z.shape[1])
        errors = {
            float(s): sum(part.error((whole - part).solve(float(s) * penalty)) for part in parts) / whole.n
            for s in strengths
        }
        best = min(errors, key=lambda s: (errors[s], -s))
        coefficients = []
        for part in modules.slices:
            size = (1 + part.stop) * z.shape[1]
            solution = whole.solve(best * penalty, size)
            coefficients.append(np.ascontiguousarray(solution.reshape(1 + part.stop, z.shape[1]).T))
        return cls(modules, tuple(coefficients), best, errors)

    def q_values(
        self, context: npt.NDArray[Any], actions: IntArray, probabilities: Sequence[FloatArray]
    ) -> list[QValues]:
        r"""Modelled rewards for the joint estimand and then for each module's, a list of 1 + M.

        Joint: :math:`q(x, a)` and :math:`E_{a \sim \pi} q(x, a)`. Module m: :math:`q_m(x, a_{\le m})` of the logged
        choices up to m, and :math:`\sum_b \pi_m(b | x, a_{<m}) q_m(x, a_{<m}, b)`, the earlier choices as logged. As
        model m does not see the later choices, it is a mean over how the log makes them, and for any :math:`q_m` the
        weighted logged term has the expectation of the policy term: so the doubly robust estimate is unbiased.

        Args:
            context: Context features (n, D).
            actions: Logged actions, canonical codes (n, M).
            probabilities: The policy's probabilities, one array (n, *modules.shape(m)) a module.
        """
        z = _with_one(context)
        logged = indicators(self.modules, actions)
        expected = policy_marginals(self.modules, probabilities)
        scores = z @ self.coefficients[-1]
        out = [QValues(_dot(scores, logged), _dot(scores, expected))]
        for m, part in enumerate(self.modules.slices):
            scores = z @ self.coefficients[m]
            h = logged[:, : 1 + part.stop]
            mixed = h.copy()
            mixed[:, 1 + part.start :] = module_choice(self.modules, probabilities, actions, m)
            out.append(QValues(_dot(scores, h), _dot(scores, mixed)))
        return out


def indicators(modules: ActionSpace, actions: IntArray) -> FloatArray:
    """A one, and indicators of each module's choice (n, 1 + sum of actions), 0 for later modules if nothing is sent."""
    out = np.zeros((len(actions), 1 + modules.total))
    out[:, 0] = 1.0
    rows, sent = np.arange(len(actions)), modules.sends(actions)
    for m, part in enumerate(modules.slices):
        out[rows, 1 + part.start + actions[:, m]] = sent if m else 1.0
    return out


def policy_marginals(modules: ActionSpace, probabilities: Sequence[FloatArray]) -> FloatArray:
    """The mean of `indicators` under a policy (n, 1 + sum of actions): a one, and every action's probability."""
    found = modules.marginals(probabilities)
    return np.concatenate([np.ones((len(found[0]), 1)), *found], axis=1)


def module_choice(modules: ActionSpace, probabilities: Sequence[FloatArray], actions: IntArray, m: int) -> FloatArray:
    """Module m's probabilities (n, A_m) given the logged earlier choices; all 0 where it makes no choice."""
    chosen: BoolArray = modules.sends(actions) if m else np.ones(len(actions), dtype=bool)
    return np.where(chosen[:, None], modules.conditional(m, probabilities[m], actions), 0.0)


def _with_one(context: npt.NDArray[Any]) -> FloatArray:
    return np.concatenate([np.ones((len(context), 1)), np.asarray(context, dtype=np.float64)], axis=1)


def _dot(scores: FloatArray, h: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("nt,nt->n", scores, h))


def _penalty(n_indicators: int, width: int) -> FloatArray:
    out = np.full((n_indicators, width), float(max(width - 1, 1)))
    out[0, :] = 1.0
    out[:, 0] = 1.0
    out[0, 0] = 0.0
    return out.reshape(-1)


@dataclass(frozen=True)
class _Moments:
    """What a least-squares fit and its error need: n, the Gram matrix, and the products with and of the rewards."""

    n: int
    gram: FloatArray
    cross: FloatArray
    square: float

    @classmethod
    def of(cls, z: FloatArray, h: FloatArray, pattern: IntArray, rewards: FloatArray) -> _Moments:
        """Moments of the features `h[pattern] (x) z`, without ever building them.

        Decisions with the same indicators share their part of the Kronecker product, so a Gram matrix of z for each
        distinct row of h is enough.
        """
        width, count = z.shape[1], h.shape[1]
        order = np.argsort(pattern, kind="stable")
        z, rewards = z[order], rewards[order]
        edges = np.searchsorted(pattern[order], np.arange(len(h) + 1))
        gram = np.zeros((count * count, width * width))
        cross = np.zeros((count, width))
        for block in np.array_split(np.arange(len(h)), -(-len(h) // PATTERNS_AT_ONCE)):
            rows = [slice(edges[j], edges[j + 1]) for j in block]
            squares = np.stack([z[r].T @ z[r] for r in rows]).reshape(len(block), -1)
            pairs = (h[block][:, :, None] * h[block][:, None, :]).reshape(len(block), -1)
            gram += pairs.T @ squares
            cross += h[block].T @ np.stack([z[r].T @ rewards[r] for r in rows])
        full = gram.reshape(count, count, width, width).transpose(0, 2, 1, 3).reshape(count * width, count * width)
        return cls(len(z), full, cross.reshape(-1), float(rewards @ rewards))

    @classmethod
    def total(cls, parts: Sequence[_Moments]) -> _Moments:
        """The moments of all parts together."""
        return cls(
            sum(p.n for p in parts),
            np.sum([p.gram for p in parts], axis=0),
            np.sum([p.cross for p in parts], axis=0),
            sum(p.square for p in parts),
        )

    def __sub__(self, other: _Moments) -> _Moments:
        return _Moments(self.n - other.n, self.gram - other.gram, self.cross - other.cross, self.square - other.square)

    def solve(self, penalty: FloatArray, size: int | None = None) -> FloatArray:
        """Coefficients of the first `size` features under a diagonal penalty."""
        return np.asarray(
            np.linalg.solve(self.gram[:size, :size] + np.diag(penalty[:size]), self.cross[:size]), dtype=np.float64
        )

    def error(self, coefficients: FloatArray) -> float:
        """Sum of squared errors of coefficients on these decisions."""
        return float(self.square - 2 * coefficients @ self.cross + coefficients @ self.gram @ coefficients)
