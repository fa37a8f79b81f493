"""Mixtures: linear combinations of an ensemble's members, which vote in their place, and the shares of their votes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray


def mixing_matrix(members: int, mixtures: int, seed: int) -> FloatArray:
    r"""Return the matrix W (L, K) that makes mixtures of members: :math:`q_l = \bar q + \sum_k W_{lk} (q_k - \bar q)`.

    The rows of W come in pairs of opposite sign, and its columns are orthogonal to each other and to the mean, with
    :math:`W^\top W / L = (I - 1 1^\top / K) / K`. The mixtures therefore have exactly the members' mean and covariance
    (with divisors L and K), whatever is mixed: coefficients, estimates, or several components of a value at once. Their
    directions are random otherwise, so that they fill the space between the members: Li et al. (2024), "Scalable
    Thompson sampling via Ensemble++", arXiv 2407.13195, draw a new combination for each decision. Fixed combinations
    have exact vote shares.

    Args:
        members: Number of members K.
        mixtures: Number of mixtures L, even. If it is less than 2 K, there are 2 K: fewer may not have the members'
            covariance. With 0 W is the identity (K, K), so that the members themselves vote.
        seed: Seed of the directions.
    """
    if mixtures == 0:
        return np.eye(members)
    mixtures = max(mixtures, 2 * members)
    # An orthonormal basis of the deviations, which add up to 0: that of the differences from the last member.
    differences = np.vstack([np.eye(members - 1), np.full((1, members - 1), -1.0)])
    basis = np.linalg.qr(differences)[0]
    normals = np.random.default_rng([seed, members, mixtures]).standard_normal((mixtures // 2, members - 1))
    directions, size = np.linalg.qr(normals)
    directions *= np.sign(size.diagonal())
    half = np.sqrt(mixtures / (2 * members)) * directions @ basis.T
    return np.concatenate([half, -half])


def mix(estimates: Tensor, matrix: Tensor) -> Tensor:
    """Return the mixtures (..., L, N) of estimates (..., 1 + K, N), the mean first, by a matrix (L, K)."""
    mean, members = estimates[..., :1, :], estimates[..., 1:, :]
    return torch.matmul(matrix, members - mean).add_(mean)


def competing_cells(modules: ActionSpace, m: int) -> list[IntArray]:
    """Return the cells of module m that compete with each other: its groups, in each row of its table."""
    return [
        start + group for start in range(0, modules.n_table_cells(m), modules.sizes[m]) for group in modules.groups(m)
    ]


def vote_shares_on_device(values: Tensor, eligible: Tensor, groups: Sequence[IntArray], floor: float) -> Tensor:
    r"""Return the exact probabilities (N, A) of `sampling.vote_shares`, on the device of the estimates.

    .. math:: \pi(a) = (1 - \epsilon) \frac{1}{L} \sum_l 1[a = \arg\max q_l] + \epsilon / n_{eligible}

    Subtracting the largest value was measured to be 40 times as fast as `argmax`, which therefore runs only where two
    values are equal: then the lowest code wins.

    Args:
        values: The voters' estimates (A, L, N).
        eligible: Eligible actions (N, A).
        groups: Codes of the actions that compete with each other.
        floor: Probability :math:`\epsilon` of a uniform draw.
    """
    actions, voters, _ = values.shape
    out = torch.empty(eligible.shape, dtype=torch.float64, device=values.device)
    for group in groups:
        codes = torch.from_numpy(group).to(values.device)
        allowed = eligible[:, codes].t()
        # The most negative number absorbs any estimate, so that ineligible actions are equal and below all others.
        never = torch.zeros(allowed.shape, dtype=values.dtype, device=values.device)
        never.masked_fill_(~allowed, torch.finfo(values.dtype).min)
        inside = (values if len(group) == actions else values[codes]) + never.unsqueeze(1)
        behind = inside.sub_(inside.amax(0)).sign_()  # 0 for the best action, otherwise -1
        votes = (behind.sum(1) + voters) * allowed
        tied = votes.sum(0) > voters
        if bool(tied.any()):
            first = behind[..., tied].argmax(0)
            votes[:, tied] = (first == torch.arange(len(group), device=values.device)[:, None, None]).sum(1).to(votes)
        uniform = allowed / allowed.sum(0).clamp_min(1)
        out[:, codes] = (((1.0 - floor) / voters * votes.double() + floor * uniform.double()) * allowed).t()
    return out
