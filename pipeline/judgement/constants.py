"""Constant actions: the weights of a policy that always chooses the same, and the best of them on training users."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.evaluation import LoggedDecisions, effective_sample_size, importance_weights
from crosschannel.evaluation.estimators import optimal_baseline
from crosschannel.histories import guarded_mask
from crosschannel.pipeline.building import Split
from crosschannel.pipeline.configuration import Config


def one_hot(modules: ActionSpace, actions: IntArray) -> list[FloatArray]:
    """Return the probabilities (n, *shape(m)) per module of a policy that chooses given actions (n, M)."""
    rows = np.arange(len(actions))
    found = []
    for m in range(len(modules)):
        flat = np.zeros((len(actions), modules.n_table_cells(m)))
        flat[rows, modules.table_cell(m, actions)] = 1.0
        found.append(flat.reshape(len(actions), *modules.shape(m)))
    return found


def constant_actions(modules: ActionSpace, mask: BoolArray, action: Sequence[int] | IntArray) -> IntArray:
    """Return one action (n, M) at slots where all of its parts are eligible by a mask (n, A), and nothing elsewhere.

    The action (M,) is the same at all slots, or (n, M) one at each.
    """
    wanted = np.array(np.broadcast_to(np.asarray(action, dtype=np.int64), (len(mask), len(modules))))
    eligible, rows = np.ones(len(mask), dtype=bool), np.arange(len(mask))
    for m, part in enumerate(modules.split(modules.feasible_mask(mask))):
        eligible &= part[rows, wanted[:, m]] | ((m > 0) & (wanted[:, 0] == 0))
    wanted[~eligible] = 0
    return modules.canonical(wanted)


def constant_weights(log: LoggedDecisions, mask: BoolArray, m: int, code: int | IntArray) -> FloatArray:
    r"""Return the weights (n,) of the policy that always chooses one action of module m, and the others as logged.

    .. math:: w = \mathbb{1}[a_m = a] / \mu_m(a)

    where the action is eligible and something is sent. Elsewhere a channel is not used, so that nothing is sent, and
    another module is chosen as logged.

    Args:
        log: The log, with propensities.
        mask: Eligible actions (n, A).
        m: The module.
        code: The action, or one for each decision (n,).
    """
    modules, chosen = log.modules, log.actions[:, m]
    eligible = modules.conditional_mask(m, modules.feasible_mask(mask), log.actions)[np.arange(len(log)), code]
    if m == 0:
        return np.asarray((chosen == np.where(eligible, code, 0)) / log.propensity[:, 0])
    decides = eligible & modules.sends(log.actions)
    return np.where(decides, (chosen == code) / np.where(decides, log.propensity[:, m], 1.0), 1.0)


def whole_weights(log: LoggedDecisions, mask: BoolArray, action: Sequence[int] | IntArray) -> FloatArray:
    """Return the weights (n,) of the policy that always chooses one whole action (M,), and nothing where it may not.

    Args:
        log: The log, with propensities.
        mask: Eligible actions (n, A).
        action: The action.
    """
    wanted, out = constant_actions(log.modules, mask, action), np.zeros(len(log))
    taken = (log.actions == wanted).all(1)
    out[taken] = importance_weights(log[taken], one_hot(log.modules, wanted[taken]), None)
    return out


@dataclass(frozen=True)
class BestConstants:
    """The best constant actions on the users that chose them.

    Attributes:
        modules: The best action of each module, every other module chosen as logged.
        whole: The best whole action, in canonical form.
    """

    modules: tuple[int, ...]
    whole: tuple[int, ...]


def best_constants(
    log: LoggedDecisions, mask: BoolArray, rewards: FloatArray, counts: FloatArray, min_ess: float
) -> BestConstants:
    """Return the best action of each module by its estimated value, and the best whole action.

    The estimate is IPS with the baseline of least variance. An action with an effective sample size below the least one
    is chosen only if no other one has more. The whole action is made of the modules' best ones, each given the earlier
    ones: of a module with a parent, the best of the actions that the parent's best one allows. That is the best one if
    what parts earn adds up. If its own effective sample size suffices, whole actions can be compared without this
    assumption: the best of those that the log supports takes its place.

    Args:
        log: Decisions of the training users, with a reward and propensities (n,).
        mask: Eligible actions (n, A).
        rewards: Their rewards (n,).
        counts: How often each counts (n,).
        min_ess: Least effective sample size.
    """
    modules = log.modules

    def rank(weights: FloatArray, taken: BoolArray) -> tuple[bool, float]:
        b = optimal_baseline(weights, rewards, counts)
        value = float(counts @ (b + weights * (rewards - b))) / float(counts.sum())
        supported = taken.any() and effective_sample_size(weights[taken]) >= min_ess
        return bool(supported), value if taken.any() else -math.inf

    def rank_of_whole(action: tuple[int, ...]) -> tuple[bool, float]:
        return rank(whole_weights(log, mask, action), (log.actions == np.array(action)).all(1))

    ranks = [
        [rank(constant_weights(log, mask, m, code), log.actions[:, m] == code) for code in range(size)]
        for m, size in enumerate(modules.sizes)
    ]
    chosen: list[int] = []
    for m, of_module in enumerate(ranks):
        parent = modules.parent(m)
        allowed = [
            code for code in range(len(of_module)) if parent is None or int(parent[1][code]) == chosen[parent[0]]
        ]
        chosen.append(max(allowed, key=of_module.__getitem__))
    whole = tuple(modules.canonical(np.array([chosen]))[0].tolist())
    ranked = {whole: rank_of_whole(whole)}
    if ranked[whole][0]:
        seen, times = np.unique(log.actions, axis=0, return_counts=True)
        often = [tuple(action) for action in seen[times >= min_ess].tolist()]
        ranked = {action: ranked[action] if action in ranked else rank_of_whole(action) for action in often}
        whole = max(ranked, key=ranked.__getitem__)
    return BestConstants(modules=tuple(max(range(len(each)), key=each.__getitem__) for each in ranks), whole=whole)


def constants_of(config: Config, train: Split) -> BestConstants | None:
    """Return the best constant actions by the decisions of some training users; None without propensities."""
    kept = train.rewards.identified & ~np.isnan(train.rewards.p_uncensored)
    log = LoggedDecisions.from_history(train.history)[kept]
    if not len(log) or np.isnan(log.propensity).any():
        return None
    mask = guarded_mask(config.guardrails, train.history)[kept]
    counts = train.rewards.ipc_weight[kept]
    return best_constants(log, mask, train.rewards.reward[kept], counts, config.evaluation.min_ess)
