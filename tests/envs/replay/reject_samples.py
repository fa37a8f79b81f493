"""Worlds whose truth is known, logged by a policy that is far from uniform."""

from __future__ import annotations

import numpy as np

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY, NEVER
from crosschannel.envs.replay.log import ReplayLog

MODULES = ActionSpace([Module("channel", ("none", "email", "push"))])
#: Probability of the three actions for users of either kind x in the log, of reward 1, and of the agent's choice.
LOGGED = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])
REWARD = np.array([[0.05, 0.10, 0.40], [0.10, 0.50, 0.20]])
AGENT = np.array([[0.2, 0.2, 0.6], [0.1, 0.6, 0.3]])
#: Value of the agent, and of the log, per decision; both kinds of user are equally many.
TRUTH, LOGGED_TRUTH = (AGENT * REWARD).sum() / 2, (LOGGED * REWARD).sum() / 2

#: Two slots with fatigue: sending at the first spoils the second.
SENT_FIRST = 0.61
QUIET, FRESH, TIRED = 0.07, 0.30, 0.10
#: The agent waits, then sends: .07 + .30. A slot at a time under the log's fatigue: .07 + .39 x .30 + .61 x .10.
PATIENT_TRUTH = QUIET + FRESH
PER_SLOT_TRUTH = QUIET + (1 - SENT_FIRST) * FRESH + SENT_FIRST * TIRED


def draw(rng: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    return (probabilities.cumsum(1) < rng.random((len(probabilities), 1))).sum(1)


def build(
    modules: ActionSpace, context: np.ndarray, actions: np.ndarray, propensity: np.ndarray, rewards: np.ndarray
) -> ReplayLog:
    """A log of (users, slots): all users have all slots, a day apart, and rewards known at the next slot."""
    users, slots = rewards.shape
    n = users * slots
    ids = np.array([f"u{i}" for i in range(users)], dtype=object)
    row = np.arange(n)
    slot, user = row // users, row % users
    return ReplayLog(
        modules=modules,
        user_ids=ids,
        user_keys=keys(ids),
        churned=np.zeros(users, dtype=bool),
        user=user,
        slot=slot,
        next_row=np.where(slot + 1 < slots, row + users, -1),
        context=np.ascontiguousarray(context.T.reshape(n, 1), dtype=np.float32),
        action_mask=np.ones((n, modules.total), dtype=bool),
        actions=np.ascontiguousarray(actions.T.reshape(n, 1)),
        rewards=np.ascontiguousarray(rewards.T.reshape(n)),
        se=np.ones(n),
        keys=keys(np.array([f"d{i}" for i in range(n)], dtype=object)),
        propensity=np.ascontiguousarray(propensity.T.reshape(n, 1)),
        joint=np.ascontiguousarray(propensity.T.reshape(n)),
        time=slot * DAY,
        available_at=(slot + 1) * DAY,
        decided_next=np.where(slot + 1 < slots, (slot + 1) * DAY, NEVER),
        decision_row=user * slots + slot,
        skipped={},
        dropped_users=0,
        propensity_source=np.zeros(n, dtype=np.int64),
        name="known truth",
    )


def bandit_log(seed: int, users: int, logged: np.ndarray = LOGGED) -> ReplayLog:
    """One decision a user."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, users)
    action = draw(rng, logged[x])
    rewards = (rng.random(users) < REWARD[x, action]).astype(float)
    columns = (x, action, logged[x, action], rewards)
    return build(MODULES, *(column[:, None] for column in columns))


def fatigue_log(seed: int, users: int) -> ReplayLog:
    """Two decisions a user; the context is 0 at the first, and 1 or 2 at the second: a message was sent, or was not."""
    rng = np.random.default_rng(seed)
    modules = ActionSpace([Module("channel", ("none", "push"))])
    first, second = rng.random((2, users)) < np.array([[SENT_FIRST], [0.5]])
    chance = np.stack([np.where(first, 0.2, QUIET), np.where(second, np.where(first, TIRED, FRESH), 0.05)], axis=1)
    propensity = np.stack([np.where(first, SENT_FIRST, 1 - SENT_FIRST), np.full(users, 0.5)], axis=1)
    return build(
        modules,
        np.stack([np.zeros(users), np.where(first, 1, 2)], axis=1),
        np.stack([first, second], axis=1).astype(np.int64),
        propensity,
        (rng.random((users, 2)) < chance).astype(float),
    )
