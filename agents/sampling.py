"""From votes to actions: vote shares with a floor, sampling module by module, exact probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from crosschannel.agents.base import Decisions
from crosschannel.agents.settings import DEFAULT_FLOOR, Floor, check_floor
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, UIntArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.hashing import uniforms

#: Largest distance of a sum of probabilities from 1 that rounding explains.
SUM_TOLERANCE = 1e-6


def floor_by_module(modules: ActionSpace, floor: Floor) -> tuple[float, ...]:
    """Return each module's probability of a uniform draw, from one number for all or from numbers by module name.

    A module that is not named has `DEFAULT_FLOOR`.

    Raises:
        ConfigError: If there is no such module, or a share is not between 0 and 1.
    """
    check_floor(floor)
    if not isinstance(floor, Mapping):
        return (float(floor),) * len(modules)
    for name in floor:
        if name not in modules.names:
            raise ConfigError(f"floor names the module {name!r}. {nearest(name, modules.names)}")
    return tuple(float(floor.get(name, DEFAULT_FLOOR)) for name in modules.names)


def best_eligible(values: npt.NDArray[np.floating], mask: BoolArray, group: IntArray) -> BoolArray:
    """Mark the best eligible action of a group, one-hot (..., A); mark none where none is eligible.

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
    r"""Return the exact probabilities (N, *shape(m)) of a policy that samples one of K members and acts greedily on it.

    .. math:: \pi(a) = (1 - \epsilon) \frac{1}{K} \sum_k 1[a = \arg\max q_k] + \epsilon / n_{eligible}

    Shares and eligible counts are taken within each group of actions that compete under the same parent's choice, and
    for each choice of the module that m is conditioned on.

    Args:
        modules: The action space.
        m: Index of the module.
        values: The members' estimates (K, N, *shape(m)).
        mask: Eligible actions (N, A_m).
        floor: Probability :math:`\epsilon` of a uniform draw.
    """
    mask = expand_mask(modules, m, mask)
    out = np.zeros(values.shape[1:])
    for group in modules.groups(m):
        share = best_eligible(values, mask[None], group).mean(0)
        out += (1.0 - floor) * share + floor * uniform_over_eligible(mask, group)
    return out


def expand_mask(modules: ActionSpace, m: int, mask: BoolArray) -> BoolArray:
    """Repeat a module's mask (N, A_m) for each row of its table, to the shape (N, *shape(m)) of its probabilities."""
    c = modules.condition(m)
    return mask if c is None else np.repeat(mask[:, None], modules.sizes[c], axis=1)


def uniform_over_eligible(mask: BoolArray, group: IntArray) -> FloatArray:
    """Return equal shares (..., A) of the eligible actions of a group; all 0 where none is eligible."""
    inside = np.zeros(mask.shape[-1], dtype=bool)
    inside[group] = True
    eligible = mask & inside
    return np.asarray(eligible / np.maximum(eligible.sum(-1, keepdims=True), 1))


def uniform_shares(modules: ActionSpace, mask: BoolArray) -> list[FloatArray]:
    """Return the uniform policy's probabilities (N, *shape(m)) per module, from a flat mask (N, sum of actions)."""
    shares = []
    for m, part in enumerate(modules.split(modules.feasible_mask(mask))):
        expanded = expand_mask(modules, m, part)
        shares.append(np.sum([uniform_over_eligible(expanded, group) for group in modules.groups(m)], axis=0))
    return shares


def greedy_shares(
    modules: ActionSpace, values: Sequence[npt.NDArray[np.floating]], mask: BoolArray
) -> list[FloatArray]:
    """Return probability 1 (N, *shape(m)) for the best eligible action of each group; ties go to the lowest code."""
    parts = modules.split(modules.feasible_mask(mask))
    return [vote_shares(modules, m, v[None], part, 0.0) for m, (v, part) in enumerate(zip(values, parts, strict=True))]


def sample_actions(modules: ActionSpace, probabilities: Sequence[FloatArray], rng: np.random.Generator) -> Decisions:
    """Sample one action for each row, module by module, each given the earlier choices.

    Args:
        modules: The action space.
        probabilities: Each module's probabilities (N, *shape(m)), as `Agent.action_probabilities` returns them.
        rng: The random generator.
    """
    return _sample(modules, probabilities, lambda _: rng.random(len(probabilities[0])))


def sample_keyed(modules: ActionSpace, probabilities: Sequence[FloatArray], key: UIntArray) -> Decisions:
    """Sample as `sample_actions` does, with uniform numbers that are hashes of each row's key (N,).

    So a row's action does not depend on which other rows there are, or on their order.
    """
    return _sample(modules, probabilities, lambda m: uniforms(key, m))


def _sample(
    modules: ActionSpace, probabilities: Sequence[FloatArray], uniform: Callable[[int], FloatArray]
) -> Decisions:
    """Sample actions with uniform numbers (N,) for each module."""
    actions = np.zeros((len(probabilities[0]), len(modules)), dtype=np.int64)
    for m, p in enumerate(probabilities):
        actions[:, m] = _sample_codes(modules.conditional(m, p, actions), uniform(m))
    actions = modules.canonical(actions)
    chosen = modules.chosen_probabilities(probabilities, actions)
    return Decisions(actions, chosen, chosen.prod(1))


def sample_voter(u: FloatArray, voters: int, floor: float) -> IntArray:
    """Choose the voter (N,) that decides each row from uniform numbers (N,): 0 to L - 1, or L for a uniform draw."""
    each = voters / max(1.0 - floor, 1e-300)
    return np.minimum(u * each, voters).astype(np.int64)


def best_codes(values: npt.NDArray[np.floating], eligible: BoolArray) -> IntArray:
    """Return the best eligible action of each row (N,) from estimates and a mask (A, N); ties go to the lowest code.

    Comparing all values with the largest is vectorised; `argmax` over the short first axis is not.
    """
    values = np.where(eligible, values, -np.inf)
    actions = len(values)
    rank = np.arange(actions, 0, -1, dtype=np.min_scalar_type(actions))[:, None]
    return np.asarray(actions - ((values == values.max(0)) * rank).max(0).astype(np.int64))


def uniform_codes(mask: BoolArray, u: FloatArray) -> IntArray:
    """Sample one eligible action of each row (N, A), all with equal probability, from uniform numbers (N,)."""
    return _sample_codes(mask.astype(np.float64), u)


def _sample_codes(probabilities: FloatArray, u: FloatArray) -> IntArray:
    """Sample one code for each row by inverting the cumulative sum; an action of probability 0 is never sampled."""
    cumulative = probabilities.cumsum(1)
    total = cumulative[:, -1:]
    code = (cumulative <= u[:, None] * total).sum(1)
    last = probabilities.shape[1] - 1 - (probabilities[:, ::-1] > 0).argmax(1)
    return np.asarray(np.minimum(code, last), dtype=np.int64)


def check_probabilities(modules: ActionSpace, probabilities: Sequence[FloatArray], mask: BoolArray) -> None:
    """Check that each module's probabilities are such, for eligible actions only, before a number rests on them.

    Args:
        modules: The action space.
        probabilities: Each module's probabilities (N, *shape(m)), as `Agent.action_probabilities` returns them.
        mask: Eligible actions (N, sum of actions).

    Raises:
        ConfigError: If one is not between 0 and 1, is above 0 for an action that is not eligible, or they do not add up
            to 1 where an action is eligible.
    """
    feasible = modules.split(modules.feasible_mask(mask))
    for m, (p, part, may) in enumerate(zip(probabilities, modules.split(mask), feasible, strict=True)):
        if p.shape != (len(mask), *modules.shape(m)):
            raise ConfigError(
                f"{_states(modules, m)} an array of shape {p.shape}, not {(len(mask), *modules.shape(m))}"
            )
        inside = (p >= 0.0) & (p <= 1.0 + SUM_TOLERANCE)  # False for NaN
        _refuse_slots(modules, m, ~inside, "probabilities that are not between 0 and 1")
        _refuse_slots(modules, m, (p > 0.0) & ~expand_mask(modules, m, part), "probabilities of ineligible actions")
        for group in modules.groups(m):
            any_eligible = expand_mask(modules, m, may)[..., group].any(-1)
            wrong = np.abs(p[..., group].sum(-1) - 1.0) > SUM_TOLERANCE
            _refuse_slots(modules, m, wrong & any_eligible, "probabilities that do not add up to 1")


def check_decisions(modules: ActionSpace, decisions: Decisions, mask: BoolArray) -> None:
    """Check that decisions are eligible actions with possible probabilities, before they are written.

    Raises:
        ConfigError: If an action is not eligible, or a probability is not above 0 and at most 1.
    """
    actions, sends = decisions.actions, modules.sends(decisions.actions)
    _refuse_slots(modules, 0, ~modules.valid(actions), "codes that are not actions")
    for m, part in enumerate(modules.split(mask)):
        taken = part[np.arange(len(actions)), actions[:, m]] | (~sends if m else actions[:, 0] == 0)
        _refuse_slots(modules, m, ~taken, "actions that are not eligible")
        p = decisions.probabilities[:, m]
        _refuse_slots(
            modules, m, ~((p > 0.0) & (p <= 1.0 + SUM_TOLERANCE)), "probabilities that are not above 0, up to 1"
        )
    product = np.abs(decisions.probabilities.prod(1) - decisions.joint) <= SUM_TOLERANCE
    _refuse_slots(modules, 0, ~product, "joint probabilities that are not the product over modules")


def _refuse_slots(modules: ActionSpace, m: int, wrong: BoolArray, what: str) -> None:
    count = int(wrong.any(axis=tuple(range(1, wrong.ndim))).sum())
    if count:
        raise ConfigError(f"{_states(modules, m)} {what}, at {count:,} of {len(wrong):,} slots: it cannot be used")


def _states(modules: ActionSpace, m: int) -> str:
    return f"the agent states for the module {modules[m].name!r}"
