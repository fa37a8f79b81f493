r"""Rejection sampling of logged slots, so that accepted slots are distributed as under the agent.

A slot whose logged action a had propensity :math:`\mu(a|x)` is accepted with probability

.. math:: w / W, \qquad w = \frac{1[a = A]}{\mu(a|x)}, \; A \sim \pi(\cdot|x) \quad \text{or} \quad
    w = \frac{\pi(a|x)}{\mu(a|x)}

where W is a constant no smaller than any weight w. For every context, :math:`\sum_a \mu(a|x) w(a) / W = 1 / W`:
acceptance does not depend on x, and among the accepted slots a is distributed as :math:`\pi(a|x)`. By induction the
same holds for a sequence of accepted slots: if a user's first t slots were all accepted, slot t and its reward are
distributed as if the agent had decided them all. After a rejection this no longer holds: the log continues from an
action that the agent did not take, and so do fatigue, gaps and earlier orders.

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

#: Tolerance for a sum of probabilities around 1, and for a weight above the largest one (float32 policies).
ROUNDING_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Acceptance:
    """Share of a log that rejection has accepted since the order of the replay was drawn.

    Attributes:
        judged: Number of slots that were judged.
        accepted: Number of them that were accepted.
        weight: Mean weight of the judged slots. Its expectation is 1 if the log supports the whole policy; if it is
            clearly below 1, the difference is the share of the policy that this log has no support for.
        largest_weight: W; the expected share of accepted slots is `weight / W`.
        propensities: Where the propensities come from, in words.
    """

    judged: int
    accepted: int
    weight: float
    largest_weight: float
    propensities: str

    @property
    def share(self) -> float:
        """Share of the judged slots that were accepted; NaN before the first."""
        return self.accepted / self.judged if self.judged else float("nan")

    def __str__(self) -> str:
        return (
            f"accepted {self.accepted:,} of {self.judged:,} slots ({self.share:.2%}), mean weight {self.weight:.3f}, "
            f"largest weight {self.largest_weight:.4g}, propensities {self.propensities}"
        )


def check_rejectable(log: ReplayLog) -> None:
    """Check that rejection is exact on a log.

    Raises:
        ConfigError: If propensities are missing; if a user has decisions between two steps that are not steps, so that
            it is unknown whether the agent would have made them; or if a reward is known only after the user's next
            decision, so that it includes the effect of that decision.
    """
    if missing := int((~np.isfinite(log.joint)).sum()):
        raise ConfigError(
            f"mode 'reject' needs propensities, but {missing:,} of {len(log):,} steps have none: "
            "estimate them first, or use mode 'logged'"
        )
    followed = log.next_row >= 0
    skipping = log.time[log.next_row[followed]] != log.decided_next[followed]
    if skipping.any():
        raise ConfigError(
            f"mode 'reject' cannot judge a decision that is not a step, but {int(skipping.sum()):,} steps follow one "
            f"({log.summary()}): to skip it would be to take the logged action for the agent's. Use a reward that is "
            "identified at every slot (such as `overlap: shared`), or mode 'logged'"
        )
    open_still = log.available_at > log.decided_next
    if open_still.any():
        raise ConfigError(
            f"mode 'reject' is not exact if rewards depend on later decisions: {int(open_still.sum()):,} of "
            f"{len(log):,} rewards are known only after the user's next decision, so they include its effect under the "
            "*logged* policy. Use a post window no longer than the time between slots, or mode 'logged'"
        )


def bound(log: ReplayLog, given: float | None) -> float:
    """Return W: the given bound, or the largest weight that any policy can have, 1 / the smallest propensity.

    Raises:
        ConfigError: If the bound is below 1: weights have mean 1.
    """
    if given is None:
        return 1.0 / float(log.joint.min())
    if not given >= 1.0:
        raise ConfigError(f"largest_weight is {given}; weights have mean 1, so that the largest is at least 1")
    return float(given)


def largest_weight(log: ReplayLog, probabilities: Sequence[FloatArray]) -> float:
    """Return the largest weight of a fixed policy, from its probabilities (n, A_m) at all rows of a log.

    As the env's `largest_weight` it lets `step_distribution` accept as many slots as possible: the bound for all
    policies is 1 / the smallest propensity, but the weights of a policy that is spread over many actions, or similar to
    the logged one, are far below it.
    """
    return float((log.modules.chosen_probabilities(probabilities, log.actions).prod(1) / log.joint).max())


def action_weights(log: ReplayLog, row: IntArray, actions: IntArray) -> FloatArray:
    """Return weights (N,) of rows (N,), from actions (N, M) sampled by the agent."""
    same = executable(log.modules, log.action_mask[row], actions) == log.actions[row]
    return np.asarray(same.all(1) / log.joint[row])


def distribution_weights(log: ReplayLog, row: IntArray, probabilities: Sequence[FloatArray]) -> FloatArray:
    """Return weights (N,) of rows (N,), from probabilities (N, A_m) of each module, given the parent's choice.

    Raises:
        InvalidAction: If these are not probabilities of eligible actions.
    """
    modules, mask = log.modules, log.action_mask[row]
    shapes, expected = [p.shape for p in probabilities], [(len(row), size) for size in modules.sizes]
    if shapes != expected:
        raise gym.error.InvalidAction(f"probabilities have the shapes {shapes}, not {expected}")
    for m, (p, eligible) in enumerate(zip(probabilities, modules.split(mask), strict=True)):
        ok = (np.asarray(p) >= 0) & (eligible | (np.asarray(p) == 0))
        for group in modules.groups(m):
            total = np.asarray(p)[:, group].sum(1, dtype=np.float64)
            ok[:, group] &= (np.abs(total - eligible[:, group].any(1)) <= ROUNDING_TOLERANCE)[:, None]
        if not ok.all():
            where = int(np.flatnonzero(~ok.all(1))[0])
            raise gym.error.InvalidAction(
                f"the probabilities of module {modules.names[m]!r} at row {where}, {np.asarray(p)[where].tolist()}, do "
                f"not sum to 1 over the eligible actions {eligible[where].astype(int).tolist()}"
            )
    return np.asarray(modules.chosen_probabilities(probabilities, log.actions[row]).prod(1) / log.joint[row])


def acceptance(weights: FloatArray, largest: float) -> FloatArray:
    """Return the probabilities (N,) of acceptance.

    Raises:
        ConfigError: If a weight exceeds the bound: if it were clipped, accepted slots would not be distributed as under
            the agent.
    """
    if (highest := float(weights.max(initial=0.0))) > largest * (1 + ROUNDING_TOLERANCE):
        raise ConfigError(
            f"a weight of {highest:.6g} exceeds the bound of {largest:.6g}, so accepted slots would not be distributed "
            "as under the agent: give the env a `largest_weight` that its policy never exceeds"
        )
    return np.minimum(weights / largest, 1.0)


def accepted(log: ReplayLog, row: IntArray, number: IntArray, seed: int, probability: FloatArray) -> BoolArray:
    """Draw which rows (N,) are accepted, from their probabilities (N,), in passes (N,).

    A draw is a hash of the decision, the pass and the seed, so that it does not depend on the other replayed slots.
    """
    salted = derive(log.keys[row], seed) ^ mix(number.astype(np.uint64))
    return np.asarray(unit(mix(salted)) < probability)
