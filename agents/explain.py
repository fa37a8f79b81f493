"""The table that explains a policy by module, action and user segment: what it does, and what it expects to earn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.agents.base import Agent, Observations
from crosschannel.agents.policy import chunks
from crosschannel.agents.sampling import vote_shares
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import BoolArray, FloatArray

ALL_DECISIONS = "all decisions"
COMPONENTS = ("engagement", "gain", "direct")
HAZARD = "hazard_"
#: What stands in `given` where the policy chooses what a module is conditioned on.
ANY = "any"
COLUMNS = (
    *("segment", "decisions", "module", "given", "action", "share", "reward", "low", "high"),
    *("top_vote_share", "entropy"),
    *(f"{name}{bound}" for name in COMPONENTS for bound in ("", "_low", "_high")),
)
NORMAL_QUANTILE_975 = 1.96


@runtime_checkable
class EstimatingAgent(Protocol):
    """An agent with estimates of the actions' expected rewards."""

    def expected_rewards(self, observations: Observations) -> list[npt.NDArray[Any]]:
        """Return K estimates of each module's actions, (K, N, *modules.shape(m)) per module, in reward units."""
        ...


@runtime_checkable
class FunnelAgent(Protocol):
    """An agent that learns the components of rewards along a funnel."""

    def components(self, observations: Observations) -> Mapping[str, list[npt.NDArray[Any]]]:
        """Return K estimates of each module's actions, (K, N, *modules.shape(m)) per module, by component.

        The components are `engagement`, `gain`, `direct` and `hazard_<event>`, or none without a funnel. They are NaN
        where a component does not exist.
        """
        ...


def policy_table(
    agent: Agent,
    observations: Observations,
    segments: npt.NDArray[Any] | None = None,
    probabilities: Sequence[FloatArray] | None = None,
) -> pd.DataFrame:
    r"""Tabulate how often a policy chooses each action, the action's expected reward, and the agreement of the votes.

    The table has one row for each segment, module and action; for a module that is conditioned on an earlier one, also
    for each choice of that. Its columns are

    - `decisions`: number of slots in the segment;
    - `given`: the choice of the earlier module, such as a channel, to which the row's numbers belong; `any` where the
      policy makes it;
    - `share`: how often the policy chooses the action; for modules after the first, as a share of the messages, and
      where a choice is given of those with it;
    - `reward`: the action's expected incremental reward, averaged over the slots at which it is eligible, with the
      choice that it is conditioned on made by the policy; `low` and `high` are the 95 % interval of the agent's
      estimates, :math:`\bar q \pm 1.96\,\mathrm{sd}_k(q_k)`. NaN for agents without estimates;
    - `top_vote_share`: share of the estimates' votes for the module's best action, averaged over slots; 1 where all
      agree;
    - `entropy`: entropy of these votes divided by that of equal votes; 0 where all agree;
    - `engagement`, `gain`, `direct`: for agents with a funnel, the probability that the recipient of a message with
      the action engages, the expected value of those who engage, and of those who do not; and `hazard_<event>` for
      each cost event, its probability beyond that without a message. All are averaged as `reward` is. Their 95 %
      intervals of the agent's estimates end in `_low` and `_high`, and keep within what is possible. NaN without a
      funnel; `engagement` and `gain` are also NaN where the log does not tell who engages.

    `top_vote_share` and `entropy` describe a module, or a module given a choice, and repeat in the rows of its actions.
    They are NaN where no slot has a choice.

    Args:
        agent: The agent.
        observations: Slots to average over, N rows.
        segments: Name of each row's segment (N,); the rows of all segments together always come first.
        probabilities: The agent's `action_probabilities` at these slots, where they are known already.

    Returns:
        The table.
    """
    modules = agent.modules
    kinds, member = [ALL_DECISIONS], np.ones((1, len(observations)), dtype=bool)
    if segments is not None:
        code, found = pd.factorize(np.asarray(segments, dtype=object), use_na_sentinel=False)
        names, place = np.unique(np.asarray(found).astype(str), return_inverse=True)
        kinds += names.tolist()
        member = np.concatenate([member, place[code] == np.arange(len(names))[:, None]])
    totals = {(m, c): _Totals(len(kinds), size) for m, size in enumerate(modules.sizes) for c in _givens(modules, m)}
    for rows, chunk in chunks(observations):
        known = agent.action_probabilities(chunk) if probabilities is None else [p[rows] for p in probabilities]
        estimates = agent.expected_rewards(chunk) if isinstance(agent, EstimatingAgent) else None
        components = agent.components(chunk) if isinstance(agent, FunnelAgent) else {}
        mask = modules.split(modules.feasible_mask(chunk.action_mask))
        marginals = modules.marginals(known)
        here = member[:, rows].astype(float)
        for m in range(len(modules)):
            whole = _Slots.build(modules, m, marginals, mask[m])
            values = None if estimates is None else estimates[m].astype(np.float64)
            shares = None if values is None else vote_shares(modules, m, values, mask[m], 0.0)
            parts = {name: each[m].astype(np.float64) for name, each in components.items()}
            for c in _givens(modules, m):
                total, slots = totals[m, c], whole if c is None else whole.given(modules, m, c, known[m], mask)
                total.add(here, slots)
                if values is not None and shares is not None:
                    total.add_estimates(here, slots, values, shares)
                for name, part in parts.items():
                    total.add_component(name, here, slots, part)
    tables = [_table(kinds, member.sum(1), modules, m, c, total) for (m, c), total in totals.items()]
    return pd.concat(tables).sort_values("segment", key=lambda s: s.map(kinds.index), kind="stable", ignore_index=True)


def _givens(modules: ActionSpace, m: int) -> Iterator[int | None]:
    """Yield the choices for which module m has rows, of the module that it is conditioned on; None for the policy's."""
    yield None
    condition = modules.condition(m)
    if condition is not None:
        yield from range(0 if condition else 1, modules.sizes[condition])


@dataclass(frozen=True)
class _Slots:
    """N slots at which a module chooses: whatever it is conditioned on, or given one choice of that.

    Attributes:
        chosen: Probability of each action (N, A).
        reached: Probability that the module is asked (N,).
        mask: Where each action counts (N, A).
        ways: Probability of a choice from each of C sets of actions that compete (N, C).
        sets: The eligible actions in each (N, C, A).
        rows: Which rows of the module's table these sets are; None of a module without a table.
    """

    chosen: FloatArray
    reached: FloatArray
    mask: BoolArray
    ways: FloatArray
    sets: BoolArray
    rows: slice | None

    @classmethod
    def build(cls, modules: ActionSpace, m: int, marginals: list[FloatArray], mask: BoolArray) -> _Slots:
        """Return module m's slots, by all modules' marginals (N, A_j) and its eligible actions (N, A_m)."""
        ways, sets = choice_sets(modules, m, marginals, mask)
        rows = None if modules.condition(m) is None else slice(None)
        return cls(marginals[m], marginals[m].sum(1), mask, ways, sets, rows)

    def given(
        self, modules: ActionSpace, m: int, choice: int, probabilities: FloatArray, masks: Sequence[BoolArray]
    ) -> _Slots:
        """Return these slots given a choice of the module on which m is conditioned.

        Args:
            modules: The action space.
            m: The module of these slots.
            choice: The choice.
            probabilities: Module m's probabilities (N, C, A).
            masks: All modules' eligible actions (N, A_j).
        """
        condition, rows = modules.condition(m), slice(choice, choice + 1)
        assert condition is not None  # there is a choice
        reached = self.ways[:, choice]
        return _Slots(
            chosen=reached[:, None] * probabilities[:, choice],
            reached=reached,
            mask=self.mask & masks[condition][:, rows],
            ways=self.ways[:, rows],
            sets=self.sets[:, rows],
            rows=rows,
        )

    def over_rows(self, values: FloatArray) -> FloatArray:
        """Return estimates (K, N, A) from those of the module's table, whose rows the policy chooses if it has several.

        Where the policy chooses none of them, they are 0; where one is given, they count whether or not it chooses it.
        """
        if self.rows is None:
            return values
        if self.ways.shape[1] == 1:
            return values[:, :, self.rows][:, :, 0]
        weight = self.ways / np.maximum(self.ways.sum(1, keepdims=True), 1e-300)
        return np.asarray(np.einsum("nc,knca->kna", weight, np.where(weight[..., None] > 0, values, 0.0)))


class _Totals:
    """Sums over slots by segment (S, ...): choices, estimates where eligible, and votes."""

    def __init__(self, segments: int, size: int) -> None:
        self.chosen = np.zeros((segments, size))
        self.reached = np.zeros(segments)
        self.mean = _MeanEstimates()
        self.components: dict[str, _MeanEstimates] = {}
        self.votes = np.zeros((3, segments))

    def add(self, member: FloatArray, slots: _Slots) -> None:
        """Add the choices at N slots; `member` (S, N) marks each segment's slots."""
        self.chosen += member @ slots.chosen
        self.reached += member @ slots.reached

    def add_estimates(self, member: FloatArray, slots: _Slots, values: FloatArray, shares: FloatArray) -> None:
        """Add estimates (K, N, *shape(m)) at N slots, and their shares of votes (N, *shape(m))."""
        self.mean.add(member, slots.mask, slots.over_rows(values))
        votes = shares[:, None] * slots.sets if slots.rows is None else shares[:, slots.rows]
        eligible = slots.sets.sum(-1)
        open_ = slots.ways * (eligible > 1)
        logs = np.log(np.where(votes > 0, votes, 1.0))
        disorder = -(votes * logs).sum(-1) / np.log(np.maximum(eligible, 2))
        for place, column in enumerate((open_, open_ * votes.max(-1), open_ * disorder)):
            self.votes[place] += member @ column.sum(1)

    def add_component(self, name: str, member: FloatArray, slots: _Slots, estimates: FloatArray) -> None:
        """Add a component's estimates at N slots; those that do not exist (NaN) are left out."""
        mean = slots.over_rows(estimates)
        self.components.setdefault(name, _MeanEstimates()).add(member, slots.mask & ~np.isnan(mean).any(0), mean)


class _MeanEstimates:
    """Sums of K estimates of a module's actions over the slots at which they count, by segment."""

    def __init__(self) -> None:
        self._sums: FloatArray | float = 0.0
        self._counts: FloatArray | float = 0.0

    def add(self, member: FloatArray, counts: BoolArray, estimates: FloatArray) -> None:
        """Add estimates (K, N, A) of N slots where they count (N, A); `member` (S, N) marks each segment's slots."""
        self._sums = self._sums + np.einsum("sn,kna->ksa", member, np.where(counts, estimates, 0.0))
        self._counts = self._counts + member @ counts

    def interval(self, shape: tuple[int, int]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the mean over slots and estimates with the bounds of its 95 % interval, each (S, A); NaN for none."""
        nothing = np.full(shape, np.nan)
        if not isinstance(self._sums, np.ndarray):
            return nothing, nothing, nothing
        each = self._sums / np.where(np.asarray(self._counts) > 0, self._counts, np.nan)
        mean = each.mean(0)
        sd = each.std(0, ddof=1) if len(each) > 1 else nothing
        return mean, mean - NORMAL_QUANTILE_975 * sd, mean + NORMAL_QUANTILE_975 * sd


def choice_sets(
    modules: ActionSpace, m: int, marginals: list[FloatArray], mask: BoolArray
) -> tuple[FloatArray, BoolArray]:
    """Return the sets of actions that compete in module m, and the probability of a choice from each.

    Args:
        modules: The action space.
        m: Index of the module.
        marginals: Probability (N, A_j) of each action of each module (`ActionSpace.marginals`).
        mask: Eligible actions of module m (N, A_m).

    Returns:
        The probability (N, C) of a choice from each of C sets, and the eligible actions in it (N, C, A_m). There is one
        set for each choice of the parent or of the condition, or a single one.
    """
    n, parent, c = len(mask), modules.parent(m), modules.condition(m)
    if c is not None:
        reach = marginals[c].copy()
        if c == 0:
            reach[:, 0] = 0.0
        return reach, np.repeat(mask[:, None], modules.sizes[c], axis=1)
    if parent is not None:
        codes = np.arange(modules.sizes[parent[0]])
        inside = parent[1][None, :] == codes[:, None]
        reach = marginals[parent[0]].copy()
        if parent[0] == 0:
            reach[:, 0] = 0.0
        return reach, mask[:, None] & inside
    reach = np.ones((n, 1)) if m == 0 else 1.0 - marginals[0][:, :1]
    return reach, mask[:, None]


def _given_name(condition: Module, code: int) -> str:
    """Return the name of a choice that is given: with that of its module if it is also called `ANY`."""
    action = condition.actions[code]
    return f"{condition.name} {action}" if action == ANY else action


def _table(
    kinds: list[str], decisions: npt.NDArray[Any], modules: ActionSpace, m: int, given: int | None, total: _Totals
) -> pd.DataFrame:
    s, a = total.chosen.shape
    condition = modules.condition(m)
    mean, low, high = total.mean.interval((s, a))
    reached = np.where(total.votes[0] > 0, total.votes[0], np.nan)
    columns = {
        "segment": np.repeat(kinds, a),
        "decisions": np.repeat(decisions, a),
        "module": modules.names[m],
        "given": ANY if condition is None or given is None else _given_name(modules[condition], given),
        "action": np.tile(modules[m].actions, s),
        "share": (total.chosen / np.where(total.reached > 0, total.reached, np.nan)[:, None]).reshape(-1),
        "reward": mean.reshape(-1),
        "low": low.reshape(-1),
        "high": high.reshape(-1),
        "top_vote_share": np.repeat(total.votes[1] / reached, a),
        "entropy": np.repeat(total.votes[2] / reached, a),
    }
    for name in dict.fromkeys((*COMPONENTS, *total.components)):
        found = total.components.get(name, _MeanEstimates()).interval((s, a))
        limits = _POSSIBLE.get(name.partition("_")[0], (-np.inf, np.inf))
        for bound, part in zip(("", "_low", "_high"), found, strict=True):
            columns[f"{name}{bound}"] = np.clip(part, *limits).reshape(-1)
    return pd.DataFrame(columns)


#: The values that a component can have, by the first word of its name.
_POSSIBLE = {"engagement": (0.0, 1.0), "hazard": (0.0, 1.0)}
