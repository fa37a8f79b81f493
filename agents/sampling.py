"""From votes to actions: eligible shares with a floor, module-by-module draws, exact probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from crosschannel.agents.base import Decisions
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, nearest

Floor = float | Mapping[str, float]
FLOOR = 0.02


def floors(modules: ActionSpace, floor: Floor) -> tuple[float, ...]:
    """The share of uniform draws of each module, from one number for all or from numbers by module's name.

    A module that is not named has `FLOOR`.

    Raises:
        ConfigError: If there is no such module, or a share is not between 0 and 1.
    """
    if isinstance(floor, Mapping):
        for name in floor:
            if name not in modules.names:
                raise ConfigError(f"floor names the module {name!r}. {nearest(name, modules.names)}")
        found = tuple(float(floor.get(name, FLOOR)) for name in modules.names)
    else:
        found = (float(floor),) * len(modules)
    if wrong := [share for share in found if not 0.0 <= share <= 1.0]:
        raise ConfigError(f"floor {wrong[0]} is not between 0 and 1")
    return found


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
    modules: ActionSpace, m: int, values: npt.NDArray[np.floating], mask: BoolArray, floor: float
) -> FloatArray:
    r"""Exact probabilities (N, *shape(m)) of a module's actions when one of K members is drawn and obeyed.

    .. math:: \pi(a) = (1 - \epsilon) \frac{1}{K} \sum_k 1[a = \arg\max q_k] + \epsilon / n_{eligible}

    Shares and eligible counts are taken within each group of actions that compete under the same parent's choice, and
    for each choice of the module that m is conditioned on.

    Args:
        modules: The modules.
        m: Which one.
        values: The members' estimates (K, N, *shape(m)).
        mask: Eligible actions (N, A_m).
        floor: The share :math:`\epsilon` of uniform draws.
    """
    mask = spread_mask(modules, m, mask)
    out = np.zeros(values.shape[1:])
    for group in modules.groups(m):
        share = best_eligible(values, mask[None], group).mean(0)
        out += (1.0 - floor) * share + floor * even(mask, group)
    return out


def spread_mask(modules: ActionSpace, m: int, mask: BoolArray) -> BoolArray:
    """A module's mask (N, A_m) beside its probabilities, (N, *shape(m)): the same in all rows of a table."""
    c = modules.condition(m)
    return mask if c is None else np.repeat(mask[:, None], modules.sizes[c], axis=1)


def even(mask: BoolArray, group: IntArray) -> FloatArray:
    """Equal shares (..., A) of the eligible actions of a group; all 0 where none is eligible."""
    inside = np.zeros(mask.shape[-1], dtype=bool)
    inside[group] = True
    eligible = mask & inside
    return np.asarray(eligible / np.maximum(eligible.sum(-1, keepdims=True), 1))


def uniform_shares(modules: ActionSpace, mask: BoolArray) -> list[FloatArray]:
    """Equal probabilities (N, *shape(m)) for the eligible actions of each module's groups."""
    shares = []
    for m, part in enumerate(modules.split(modules.feasible_mask(mask))):
        spread = spread_mask(modules, m, part)
        shares.append(np.sum([even(spread, group) for group in modules.groups(m)], axis=0))
    return shares


def draw(modules: ActionSpace, probabilities: Sequence[FloatArray], rng: np.random.Generator) -> Decisions:
    """Draws one action for each row, module by module, each given the choices before it."""
    n = len(probabilities[0])
    actions = np.zeros((n, len(modules)), dtype=np.int64)
    for m, p in enumerate(probabilities):
        actions[:, m] = _sample(modules.conditional(m, p, actions), rng.random(n))
    return decisions_of(modules, probabilities, actions)


def greedy(modules: ActionSpace, values: Sequence[npt.NDArray[np.floating]], mask: BoolArray) -> list[FloatArray]:
    """Probability 1 (N, *shape(m)) for the best eligible action of each group; ties go to the lowest code."""
    parts = modules.split(modules.feasible_mask(mask))
    return [vote_shares(modules, m, v[None], part, 0.0) for m, (v, part) in enumerate(zip(values, parts, strict=True))]


def turns(u: FloatArray, members: int, floor: float) -> IntArray:
    """Who decides (N,), from uniform numbers (N,): one of K members, or K where the floor lets chance decide."""
    each = members / max(1.0 - floor, 1e-300)
    return np.minimum(u * each, members).astype(np.int64)


def best_codes(values: npt.NDArray[np.floating], eligible: BoolArray) -> IntArray:
    """The best eligible action of each row (N,), of equal ones the lowest code, from estimates and a mask (A, N).

    What equals the largest value is found by comparing all, several at once; a search for its place would go one by
    one.
    """
    values = np.where(eligible, values, -np.inf)
    actions = len(values)
    rank = np.arange(actions, 0, -1, dtype=np.min_scalar_type(actions))[:, None]
    return np.asarray(actions - ((values == values.max(0)) * rank).max(0).astype(np.int64))


def uniform_codes(mask: BoolArray, u: FloatArray) -> IntArray:
    """One eligible action of each row (N, A), all with equal probability, from uniform numbers (N,)."""
    return _sample(mask.astype(np.float64), u)


def decisions_of(modules: ActionSpace, probabilities: Sequence[FloatArray], actions: IntArray) -> Decisions:
    """Actions (N, M) with their exact probabilities, in canonical form."""
    actions = modules.canonical(actions)
    each = modules.chosen_probabilities(probabilities, actions)
    return Decisions(actions, each, each.prod(1))


def _sample(probabilities: FloatArray, u: FloatArray) -> IntArray:
    """One code for each row of probabilities, by inverting their running sum; an impossible action is never drawn."""
    cumulative = probabilities.cumsum(1)
    total = cumulative[:, -1:]
    code = (cumulative <= u[:, None] * total).sum(1)
    last = probabilities.shape[1] - 1 - (probabilities[:, ::-1] > 0).argmax(1)
    return np.asarray(np.minimum(code, last), dtype=np.int64)
