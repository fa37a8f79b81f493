"""From votes to actions: eligible shares with a floor, module-by-module draws, exact probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agents.base import Decisions
from histories.modules import BoolArray, FloatArray, IntArray, Modules


def best_eligible(values: npt.NDArray[np.floating], mask: BoolArray, group: IntArray) -> BoolArray:
    """Which action of a group is best among the eligible ones: one-hot (..., A); all False where none is eligible.

    Args:
        values: Estimated rewards (..., A).
        mask: Eligible actions, broadcast against `values`.
        group: Codes of the actions that compete.
    """
    inside = np.zeros(values.shape[-1], dtype=bool)
    inside[group] = True
    allowed = np.broadcast_to(mask & inside, values.shape)
    best = np.where(allowed, values, -np.inf).argmax(-1)
    out = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(out, best[..., None], True, axis=-1)
    return out & allowed


def vote_shares(
    modules: Modules, m: int, values: npt.NDArray[np.floating], mask: BoolArray, floor: float
) -> FloatArray:
    r"""Exact probabilities (N, A_m) of a module's actions when one of K members is drawn and obeyed.

    .. math:: \pi(a) = (1 - \epsilon) \frac{1}{K} \sum_k 1[a = \arg\max q_k] + \epsilon / n_{eligible}

    Shares and eligible counts are taken within each group of actions that compete under the same parent's choice.

    Args:
        modules: The modules.
        m: Which one.
        values: The members' estimates (K, N, A_m).
        mask: Eligible actions (N, A_m).
        floor: The share :math:`\epsilon` of uniform draws.
    """
    out = np.zeros(mask.shape)
    for group in modules.groups(m):
        share = best_eligible(values, mask[None], group).mean(0)
        inside = np.zeros(mask.shape[1], dtype=bool)
        inside[group] = True
        eligible = mask & inside
        count = eligible.sum(1, keepdims=True)
        out += (1.0 - floor) * share + floor * eligible / np.maximum(count, 1)
    return out


def uniform_shares(modules: Modules, mask: BoolArray) -> list[FloatArray]:
    """Equal probabilities (N, A_m) for the eligible actions of each module's groups."""
    shares = []
    for m, part in enumerate(modules.split(modules.closed(mask))):
        nothing = np.zeros((1, *part.shape))
        shares.append(vote_shares(modules, m, nothing, part, 1.0))
    return shares


def draw(modules: Modules, probabilities: Sequence[FloatArray], rng: np.random.Generator) -> Decisions:
    """Draws one action for each row, module by module, each given its parent's choice."""
    n = len(probabilities[0])
    actions = np.zeros((n, len(modules)), dtype=np.int64)
    for m, p in enumerate(probabilities):
        actions[:, m] = _sample(given_parent(modules, m, p, actions), rng.random(n))
    return decisions_of(modules, probabilities, actions)


def greedy(modules: Modules, values: Sequence[npt.NDArray[np.floating]], mask: BoolArray) -> list[FloatArray]:
    """Probability 1 (N, A_m) for the best eligible action of each group; ties go to the lowest code."""
    parts = modules.split(modules.closed(mask))
    return [vote_shares(modules, m, v[None], part, 0.0) for m, (v, part) in enumerate(zip(values, parts, strict=True))]


def given_parent(modules: Modules, m: int, probabilities: FloatArray, actions: IntArray) -> FloatArray:
    """Probabilities (N, A_m) of module m with 0 where the parent's choice in `actions` (N, M) rules an action out."""
    parent = modules.parent(m)
    if parent is None:
        return probabilities
    return np.where(parent[1][None, :] == actions[:, parent[0], None], probabilities, 0.0)


def decisions_of(modules: Modules, probabilities: Sequence[FloatArray], actions: IntArray) -> Decisions:
    """Actions (N, M) with their exact probabilities, in canonical form."""
    actions = modules.canonical(actions)
    each = modules.taken(probabilities, actions)
    return Decisions(actions, each, each.prod(1))


def _sample(probabilities: FloatArray, u: FloatArray) -> IntArray:
    """One code for each row of probabilities, by inverting their running sum; an impossible action is never drawn."""
    cumulative = probabilities.cumsum(1)
    total = cumulative[:, -1:]
    code = (cumulative <= u[:, None] * total).sum(1)
    last = probabilities.shape[1] - 1 - (probabilities[:, ::-1] > 0).argmax(1)
    return np.asarray(np.minimum(code, last), dtype=np.int64)
