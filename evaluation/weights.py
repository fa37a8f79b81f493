"""Importance weights of a policy on a log, and their effective sample size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.evaluation.logged_decisions import LoggedDecisions


def importance_weights(log: LoggedDecisions, probabilities: Sequence[FloatArray], m: int | None) -> FloatArray:
    r"""Return the importance weights (n,) of a policy, for the whole action (m None) or for module m alone.

    .. math:: w = \prod_m \pi_m(a_m | x, a_{<m}) / \mu(a | x), \qquad
        w_m = \pi_m(a_m | x, a_{<m}) / \mu_m(a_m | x, a_{<m})

    The weight of module m belongs to the policy that chooses module m as the evaluated one does, and every other module
    as the log does given the earlier choices: all other factors cancel. Where module m makes no choice (nothing was
    sent), the weight is 1. NaN where the log has no propensity.
    """
    taken = log.modules.chosen_probabilities(probabilities, log.actions)
    if m is None:
        propensity = log.propensity.copy()
        propensity[~log.modules.sends(log.actions), 1:] = 1.0
        joint = np.where(np.isnan(log.joint), propensity.prod(1), log.joint)
        return np.asarray(taken.prod(1) / joint)
    return np.where(has_choice(log, m), taken[:, m] / log.propensity[:, m], 1.0)


def has_choice(log: LoggedDecisions, m: int | None) -> BoolArray:
    """Return at which decisions module m makes a choice (n,): the first one always, the others where one is sent.

    For the whole action (m None) these are all decisions.
    """
    return log.modules.sends(log.actions) if m else np.ones(len(log), dtype=bool)


def effective_sample_size(weights: FloatArray) -> float:
    r"""Return the effective sample size of weights (n,), :math:`(\sum w)^2 / \sum w^2`; 0 where all are 0.

    So many equally weighted decisions give an equally precise mean. Kish (1965), "Survey sampling".
    """
    square = float(weights @ weights)
    return float(weights.sum() ** 2 / square) if square > 0 else 0.0
