"""Tables that explain a policy by module, action and user segment: what it does, and what it expects to earn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.agents.base import Agent, Observations
from crosschannel.agents.policy import chunks
from crosschannel.agents.sampling import vote_shares
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.plotting import Mark, draw_marks

if TYPE_CHECKING:  # Matplotlib takes long to import: it is loaded where a plot is drawn.
    from matplotlib.axes import Axes

ALL_DECISIONS = "all decisions"
COMPONENTS = ("engagement", "gain", "direct")
HAZARD = "hazard_"
COLUMNS = (
    *("segment", "decisions", "module", "action", "share", "reward", "low", "high", "top_vote_share", "entropy"),
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

    The table has one row for each segment, module and action, and the columns

    - `decisions`: number of slots in the segment;
    - `share`: how often the policy chooses the action; for modules after the first, as a share of the messages;
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

    `top_vote_share` and `entropy` describe a module and repeat in the rows of its actions. They are NaN where no
    slot has a choice.

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
    totals = [_Totals(len(kinds), size) for size in modules.sizes]
    for rows, chunk in chunks(observations):
        given = agent.action_probabilities(chunk) if probabilities is None else [p[rows] for p in probabilities]
        estimates = agent.expected_rewards(chunk) if isinstance(agent, EstimatingAgent) else [None] * len(modules)
        components = agent.components(chunk) if isinstance(agent, FunnelAgent) else {}
        mask = modules.split(modules.feasible_mask(chunk.action_mask))
        marginals = modules.marginals(given)
        for m, total in enumerate(totals):
            here = member[:, rows].astype(float)
            total.add(modules, m, here, marginals, mask[m], estimates[m])
            for name, parts in components.items():
                total.add_component(name, parts[m], modules, m, here, marginals, mask[m])
    tables = [
        _table(kinds, member.sum(1), module.name, module.actions, total)
        for module, total in zip(modules, totals, strict=True)
    ]
    return pd.concat(tables).sort_values("segment", key=lambda s: s.map(kinds.index), kind="stable", ignore_index=True)


class _Totals:
    """Sums over slots by segment (S, ...) for one module: choices, estimates where eligible, and votes."""

    def __init__(self, segments: int, size: int) -> None:
        self.chosen = np.zeros((segments, size))
        self.reached = np.zeros(segments)
        self.mean = _MeanEstimates()
        self.components: dict[str, _MeanEstimates] = {}
        self.votes = np.zeros((3, segments))

    def add(
        self,
        modules: ActionSpace,
        m: int,
        member: FloatArray,
        marginals: list[FloatArray],
        mask: BoolArray,
        estimates: npt.NDArray[Any] | None,
    ) -> None:
        """Add N slots; `member` (S, N) marks each segment's slots."""
        self.chosen += member @ marginals[m]
        self.reached += member @ marginals[m].sum(1)
        if estimates is None:
            return
        ways, sets = choice_sets(modules, m, marginals, mask)
        values = estimates.astype(np.float64)
        self.mean.add(member, mask, _over_conditions(modules, m, ways, values))
        votes = vote_shares(modules, m, values, mask, 0.0)
        if votes.ndim == 2:
            votes = votes[:, None, :] * sets
        open_ = ways * (sets.sum(-1) > 1)
        logs = np.log(np.where(votes > 0, votes, 1.0))
        disorder = -(votes * logs).sum(-1) / np.log(np.maximum(sets.sum(-1), 2))
        for place, column in enumerate((open_, open_ * votes.max(-1), open_ * disorder)):
            self.votes[place] += member @ column.sum(1)

    def add_component(
        self,
        name: str,
        estimates: npt.NDArray[Any],
        modules: ActionSpace,
        m: int,
        member: FloatArray,
        marginals: list[FloatArray],
        mask: BoolArray,
    ) -> None:
        """Add a component's estimates at N slots; those that do not exist (NaN) are left out."""
        ways, _ = choice_sets(modules, m, marginals, mask)
        mean = _over_conditions(modules, m, ways, estimates.astype(np.float64))
        self.components.setdefault(name, _MeanEstimates()).add(member, mask & ~np.isnan(mean).any(0), mean)


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


def _over_conditions(modules: ActionSpace, m: int, ways: FloatArray, values: FloatArray) -> FloatArray:
    """Return the estimates (K, N, A) of module m's actions, with what they are conditioned on chosen by the policy."""
    if modules.condition(m) is None:
        return values
    weight = ways / np.maximum(ways.sum(1, keepdims=True), 1e-300)
    return np.asarray(np.einsum("nc,knca->kna", weight, np.where(weight[..., None] > 0, values, 0.0)))


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


def _table(
    kinds: list[str], decisions: npt.NDArray[Any], module: str, actions: tuple[str, ...], total: _Totals
) -> pd.DataFrame:
    s, a = total.chosen.shape
    mean, low, high = total.mean.interval((s, a))
    reached = np.where(total.votes[0] > 0, total.votes[0], np.nan)
    columns = {
        "segment": np.repeat(kinds, a),
        "decisions": np.repeat(decisions, a),
        "module": module,
        "action": np.tile(actions, s),
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


def as_text(table: pd.DataFrame) -> str:
    """Format a `policy_table` as lines of text, the most frequent action of each module first."""
    lines, names = [], component_names(table)
    for (segment, module), part in table.groupby(["segment", "module"], sort=False):
        rows = part.sort_values("share", ascending=False, kind="stable").to_dict("records")
        first = rows[0]
        top = first["top_vote_share"]
        votes = "" if np.isnan(top) else f", {top:.0%} of the votes for the best"
        lines.append(f"{segment} ({first['decisions']:,}), {module}{votes}:")
        for row in rows:
            earns = "" if np.isnan(row["reward"]) else f"   earns {row['reward']:+.4g}"
            between = "" if np.isnan(row["low"]) else f" ({row['low']:+.4g} to {row['high']:+.4g})"
            between += _funnel_text(row, names)
            share = " never" if np.isnan(row["share"]) else f"{row['share']:6.1%}"
            lines.append(f"  {share}  {row['action']}{earns}{between}")
    return "\n".join(lines)


def component_names(table: pd.DataFrame) -> list[str]:
    """Return the components of a `policy_table` that have a number, such as `engagement` and `hazard_unsubscribed`."""
    hazards = [name for name in map(str, table) if name.startswith(HAZARD) and f"{name}_low" in table]
    return [name for name in (*COMPONENTS, *hazards) if name in table and table[name].notna().any()]


def _funnel_text(row: Mapping[Any, Any], names: Sequence[str]) -> str:
    """Return some components of a row of a `policy_table` in words."""
    parts = [
        f"{name.removeprefix(HAZARD)} {format(row[name], '+.4g' if name in ('gain', 'direct') else '.2%')}"
        for name in names
        if not np.isnan(row[name])
    ]
    return f"   {', '.join(parts)}" if parts else ""


def as_markdown(table: pd.DataFrame) -> str:
    """Format a `policy_table` as Markdown, for TensorBoard's text view."""
    columns = [str(name) for name in table.columns]
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    body = [
        "| " + " | ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row) + " |"
        for row in table.itertuples(index=False)
    ]
    return "\n".join([*head, *body])


def as_scalars(table: pd.DataFrame) -> dict[str, float]:
    """Return a `policy_table`'s numbers over all decisions by TensorBoard tag (docs/metrics.md)."""
    out: dict[str, float] = {}
    names = component_names(table)
    for row in table[table["segment"] == ALL_DECISIONS].to_dict("records"):
        if not np.isnan(row["reward"]):
            out[f"explain/reward/{row['module']}/{row['action']}"] = float(row["reward"])
        for name in names:
            if not np.isnan(row[name]):
                out[f"explain/{name}/{row['module']}/{row['action']}"] = float(row[name])
        if not np.isnan(row["top_vote_share"]):
            out[f"policy/top_vote_share/{row['module']}"] = float(row["top_vote_share"])
    return out


def plot_policy(
    table: pd.DataFrame, *, segment: str = ALL_DECISIONS, show: str = "share", ax: Axes | None = None
) -> Axes:
    """Plot how often a policy chooses each action, or what its agent expects of each, module by module.

    The agent's own estimates say why it chooses as it does, not what the actions are worth.

    Args:
        table: What `policy_table` returned.
        segment: The segment of users.
        show: `share`, `reward`, or a component that the agent has, such as `engagement` (`component_names`).
        ax: Axes to draw on; None makes a new figure that pyplot does not know.

    Returns:
        The axes. An action without a number has no bar, and its row says why.

    Raises:
        ConfigError: If there is no such segment or number.

    Example:
        >>> axes = plot_policy(table)
        >>> axes.get_xlabel()
        'share of the decisions; of later modules, of the messages [%]'
    """
    shown = table[table["segment"] == segment]
    if not len(shown):
        raise ConfigError(f"there is no segment {segment!r}. {nearest(segment, list(dict.fromkeys(table['segment'])))}")
    numbers = ("share", "reward", *component_names(table))
    if show not in numbers:
        raise ConfigError(f"the policy has no {show!r}. {nearest(show, numbers)}")
    title = f"What the policy {'chooses' if show == 'share' else 'expects'}: {segment} ({shown['decisions'].iloc[0]:,})"
    rows = shown.to_dict("records")
    if show == "share":
        across = "share of the decisions; of later modules, of the messages [%]"
        return draw_marks([_share_mark(row) for row in rows], across, title=title, ax=ax)
    unit = "reward units" if show in ("reward", "gain", "direct") else "probability"
    marks = [_estimate_mark(row, show) for row in rows]
    return draw_marks(marks, f"expected {show} of a message, with 95 % interval [{unit}]", title=title, ax=ax)


def _share_mark(row: Mapping[Any, Any]) -> Mark:
    return Mark(
        label=str(row["action"]),
        value=100 * row["share"],
        text=f"{row['share']:.1%}",
        note="no message of the policy has this choice",
        group=str(row["module"]),
        start=0.0,
    )


def _estimate_mark(row: Mapping[Any, Any], name: str) -> Mark:
    low, high = ("low", "high") if name == "reward" else (f"{name}_low", f"{name}_high")
    return Mark(
        label=str(row["action"]),
        value=row[name],
        low=row[low],
        high=row[high],
        text=f"{row[name]:+.3g} [{row[low]:.3g}, {row[high]:.3g}]",
        note="the agent has no estimate",
        group=str(row["module"]),
    )
