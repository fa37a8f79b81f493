"""Fitted Q evaluation: the sum of rewards that a policy would still earn from a slot on, by regressions backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.outcome_model import STRENGTHS, OutcomeModel, QValues
from evaluation.sequential.trajectories import Episodes
from evaluation.support import LoggedDecisions, check_policy
from histories.errors import ConfigError
from histories.hashing import uniforms
from histories.modules import FloatArray

FOLD_SALT = 0x0F9E


def fitted_q(
    log: LoggedDecisions,
    context: npt.NDArray[Any],
    probabilities: Sequence[FloatArray],
    rewards: FloatArray,
    episodes: Episodes,
    *,
    discount: float = 1.0,
    folds: int = 3,
    strengths: Sequence[float] = STRENGTHS,
) -> QValues:
    r"""Modelled discounted sums of rewards from every slot to the last of the horizon, cross-fitted by user.

    .. math:: q_{H-1} \approx E[r_{H-1} | x, a], \qquad q_t \approx E[r_t + \gamma v_{t+1} | x_t, a_t], \qquad
        v_t = E_{a \sim \pi} q_t(x_t, a)

    One `OutcomeModel` a slot, from the last to the first, as a finite horizon's values differ by slot; v is 0 once a
    user is gone. A user's values come from models of the other folds' users, so that in `sequential dr` no reward
    corrects a model that it has taught. It is right only as far as the context holds all that the past does to the
    future, such as the gap since the last message; where it does not, `sequential dr` mends it, and `fqe` does not.
    Le, Voloshin & Yue (2019), "Batch policy learning under constraints", ICML.

    Args:
        log: The logged decisions (decisions,).
        context: Standardised context features (decisions, D).
        probabilities: The policy's probabilities, one array (decisions, *modules.shape(m)) a module.
        rewards: Rewards, each of its own slot (decisions,), finite in all stretches.
        episodes: Which decisions follow each other, n stretches of H slots.
        discount: What a slot's reward is worth at the slot before.
        folds: Folds of users for the cross-fitting; a hash of the user's code says which one a user is in.
        strengths: Penalties to choose from.

    Returns:
        Sums if the logged action is taken at the slot, and if the policy chooses there, each (n, H), 0 where a user is
        gone.

    Raises:
        InputError: If shapes differ or a probability is out of range.
        ConfigError: If there are fewer than 2 folds, or too few users to fit a slot's model.
    """
    if folds < 2:
        raise ConfigError(f"cross-fitting needs 2 folds or more, not {folds}")
    check_policy(log.modules, probabilities, len(log))
    n, horizon = episodes.rows.shape
    fold = (uniforms(episodes.user.astype(np.uint64), FOLD_SALT) * folds).astype(np.int64)
    logged, policy = np.zeros((n, horizon)), np.zeros((n, horizon))
    for k in range(folds):
        later = np.zeros(n)
        for t in reversed(range(horizon)):
            there = np.flatnonzero(episodes.rows[:, t] >= 0)
            rows, taught = episodes.rows[there, t], fold[there] != k
            target = rewards[rows] + discount * later[there]
            actions, user = log.actions[rows], episodes.user[there]
            model = OutcomeModel.fit(
                log.modules, context[rows[taught]], actions[taught], target[taught], user[taught], strengths=strengths
            )
            q = model.q_values(context[rows], actions, [p[rows] for p in probabilities])[0]
            own = there[~taught]
            logged[own, t], policy[own, t] = q.logged[~taught], q.policy[~taught]
            later = np.zeros(n)
            later[there] = q.policy
    return QValues(logged, policy)
