"""Fitted Q evaluation: the sum of rewards that a policy still earns from a slot on, by backward regressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import uniforms
from crosschannel.evaluation.logged_decisions import LoggedDecisions, check_probabilities
from crosschannel.evaluation.outcomes.outcome_model import PENALTIES, OutcomeModel, QValues
from crosschannel.evaluation.sequential.trajectories import TrajectoryIndex

FOLD_SALT = 0x0F9E


def fit_q_values(
    log: LoggedDecisions,
    context: npt.NDArray[Any],
    probabilities: Sequence[FloatArray],
    rewards: FloatArray,
    index: TrajectoryIndex,
    *,
    discount: float = 1.0,
    folds: int = 3,
    penalties: Sequence[float] = PENALTIES,
) -> QValues:
    r"""Fit discounted sums of rewards from every slot to the last of the horizon, cross-fitted by user.

    .. math:: q_{H-1} \approx E[r_{H-1} | x, a], \qquad q_t \approx E[r_t + \gamma v_{t+1} | x_t, a_t], \qquad
        v_t = E_{a \sim \pi} q_t(x_t, a)

    One `OutcomeModel` is fitted per slot, from the last to the first, as the values of a finite horizon differ by slot;
    v is 0 once a user has churned. A user's values come from models of the other folds' users, so that in
    `sequential dr` no reward corrects a model that was fitted to it.

    Assumption: the context holds everything through which the past affects the future, such as the gap since the last
    message. Where it does not, `sequential dr` corrects the error and `fqe` does not. Le, Voloshin & Yue (2019), "Batch
    policy learning under constraints", ICML.

    Args:
        log: The logged decisions (decisions,).
        context: Standardised context features (decisions, D).
        probabilities: The policy's probabilities, one array (decisions, *modules.shape(m)) per module.
        rewards: Rewards, each of its own slot (decisions,), finite in all trajectories.
        index: The decisions of n trajectories of H slots.
        discount: What a slot's reward is worth at the slot before.
        folds: Folds of users for the cross-fitting; a hash of the user's code assigns the user to one.
        penalties: Penalties to choose from.

    Returns:
        Sums if the logged action is taken at the slot, and if the policy chooses there, each (n, H), 0 after a user has
        churned.

    Raises:
        InputError: If shapes differ or a probability is out of range.
        ConfigError: If there are fewer than 2 folds, or too few users to fit a slot's model.
    """
    if folds < 2:
        raise ConfigError(f"cross-fitting needs 2 folds or more, not {folds}")
    check_probabilities(log.modules, probabilities, len(log))
    n, horizon = index.rows.shape
    fold = (uniforms(index.user.astype(np.uint64), FOLD_SALT) * folds).astype(np.int64)
    q_logged, q_policy = np.zeros((n, horizon)), np.zeros((n, horizon))
    for k in range(folds):
        next_value = np.zeros(n)
        for t in reversed(range(horizon)):
            active = np.flatnonzero(index.rows[:, t] >= 0)
            rows, training = index.rows[active, t], fold[active] != k
            target = rewards[rows] + discount * next_value[active]
            actions, user = log.actions[rows], index.user[active]
            model = OutcomeModel.fit(
                log.modules,
                context[rows[training]],
                actions[training],
                target[training],
                user[training],
                penalties=penalties,
            )
            q = model.q_values(context[rows], actions, [p[rows] for p in probabilities])[0]
            held_out = active[~training]
            q_logged[held_out, t], q_policy[held_out, t] = q.logged[~training], q.policy[~training]
            next_value = np.zeros(n)
            next_value[active] = q.policy
    return QValues(logged=q_logged, policy=q_policy)
