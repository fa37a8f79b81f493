"""Arms of a deployment: which users the policy decides for, which the business as usual, and which get nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, ObjectArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.hashing import derive, keys, uniforms
from crosschannel.histories.logs import DecisionLog
from crosschannel.histories.values.attributes import MISSING, attribute_text

AGENT, BUSINESS_AS_USUAL, HOLDOUT = "agent", "business_as_usual", "holdout"
ARMS = (AGENT, BUSINESS_AS_USUAL, HOLDOUT)
#: What follows the version of a policy at decisions for users who may not get messages yet.
WAITING = " (waiting)"
#: Keys of users without a cluster differ from those of clusters of the same name.
_OWN_CLUSTER = 0x5EED


@dataclass(frozen=True)
class Arms:
    """The shares of users in each arm. Users in neither of the two belong to the agent; by default that is everybody.

    An arm is permanent: it is a hash of the user's id and the salt, so that new users have one at once, and a user who
    comes back has the same. A larger share takes users from the agent alone, a smaller one gives them back to it;
    nobody moves between the other two arms. Another salt assigns everybody again.

    Attributes:
        holdout: Share of users who get no message. They show what all messages are worth.
        business_as_usual: Share of users for whom another system decides. The agent is compared with it.
        salt: Text that enters the hash, such as the name of a trial. Another one gives an independent assignment.
        cluster: User attribute whose users share an arm. Such as a household or an account; users without one are on
            their own. None: each user has an arm of their own.
    """

    holdout: float = 0.0
    business_as_usual: float = 0.0
    salt: str = "crosschannel"
    cluster: str | None = None

    def __post_init__(self) -> None:
        for name in (HOLDOUT, BUSINESS_AS_USUAL):
            share = getattr(self, name)
            if not 0.0 <= share < 1.0:
                raise ConfigError(f"{name} is {share}: the share of an arm is at least 0 and below 1")
        if self.holdout + self.business_as_usual >= 1.0:
            raise ConfigError(
                f"holdout {self.holdout:g} and business_as_usual {self.business_as_usual:g} leave no user to the agent"
            )


def assign_arms(user_ids: ObjectArray, arms: Arms, users: pd.DataFrame | None = None) -> ObjectArray:
    """Return the arm of each user (U,), one of `ARMS`.

    A hash of the id gives each user a number between 0 and 1: the holdout are those below its share, business as usual
    those above 1 less its share.

    Args:
        user_ids: Ids of the users (U,).
        arms: The shares.
        users: Attributes of these users, one row each, if arms are assigned by cluster.

    Raises:
        ConfigError: If the users have no attribute `cluster`.
    """
    u = arm_uniforms(user_ids, arms, users)
    out = np.full(len(u), AGENT, dtype=object)
    out[u < arms.holdout] = HOLDOUT
    out[u > 1.0 - arms.business_as_usual] = BUSINESS_AS_USUAL
    return out


def arm_uniforms(
    user_ids: ObjectArray, arms: Arms, users: pd.DataFrame | None = None, purpose: str = "arm"
) -> FloatArray:
    """Return a permanent number between 0 and 1 of each user (U,), equal within a cluster.

    Args:
        user_ids: Ids of the users (U,).
        arms: The salt and the cluster.
        users: Attributes of these users, if there is a cluster.
        purpose: What the numbers are for; those of another purpose are independent.

    Raises:
        ConfigError: If the users have no attribute `cluster`.
    """
    own = keys(user_ids)
    if arms.cluster is not None:
        known = () if users is None else tuple(map(str, users.columns))
        if users is None or arms.cluster not in known:
            raise ConfigError(
                f"arms.cluster: the users have no attribute {arms.cluster!r}. {nearest(arms.cluster, known)}"
            )
        cluster = attribute_text(users[arms.cluster])
        own = np.where(cluster == MISSING, derive(own, _OWN_CLUSTER), keys(cluster))
    digest = hashlib.sha256(f"{purpose}\0{arms.salt}".encode()).digest()
    return uniforms(own, int.from_bytes(digest[:8], "big"))


def held_out(decisions: DecisionLog, modules: ActionSpace) -> BoolArray:
    """Return which decisions (n,) are those of users of the holdout, or who wait, at which nothing could be sent.

    They are controls, and no policy is valued at them. Rows of the same users from before the holdout began are not
    among them: messages could be sent there.
    """
    apart = np.zeros(len(decisions), dtype=bool)
    if decisions.arm is not None:
        apart |= np.asarray(decisions.arm == HOLDOUT, dtype=bool)
    if decisions.policy is not None:
        codes, names = pd.factorize(decisions.policy)
        waits = np.array([str(name).endswith(WAITING) for name in names] + [False], dtype=bool)
        apart |= waits[codes]
    certain = decisions.joint == 1.0
    if decisions.eligible is not None:
        certain |= ~modules.split(modules.feasible_mask(decisions.eligible))[0][:, 1:].any(1)
    return np.asarray(apart & ~modules.sends(decisions.actions) & certain)
