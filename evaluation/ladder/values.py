"""Values and interactions of the ladder from weights, rewards and modelled rewards: linear in the rewards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.evaluation.estimators import Sample, Terms
from crosschannel.evaluation.ladder.weights import SOURCE, LadderWeights
from crosschannel.evaluation.stacked_terms import StackedTerms


def ladder_values(
    weights: LadderWeights,
    rewards: FloatArray,
    *,
    q_logged: FloatArray | None = None,
    q_policy: FloatArray | None = None,
    counts: FloatArray | None = None,
) -> FloatArray:
    r"""Return the values of a policy by order, :math:`V_0 .. V_F`, in reward units (F + 1,).

    .. math:: V_k = \frac{\sum_i c_i \{ q_\pi(x_i) + W_k (r_i - q(x_i, a_i)) \}}{\sum_i c_i}, \qquad
        W_k = w_c \sum_{j \le k} e_j(\delta_1, \dots, \delta_F)

    Assumption: the propensities are right, log and policy draw the factors independently given context and channel, the
    log has every channel and, with it, every action of each k factors together that the policy takes; and the error of
    q has no interaction of more than k factors given the channel. Order 0 lets the policy change the channel only.
    Order 1 needs that what the parts of a message earn adds up given the channel; it is the pseudoinverse estimator of
    Swaminathan et al. (2017), "Off-policy evaluation for slate recommendation", NeurIPS. Order F needs no such
    assumption: it is IPS, and with a model DR.

    Args:
        weights: The weights of the policy (n decisions, F factors).
        rewards: Rewards (n,).
        q_logged: Modelled reward of the logged action (n,), or None for 0.
        q_policy: Modelled reward of the policy (n,), or None for 0.
        counts: How often each decision counts (n,); once by default.

    Raises:
        InputError: If shapes differ, an entry is not finite or a count is negative, or one of the two modelled rewards
            is missing.
    """
    c, (logged, policy) = _checked(weights, rewards, q_logged, q_policy, counts)
    return _values(order_terms(weights, logged, policy), rewards, c)


def interaction_values(
    weights: LadderWeights, rewards: FloatArray, *, q_logged: FloatArray | None = None, counts: FloatArray | None = None
) -> FloatArray:
    r"""Return what interactions of exactly k factors add, :math:`I_0 .. I_F` (F + 1,), so that V_k = V_{k-1} + I_k.

    .. math:: I_k = \frac{\sum_i c_i w_c e_k(\delta) (r_i - q(x_i, a_i))}{\sum_i c_i}

    Assumption and arguments: those of `ladder_values`, at order k.
    """
    c, (logged, _) = _checked(weights, rewards, q_logged, q_logged, counts)
    return _values(_contrast_terms(weights.interactions, logged), rewards, c)


def pair_interactions(
    weights: LadderWeights, rewards: FloatArray, *, q_logged: FloatArray | None = None, counts: FloatArray | None = None
) -> dict[tuple[int, int], float]:
    r"""Return :math:`I_{f,g} = \mathrm{mean}(w_c \delta_f \delta_g (r - q))` of each pair of factors; they sum to I_2.

    Assumption and arguments: those of `ladder_values`, at order 2.
    """
    c, (logged, _) = _checked(weights, rewards, q_logged, q_logged, counts)
    pairs = [*combinations(range(weights.factors), 2)]
    found = _values(part_terms(weights, logged, pairs), rewards, c)
    return dict(zip(pairs, found.tolist(), strict=True))


def order_terms(weights: LadderWeights, q_logged: FloatArray, q_policy: FloatArray) -> list[Terms]:
    """Return the terms of the values of every order 0 to F, for the bootstrap."""
    ones = np.ones(len(q_logged))
    return [Terms(constant=q_policy - w * q_logged, slope=w, denominator=ones) for w in weights.orders]


def part_terms(weights: LadderWeights, q_logged: FloatArray, parts: Sequence[Sequence[int]]) -> list[Terms]:
    """Return the terms of what single factors, or interactions of some, add to the value."""
    return _contrast_terms([weights.part(part) for part in parts], q_logged)


def _contrast_terms(weights: Iterable[FloatArray], q_logged: FloatArray) -> list[Terms]:
    """Return the terms of contrasts with weights (n,): the policy's modelled rewards are the same on both sides."""
    ones = np.ones(len(q_logged))
    return [Terms(constant=-w * q_logged, slope=w, denominator=ones) for w in weights]


def _values(terms: Sequence[Terms], rewards: FloatArray, counts: FloatArray) -> FloatArray:
    """Return the values (K,) of terms: those that the bootstrap computes, once."""
    return StackedTerms.build(terms, len(rewards)).values(counts, rewards)


def _checked(
    weights: LadderWeights,
    rewards: FloatArray,
    q_logged: FloatArray | None,
    q_policy: FloatArray | None,
    counts: FloatArray | None,
) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
    """Return the counts and the modelled rewards, checked."""
    if (q_logged is None) != (q_policy is None):
        problem = "one of q_logged and q_policy is missing"
        raise InputError([Fault(SOURCE, problem, "Pass both, or neither.", column="q_logged, q_policy")])
    if len(weights.channel) == 0:
        raise InputError([Fault(SOURCE, "there are no decisions", "Evaluate on a part of the log that has some.")])
    shape = weights.channel.shape
    c = np.ones(shape) if counts is None else counts
    # `Sample` checks shapes and entries; its weights are those of the channel, which are not negative.
    Sample(rewards=rewards, weights=weights.channel, counts=c, q_logged=q_logged, q_policy=q_policy)
    if not c.any():
        raise InputError([Fault(SOURCE, "no decision counts", "Give some decision a count above 0.", column="counts")])
    zeros = np.zeros(shape)
    return c, (zeros if q_logged is None else q_logged, zeros if q_policy is None else q_policy)
