r"""Exact rejection: which logged slots are as good as decided by the agent itself.

A slot whose logged action a had propensity :math:`\mu(a|x)` is accepted with probability

.. math:: w / W, \qquad w = \frac{1[a = A]}{\mu(a|x)}, \; A \sim \pi(\cdot|x) \quad \text{or} \quad
    w = \frac{\pi(a|x)}{\mu(a|x)}

where W is one number, no smaller than any weight w. Whatever the context, :math:`\sum_a \mu(a|x) w(a) / W = 1 / W`:
so acceptance does not depend on x, and among the accepted slots a is distributed as :math:`\pi(a|x)`. By induction the
same holds for a row of accepted slots: if all of a user's first t slots were accepted, slot t and its reward are
distributed as if the agent had decided them all. After a rejection it holds no more: the log goes on from an action
that the agent did not take, and whatever carries over (fatigue, gaps, an order already made) carries over from it.

Li, Chu, Langford & Wang (2011), "Unbiased offline evaluation of contextual-bandit-based news article recommendation
algorithms", WSDM; Dudik, Erhan, Langford & Li (2012), "Sample-efficient nonstationary policy evaluation for contextual
bandits", UAI; whole rows of decisions: Mandel, Liu, Brunskill & Popovic (2016), "Offline evaluation of online
reinforcement learning algorithms", AAAI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import derive, mix, unit
from crosschannel.envs.replay.log import ReplayLog, executable

#: How far rounding may carry a sum of probabilities from 1, or a weight above the largest (float32 policies).
ROUNDING = 1e-5


@dataclass(frozen=True)
class Acceptance:
    """How much of a log rejection has used, since the order of the replay was drawn.

    Attributes:
        judged: Slots that were judged.
        accepted: How many of them were accepted.
        weight: Mean weight of the judged slots. Its expectation is 1 if the log has support for all that the policy
            does; clearly below 1, that much of the policy cannot be seen in this log.
        largest_weight: W: the share accepted is expected to be `weight / W`.
        propensity_source: Where the propensities come from, on which all of this rests.
    """

    judged: int
    accepted: int
    weight: float
    largest_weight: float
    propensity_source: str

    @property
    def share(self) -> float:
        """Share of the judged slots that was accepted; NaN before the first."""
        return self.accepted / self.judged if self.judged else float("nan")

    def __str__(self) -> str:
        return (
            f"accepted {self.accepted:,} of {self.judged:,} slots ({self.share:.2%}), mean weight {self.weight:.3f}, "
            f"largest weight {self.largest_weight:.4g}, propensities {self.propensity_source}"
        )


def check_rejectable(log: ReplayLog) -> None:
    """Refuses a log on which rejection is not exact.

    Raises:
        ConfigError: If propensities are missing; if a user's decisions between two steps are no steps, so that nobody
            can tell whether the agent would have made them; or if a reward is known only after the user's next
            decision, so that it holds what that one did.
    """
    if missing := int((~np.isfinite(log.joint)).sum()):
        raise ConfigError(
            f"mode 'reject' weighs by propensities, but {missing:,} of {len(log):,} steps have none: "
            "estimate them first, or use mode 'logged'"
        )
    follower = log.following[log.following >= 0]
    skipping = log.time[follower] != log.decided_next[log.following >= 0]
    if skipping.any():
        raise ConfigError(
            f"mode 'reject' cannot judge a decision that is no step, but {int(skipping.sum()):,} steps come after one "
            f"({log.summary()}): walking over it would take the logged action for the agent's. Use a reward that is "
            "identified at every slot (such as `overlap: shared`), or mode 'logged'"
        )
    open_still = log.available_at > log.decided_next
    if open_still.any():
        raise ConfigError(
            f"mode 'reject' is not exact where something carries over into the reward: {int(open_still.sum()):,} of "
            f"{len(log):,} rewards are known only after the user's next decision, so they hold what the *logged* "
            "policy did then. Use a post window no longer than the time between slots, or mode 'logged'"
        )


def bound(log: ReplayLog, given: float | None) -> float:
    """W: the bound that was given, or the largest weight that any policy can reach, 1 / the smallest propensity.

    Raises:
        ConfigError: If the bound is below 1, which no policy's largest weight is.
    """
    if given is None:
        return 1.0 / float(log.joint.min())
    if not given >= 1.0:
        raise ConfigError(f"largest_weight is {given}; weights have mean 1, so that the largest is at least 1")
    return float(given)


def largest_weight(log: ReplayLog, probabilities: Sequence[FloatArray]) -> float:
    """The largest weight of a policy that does not change, from its probabilities (n, A_m) at all rows of a log.

    Given to the env it makes `step_distribution` accept as much as can be: the bound that holds for every policy is
    1 / the smallest propensity, but a policy that spreads its choices, or resembles the logged one, stays far below.
    """
    return float((log.modules.chosen_probabilities(probabilities, log.actions).prod(1) / log.joint).max())


def action_weights(log: ReplayLog, row: IntArray, actions: IntArray) -> FloatArray:
    """Weights (N,) of rows (N,), from actions (N, M) that the agent has drawn."""
    same = executable(log.modules, log.action_mask[row], actions) == log.actions[row]
    return np.asarray(same.all(1) / log.joint[row])


def distribution_weights(log: ReplayLog, row: IntArray, probabilities: Sequence[FloatArray]) -> FloatArray:
    """Weights (N,) of rows (N,), from probabilities (N, A_m) of each module's actions, given the parent's choice.

    Raises:
        InvalidAction: If they are no probabilities of eligible actions.
    """
    modules, mask = log.modules, log.action_mask[row]
    shapes, expected = [p.shape for p in probabilities], [(len(row), size) for size in modules.sizes]
    if shapes != expected:
        raise gym.error.InvalidAction(f"probabilities have the shapes {shapes}, not {expected}")
    for m, (p, eligible) in enumerate(zip(probabilities, modules.split(mask), strict=True)):
        ok = (np.asarray(p) >= 0) & (eligible | (np.asarray(p) == 0))
        for group in modules.groups(m):
            total = np.asarray(p)[:, group].sum(1, dtype=np.float64)
            ok[:, group] &= (np.abs(total - eligible[:, group].any(1)) <= ROUNDING)[:, None]
        if not ok.all():
            where = int(np.flatnonzero(~ok.all(1))[0])
            raise gym.error.InvalidAction(
                f"the probabilities of module {modules.names[m]!r} at row {where}, {np.asarray(p)[where].tolist()}, do "
                f"not add up to 1 over its eligible actions {eligible[where].astype(int).tolist()} alone"
            )
    return np.asarray(modules.chosen_probabilities(probabilities, log.actions[row]).prod(1) / log.joint[row])


def acceptance(weights: FloatArray, largest: float) -> FloatArray:
    """Probabilities (N,) of being accepted.

    Raises:
        ConfigError: If a weight is above the bound: cut off at 1, the accepted slots would not be the agent's.
    """
    if (highest := float(weights.max(initial=0.0))) > largest * (1 + ROUNDING):
        raise ConfigError(
            f"a weight of {highest:.6g} is above the bound of {largest:.6g}, so accepted slots would not be "
            "distributed as under the agent: give the env a `largest_weight` that its policy never exceeds"
        )
    return np.minimum(weights / largest, 1.0)


def accepted(log: ReplayLog, row: IntArray, number: IntArray, seed: int, probability: FloatArray) -> BoolArray:
    """Draws which rows (N,) are accepted, with their probabilities (N,), in passes (N,).

    A draw is a hash of the decision, the pass and the seed, so that it does not depend on what else is replayed.
    """
    salted = derive(log.keys[row], seed) ^ mix(number.astype(np.uint64))
    return np.asarray(unit(mix(salted)) < probability)
