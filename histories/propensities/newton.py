"""Newton's method for penalised likelihoods, which stops by the size of the score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import NotIdentified

TOLERANCE = 1e-7
MAX_STEPS = 100
MAX_HALVINGS = 30
SUFFICIENT_INCREASE = 1e-4
ROUNDING = 1e-12
CG_TOLERANCE = 1e-9


@dataclass(frozen=True)
class ImplicitInformation:
    """An information matrix (k, k) that is too large to be written out: what it does to a vector, and its diagonal."""

    times: Callable[[FloatArray], FloatArray]
    diagonal: FloatArray

    def solve(self, score: FloatArray) -> FloatArray:
        """Return the Newton step (k,), by conjugate gradients that its diagonal preconditions."""
        k = len(score)
        matrix = LinearOperator((k, k), matvec=self.times, dtype=np.float64)
        inverse = LinearOperator((k, k), matvec=lambda v: np.ravel(v) / self.diagonal, dtype=np.float64)
        step, _ = cg(matrix, score, rtol=CG_TOLERANCE, maxiter=10 * k, M=inverse)
        return np.asarray(step)


def maximise(
    objective: Callable[[FloatArray], float],
    derivatives: Callable[[FloatArray], tuple[FloatArray, FloatArray | ImplicitInformation]],
    start: FloatArray,
) -> FloatArray:
    r"""Return the maximum of a strictly concave log-likelihood by Newton's method with step halving.

    The iteration has converged once the score s is small in its own scale, the information I:

    .. math:: \lambda = \sqrt{s^\top I^{-1} s} \le 10^{-7}

    :math:`\lambda` is the distance to the maximum in standard errors of the estimates, whatever the units of the
    columns. One last step follows; near the maximum a step about squares :math:`\lambda`, so that what is left of the
    error is the rounding of the score, times the condition of the information. The change of the objective would be a
    worse criterion: the objective is flat at its maximum, so that its last digit says half of the estimates' digits.

    A step is halved until the objective rises by a part of what its slope promises (Armijo 1966), or falls by no more
    than its rounding error. Boyd & Vandenberghe (2004), "Convex optimization", section 9.5.

    Args:
        objective: The log-likelihood, penalty included, at parameters (k,).
        derivatives: The score (k,) and the information (k, k), the negative second derivative, at parameters (k,);
            the information as a matrix, or implicitly where it is large.
        start: Where the iteration begins (k,).

    Raises:
        NotIdentified: If there is no convergence within `MAX_STEPS` steps: the likelihood has no maximum that the
            arithmetic can find.
    """
    theta, value, distance = start, objective(start), np.inf
    for _ in range(MAX_STEPS):
        score, information = derivatives(theta)
        if isinstance(information, ImplicitInformation):
            step = information.solve(score)
        else:
            step = np.asarray(np.linalg.solve(information, score), dtype=np.float64)
        distance = float(np.sqrt(abs(score @ step)))
        if distance <= TOLERANCE:
            return np.asarray(theta + step)
        for _ in range(MAX_HALVINGS):
            new = objective(theta + step)
            if new - value >= SUFFICIENT_INCREASE * (score @ step) - ROUNDING * (1.0 + abs(value)):
                break
            step = step / 2.0
        theta, value = theta + step, new
    raise NotIdentified(
        f"a likelihood could not be maximised: after {MAX_STEPS} steps of Newton's method the estimates are still "
        f"{distance:.2g} standard errors from the maximum"
    )
