"""What a policy does and why, for those who write the messages: by module, action and segment of users."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.agents.base import Agent, Observations
from crosschannel.agents.policy import chunks
from crosschannel.agents.sampling import vote_shares
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray

ALL = "all decisions"
COLUMNS = ("segment", "decisions", "module", "action", "share", "reward", "low", "high", "certainty", "entropy")
Z = 1.96


@runtime_checkable
class Estimating(Protocol):
    """An agent that says what it expects, not only what it would do."""

    def expected_rewards(self, observations: Observations) -> list[npt.NDArray[Any]]:
        """K estimates of each module's actions, (K, N, *modules.shape(m)) a module, in reward units."""
        ...


def explain(agent: Agent, observations: Observations, segments: npt.NDArray[Any] | None = None) -> pd.DataFrame:
    r"""How often each action is chosen, what it is expected to earn, and how sure the agent is.

    Args:
        agent: The agent.
        observations: The slots to look at, N rows.
        segments: The name of the segment that each row belongs to (N,); all rows together come first in any case.

    Returns:
        A table with one row for each segment, module and action, and the columns

        - `decisions`: slots in the segment;
        - `share`: how often the action is chosen; of a module but the first, as a share of the messages;
        - `reward`: its expected incremental reward, the mean over the slots at which it is eligible, a choice that it
          is conditioned on as the policy makes it; with `low` and `high`, a 95 % interval of what the agent's estimates
          say, :math:`\bar q \pm 1.96\,\mathrm{sd}_k(q_k)`. NaN where the agent has no estimates;
        - `certainty`: the module's winner's share of the estimates' votes, mean over slots; 1 is sure;
        - `entropy`: of these votes, as a share of what equal votes would have; 0 is sure.

        Certainty and entropy belong to a module, and are the same in the rows of its actions. NaN where there is no
        choice at any slot.
    """
    modules = agent.modules
    names = np.full(len(observations), ALL) if segments is None else np.asarray(segments).astype(str)
    kinds = [ALL, *(np.unique(names) if segments is not None else [])]
    member = np.stack([np.ones(len(names), dtype=bool) if kind == ALL else names == kind for kind in kinds])
    totals = [_Totals.nothing(len(kinds), size) for size in modules.sizes]
    for rows, chunk in chunks(observations):
        probabilities = agent.action_probabilities(chunk)
        estimates = agent.expected_rewards(chunk) if isinstance(agent, Estimating) else [None] * len(modules)
        mask = modules.split(modules.feasible_mask(chunk.action_mask))
        marginals = modules.marginals(probabilities)
        for m, total in enumerate(totals):
            total.add(modules, m, member[:, rows].astype(float), marginals, mask[m], estimates[m])
    tables = [
        _table(kinds, member.sum(1), module.name, module.actions, total)
        for module, total in zip(modules, totals, strict=True)
    ]
    return pd.concat(tables).sort_values("segment", key=lambda s: s.map(kinds.index), kind="stable", ignore_index=True)


class _Totals:
    """Sums over slots, by segment (S, ...): choices, estimates where eligible, and votes of one module."""

    def __init__(self, segments: int, size: int) -> None:
        self.chosen = np.zeros((segments, size))
        self.asked = np.zeros(segments)
        self.estimates: FloatArray | None = None
        self.eligible = np.zeros((segments, size))
        self.votes = np.zeros((3, segments))

    @classmethod
    def nothing(cls, segments: int, size: int) -> _Totals:
        """No slot."""
        return cls(segments, size)

    def add(
        self,
        modules: ActionSpace,
        m: int,
        member: FloatArray,
        marginals: list[FloatArray],
        mask: BoolArray,
        estimates: npt.NDArray[Any] | None,
    ) -> None:
        """Adds N slots, of which `member` (S, N) says who belongs to which segment."""
        self.chosen += member @ marginals[m]
        self.asked += member @ marginals[m].sum(1)
        if estimates is None:
            return
        ways, sets = choice_sets(modules, m, marginals, mask)
        values = estimates.astype(np.float64)
        if modules.condition(m) is not None:
            weight = ways / np.maximum(ways.sum(1, keepdims=True), 1e-300)
            mean = np.einsum("nc,knca->kna", weight, values)
        else:
            mean = values
        here = np.einsum("sn,kna->ksa", member, np.where(mask, mean, 0.0))
        self.estimates = here if self.estimates is None else self.estimates + here
        self.eligible += member @ mask
        votes = vote_shares(modules, m, values, mask, 0.0)
        if votes.ndim == 2:
            votes = votes[:, None, :] * sets
        open_ = ways * (sets.sum(-1) > 1)
        logs = np.log(np.where(votes > 0, votes, 1.0))
        disorder = -(votes * logs).sum(-1) / np.log(np.maximum(sets.sum(-1), 2))
        for place, column in enumerate((open_, open_ * votes.max(-1), open_ * disorder)):
            self.votes[place] += member @ column.sum(1)


def choice_sets(
    modules: ActionSpace, m: int, marginals: list[FloatArray], mask: BoolArray
) -> tuple[FloatArray, BoolArray]:
    """The sets of actions of module m among which a choice may be made, and how likely each is reached.

    Args:
        modules: The modules.
        m: Which one.
        marginals: Probability (N, A_j) of each action of each module (`ActionSpace.marginals`).
        mask: Eligible actions of module m (N, A_m).

    Returns:
        The probability (N, C) that each of C sets comes up, and which eligible actions are in it (N, C, A_m). There is
        one for each choice of the parent or of the condition, or a single one.
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


def _table(
    kinds: list[str], decisions: npt.NDArray[Any], module: str, actions: tuple[str, ...], total: _Totals
) -> pd.DataFrame:
    s, a = total.chosen.shape
    nothing = np.full((s, a), np.nan)
    mean, sd = nothing, nothing
    if total.estimates is not None:
        each = total.estimates / np.where(total.eligible > 0, total.eligible, np.nan)
        mean = each.mean(0)
        sd = each.std(0, ddof=1) if len(each) > 1 else nothing
    asked = np.where(total.votes[0] > 0, total.votes[0], np.nan)
    columns = {
        "segment": np.repeat(kinds, a),
        "decisions": np.repeat(decisions, a),
        "module": module,
        "action": np.tile(actions, s),
        "share": (total.chosen / np.where(total.asked > 0, total.asked, np.nan)[:, None]).reshape(-1),
        "reward": mean.reshape(-1),
        "low": (mean - Z * sd).reshape(-1),
        "high": (mean + Z * sd).reshape(-1),
        "certainty": np.repeat(total.votes[1] / asked, a),
        "entropy": np.repeat(total.votes[2] / asked, a),
    }
    return pd.DataFrame(columns, columns=list(COLUMNS))


def as_text(table: pd.DataFrame) -> str:
    """A table of `explain` in lines that can be read aloud, the most frequent action first."""
    lines = []
    for (segment, module), part in table.groupby(["segment", "module"], sort=False):
        rows = part.sort_values("share", ascending=False, kind="stable").to_dict("records")
        first = rows[0]
        sure = "" if np.isnan(first["certainty"]) else f", {first['certainty']:.0%} of the votes for the best"
        lines.append(f"{segment} ({first['decisions']:,}), {module}{sure}:")
        for row in rows:
            earns = "" if np.isnan(row["reward"]) else f"   earns {row['reward']:+.4g}"
            between = "" if np.isnan(row["low"]) else f" ({row['low']:+.4g} to {row['high']:+.4g})"
            share = " never" if np.isnan(row["share"]) else f"{row['share']:6.1%}"
            lines.append(f"  {share}  {row['action']}{earns}{between}")
    return "\n".join(lines)


def as_markdown(table: pd.DataFrame) -> str:
    """A table of `explain` for TensorBoard's text view."""
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    body = [
        "| " + " | ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row) + " |"
        for row in table[list(COLUMNS)].itertuples(index=False)
    ]
    return "\n".join([*head, *body])


def as_scalars(table: pd.DataFrame) -> dict[str, float]:
    """All decisions' numbers by TensorBoard tag: `explain/reward/MODULE/ACTION` and `explain/certainty/MODULE`."""
    out = {}
    for row in table[table["segment"] == ALL].to_dict("records"):
        if not np.isnan(row["reward"]):
            out[f"explain/reward/{row['module']}/{row['action']}"] = float(row["reward"])
        if not np.isnan(row["certainty"]):
            out[f"explain/certainty/{row['module']}"] = float(row["certainty"])
    return out
