"""Random logs with right propensities of many shapes, and the mistakes that people make with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY
from crosschannel.histories.history import DecisionLog, EventLog, History


@dataclass(frozen=True)
class Decided:
    """Decisions of one module: users (n,), probabilities of all actions (n, A), what was eligible, what was taken."""

    user: np.ndarray
    policy: np.ndarray
    taken: np.ndarray
    eligible: np.ndarray | None = None
    arm: np.ndarray | None = None

    @property
    def p(self) -> np.ndarray:
        return self.policy[np.arange(len(self.taken)), self.taken]


def draw(rng, policy: np.ndarray) -> np.ndarray:
    return (rng.random(len(policy))[:, None] > policy.cumsum(1)[:, :-1]).sum(1)


def history_of(decided: Decided, p: np.ndarray | None = None, source="logged") -> History:
    """A log of daily decisions with the given propensities, by default the right ones."""
    p = decided.p if p is None else p
    n, size = decided.policy.shape
    users = int(decided.user.max()) + 1
    slot = np.arange(n) - np.searchsorted(decided.user, decided.user)
    ids = np.arange(n)
    return History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=decided.user,
            time=19_800 * DAY + slot * DAY,
            actions=decided.taken[:, None],
            propensity=p[:, None],
            joint=p,
            arm=decided.arm,
            eligible=decided.eligible,
        ),
        EventLog(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), np.zeros(0)),
        modules=ActionSpace([Module("channel", ("none", *(f"c{k}" for k in range(1, size))))]),
        user_ids=np.arange(users),
        event_names=(),
        span=(19_800 * DAY, 19_900 * DAY),
        propensity_source=source,
    )


def users_of(users: int, slots: int) -> np.ndarray:
    return np.repeat(np.arange(users), slots)


def by_user_binary(rng, users=40, slots=20):
    """Each user has a probability of a message."""
    user = users_of(users, slots)
    chance = rng.uniform(0.05, 0.95, users)[user]
    policy = np.stack([1 - chance, chance], 1)
    return Decided(user, policy, draw(rng, policy))


def few_users(rng):
    return by_user_binary(rng, users=int(rng.integers(3, 12)), slots=60)


def one_decision_each(rng):
    return by_user_binary(rng, users=500, slots=1)


def steep_softmax(rng, users=300, slots=10, actions=4, steepness=2.5, logged=True):
    """Heavy-tailed weights: most actions have a tiny probability in most contexts."""
    user = users_of(users, slots)
    logits = rng.normal(size=actions) + steepness * rng.normal(size=(len(user), actions))
    policy = special.softmax(logits, axis=1)
    eligible = np.ones(policy.shape, dtype=bool) if logged else None
    return Decided(user, policy, draw(rng, policy), eligible)


def very_steep_softmax(rng):
    return steep_softmax(rng, steepness=6.0)


def users_keep_their_action(rng, users=60, slots=30, chance=0.9):
    """Users are randomised once: all decisions of one user are the same."""
    user = users_of(users, slots)
    one = np.full((users, 2), [1 - chance, chance])
    return Decided(user, one[user], draw(rng, one)[user])


def few_users_keep_their_action(rng):
    return users_keep_their_action(rng, users=12)


def uneven_users_keep_their_action(rng, users=40):
    """A few users have most of the decisions."""
    count = np.maximum((rng.pareto(1.2, users) * 8).astype(int), 1)
    user = np.repeat(np.arange(users), np.minimum(count, 60))
    one = np.full((users, 3), [0.5, 0.3, 0.2])
    return Decided(user, one[user], draw(rng, one)[user], np.ones((len(user), 3), dtype=bool))


def rules_and_chance(rng, users=150, slots=12):
    """Some contexts have one possible action, which is logged with a propensity of 1, although more are eligible."""
    user = users_of(users, slots)
    kind = rng.integers(0, 4, len(user))
    policy = np.eye(3)[np.minimum(kind, 2)]
    policy[kind == 3] = [0.5, 0.3, 0.2]
    return Decided(user, policy, draw(rng, policy), np.ones(policy.shape, dtype=bool))


def greedy_with_a_floor(rng, users=300, slots=10, actions=5, floor=0.02):
    """As this package's agents decide: the best action, but for a uniform draw with probability `floor`."""
    user = users_of(users, slots)
    eligible = rng.random((len(user), actions)) < 0.7
    eligible[:, 0] = True
    best = np.where(eligible, rng.normal(size=eligible.shape), -np.inf).argmax(1)
    policy = (1 - floor) * np.eye(actions)[best] + floor * eligible / eligible.sum(1, keepdims=True)
    return Decided(user, policy, draw(rng, policy), eligible)


def rarely_possible(rng, users=200, slots=10):
    """A probability of .0005 in nearly all rows: the expected number of draws there is one."""
    user = users_of(users, slots)
    chance = np.where(rng.random(len(user)) < 0.95, 5e-4, 0.5)
    policy = np.stack([1 - chance, chance], 1)
    return Decided(user, policy, draw(rng, policy))


def arms_and_weeks(rng, users=120, slots=42):
    """Three arms with other probabilities, over six weeks, which change the probabilities too."""
    user = users_of(users, slots)
    arm = (user % 3).astype(int)
    week = (np.arange(len(user)) % slots) // 7
    chance = np.clip(0.1 + 0.25 * arm + 0.03 * week, 0.02, 0.98)
    policy = np.stack([1 - chance, 0.7 * chance, 0.3 * chance], 1)
    names = np.array(["a", "b", "c"], dtype=object)[arm]
    return Decided(user, policy, draw(rng, policy), np.ones(policy.shape, dtype=bool), names)


def many_actions(rng, users=300, slots=10, actions=150):
    user = users_of(users, slots)
    policy = rng.dirichlet(np.full(actions, 0.3), len(user)) * 0.9 + 0.1 / actions
    return Decided(user, policy, draw(rng, policy), np.ones(policy.shape, dtype=bool))


def vote_shares(rng, users=200, slots=10):
    """Ten members vote and there is no floor: many actions are impossible, and eligibility is not logged."""
    user = users_of(users, slots)
    tilt = rng.dirichlet([0.6] * 4, len(user))
    policy = rng.multinomial(10, tilt / tilt.sum(1, keepdims=True)) / 10
    return Decided(user, policy, draw(rng, policy))


def few_votes_with_a_floor(rng, users=400, slots=1, actions=5):
    """Three members vote, one decision in fifty is a uniform draw: what nobody votes for has a propensity of .004."""
    user = users_of(users, slots)
    votes = rng.multinomial(3, rng.dirichlet(np.full(actions, 0.5), len(user)))
    policy = 0.98 * votes / 3 + 0.02 / actions
    return Decided(user, policy, draw(rng, policy), np.ones(policy.shape, dtype=bool))


def habits(rng, users=100, slots=30):
    """The policy repeats what it did the day before with probability .8: rows of a user are dependent."""
    user, taken, policy = users_of(users, slots), np.zeros((users, slots), int), np.zeros((users, slots, 3))
    for t in range(slots):
        policy[:, t] = 1 / 3 if t == 0 else 0.1 + 0.7 * np.eye(3)[taken[:, t - 1]]
        taken[:, t] = draw(rng, policy[:, t])
    return Decided(user, policy.reshape(-1, 3), taken.reshape(-1), np.ones((users * slots, 3), dtype=bool))


RIGHT = {
    world.__name__: world
    for world in (
        by_user_binary,
        few_users,
        one_decision_each,
        steep_softmax,
        very_steep_softmax,
        users_keep_their_action,
        few_users_keep_their_action,
        uneven_users_keep_their_action,
        rules_and_chance,
        greedy_with_a_floor,
        rarely_possible,
        arms_and_weeks,
        many_actions,
        vote_shares,
        few_votes_with_a_floor,
        habits,
    )
}


def campaign(rng, users=300, slots=12, actions=2, logged=False, share=0.3):
    """Messages answer what users did, with chances between `share` / 3 and 2 `share` or so."""
    user = users_of(users, slots)
    chance = special.expit(special.logit(share) + 0.8 * rng.normal(size=len(user)))
    split = rng.dirichlet(np.full(actions - 1, 3.0), len(user))
    policy = np.concatenate([1 - chance[:, None], chance[:, None] * split], axis=1)
    return Decided(user, policy, draw(rng, policy), np.ones(policy.shape, dtype=bool) if logged else None)


def _sent(decided: Decided) -> np.ndarray:
    return 1 - decided.policy[:, 0]


MISTAKES = {
    "the probability of sending": lambda w, _: _sent(w),
    "the probability of nothing": lambda w, _: w.policy[:, 0],
    "1 - p": lambda w, _: 1 - w.p,
    "divided by 100": lambda w, _: w.p / 100,
    "given that something is sent": lambda w, _: np.where(w.taken > 0, w.p / _sent(w), w.p),
    "another policy": lambda w, rng: rng.permutation(w.policy.T)[w.taken, np.arange(len(w.taken))],
    "of the best action": lambda w, _: w.policy.max(axis=1),
    "of a random action": lambda w, rng: w.policy[
        np.arange(len(w.taken)), rng.integers(0, w.policy.shape[1], len(w.taken))
    ],
    "of other rows": lambda w, rng: rng.permutation(w.policy)[np.arange(len(w.taken)), w.taken],
    "one where nothing is sent": lambda w, _: np.where(w.taken > 0, w.p, 1.0),
    "uniform": lambda w, _: np.full(len(w.taken), 1 / w.policy.shape[1]),
}
