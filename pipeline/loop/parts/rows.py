"""The decisions of a log from which is learned at a time: as one batch in memory, or leaf by leaf."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crosschannel.agents import Batch, Observations
from crosschannel.agents import leaves as by_leaf  # whose names are imported on first use: help does not wait
from crosschannel.agents.base import join
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray, UIntArray
from crosschannel.core.times import duration
from crosschannel.histories.arms import AGENT, held_out
from crosschannel.histories.buckets.leaves import leaf_of
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.guardrails import allowed_actions
from crosschannel.histories.history import DecisionLog, History
from crosschannel.pipeline.batches import learnable, message_odds
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.log_files import lookback
from crosschannel.pipeline.loop.parts.log import LogParts
from crosschannel.pipeline.loop.parts.rewards import Memory, Rewards, RowsAreMissing


@dataclass(frozen=True)
class Rows:
    """The decisions of a part of a log whose rewards are final at a time and were not learned from before.

    Attributes:
        batch: What an agent learns from (n decisions).
        time: Times of the decisions, microseconds (n,).
        user: Codes of their users (n,).
        user_ids: Ids of all users of the part (U,).
    """

    batch: Batch
    time: IntArray
    user: IntArray
    user_ids: np.ndarray[tuple[int], np.dtype[np.object_]]


@dataclass(frozen=True)
class ChooseRows:
    """Finds the rows to learn from in a part of a log.

    Attributes:
        config: The configuration.
        memory: What of the log counts.
        rewards: The rewards, fitted to that.
        features: How contexts are built.
        learned: Sorted keys of the decisions that were learned from (k,), or the file of them; None where all is
            learned again, from the decisions within `update.memory`.
    """

    config: Config
    memory: Memory
    rewards: Rewards
    features: ContextFeatures
    learned: UIntArray | Path | None

    def __call__(self, part: History) -> Rows:
        """Return the rows of a part, whose contexts look back over the whole past.

        Raises:
            RowsAreMissing: If it takes earlier rows than the part has.
        """
        past = self.memory.past(part)
        recent = self.memory.recent(past)
        frame, d = self.rewards.transform(recent), recent.decisions
        chosen = frame.identified & closed(self.config, recent, self.memory.time)
        if self.learned is None:
            chosen &= d.time >= self.memory.time - duration(self.config.update.memory)
        else:
            chosen[chosen] = ~_among(d.key[chosen], self.learned)
        rows = np.flatnonzero(chosen)
        user, time, parts = d.user[rows], d.time[rows], frame.components
        looks_back = lookback(self.features.layout, self.config.guardrails)
        if past.earlier is not None and len(rows) and time.min() - looks_back <= past.earlier.time:
            raise RowsAreMissing
        allowed = recent.eligible[rows] & allowed_actions(self.config.guardrails, past, user, time)
        components = None
        if parts is not None:
            odds = odds_with_arms(d, recent.modules, has_holdout=self.config.arms.holdout > 0.0)
            components = learnable(parts, rows, odds[rows])
        batch = Batch(
            Observations(
                self.features.at(past, user, time), recent.modules.feasible_mask(allowed), past.user_keys[user]
            ),
            d.actions[rows],
            frame.reward[rows],
            frame.se[rows],
            d.key[rows],
            components=components,
        )
        return Rows(batch, time, user, recent.user_ids)


def odds_with_arms(decisions: DecisionLog, modules: ActionSpace, *, has_holdout: bool) -> FloatArray:
    r"""Return the odds (n,) with which decisions without a message count in what is usual: see `message_odds`.

    Users of a holdout are like those of other arms: that nothing could be sent says nothing about them, and they count
    with 1. Beside them the agent's own decisions without a message count with the probability of one,

    .. math:: w = 1 - p_0 \le 1

    (overlap weights; Li, Morgan & Zaslavsky 2018, "Balancing covariates via propensity score weighting", JASA). Their
    odds would make them as many as the messages, of which a policy that nearly always sends leaves a few rows with
    large weights, and the noise of these would outweigh the whole holdout. The users whom the policy tends to leave
    alone count a little too much: by as much as these decisions are many beside the holdout's.

    Args:
        decisions: The decisions.
        modules: The action space.
        has_holdout: Whether there is a holdout.
    """
    sent, none = modules.sends(decisions.actions), decisions.propensity[:, 0]
    apart = held_out(decisions, modules)
    out = message_odds(sent, np.where(apart, np.nan, none))
    if has_holdout and decisions.arm is not None:
        own = np.asarray(decisions.arm == AGENT, dtype=bool) & ~sent & ~apart & np.isfinite(none)
        out[own] = 1.0 - none[own]
    return out


def closed(config: Config, history: History, time: int) -> BoolArray:
    """Return which decisions (n,) have all their windows behind them at a time.

    Events at exactly the end of a window belong to it, unless ties come after; they are not in a log that ends there.
    """
    funnel = config.reward.funnel
    length = duration(config.reward.post)
    if funnel is not None and funnel.window is not None:
        length = max(length, duration(funnel.window))
    end = history.decisions.time + length
    return np.asarray(end <= time if history.ties == "after" else end < time)


def _among(keys: UIntArray, learned: UIntArray | Path) -> BoolArray:
    """Return which keys (n,) are among sorted ones."""
    known = np.load(learned, mmap_mode="r") if isinstance(learned, Path) else learned
    out = np.zeros(len(keys), dtype=bool)
    if len(known):
        order = np.argsort(keys)  # keys in no order make bisections slow
        place = np.minimum(np.searchsorted(known, keys[order]), len(known) - 1)
        out[order] = known[place] == keys[order]
    return out


def rows_in_memory(log: LogParts, choose: ChooseRows) -> Batch:
    """Return the rows of all parts in the order of (time, user, decision)."""
    found = list(log.run(choose, "rewards and contexts"))
    batch, time = join([each.batch for each in found]), np.concatenate([each.time for each in found])
    assert batch.observations.users is not None  # rows of a log have users
    return batch[np.lexsort((batch.keys, batch.observations.users, time))]


@dataclass(frozen=True)
class LearnedRows:
    """The rows of all leaves, and the sorted keys of their decisions (n,)."""

    leaves: by_leaf.Leaves
    keys: UIntArray


def rows_by_leaf(log: LogParts, choose: ChooseRows) -> LearnedRows | None:
    """Return the rows of all parts leaf by leaf, by (user, time, decision) within a leaf.

    Those of a log on disk are written into its folder, in place of those of an earlier time. Where there are no rows,
    or rewards of a class of one's own have no components, it is None.
    """
    spec = choose.config.reward
    assert spec.funnel is not None  # whoever calls it has an agent with a funnel
    folder = log.folder("rows")
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    found = list(log.run(_ToLeaves(choose, log.leaves, folder), "rewards and contexts"))
    keys = np.sort(np.concatenate([each.keys for each in found]))
    if not len(keys):
        return None
    leaves = {leaf: rows for each in found for leaf, rows in each.leaves.items()}
    nothing = by_leaf.opened(next(iter(leaves.values())))[:0]
    return LearnedRows(
        by_leaf.Leaves(
            parts=tuple(leaves.get(leaf, nothing) for leaf in range(log.leaves)),
            modules=log.shared.modules,
            rows=len(keys),
            messages=sum(each.messages for each in found),
            controls=sum(each.controls for each in found),
            costs={goal.event: -goal.weight for goal in spec.goals if goal.event in spec.funnel.costs},
            funnel=True,
            per_task=by_leaf.leaves_per_task(len(keys), log.leaves),
        ),
        keys,
    )


@dataclass(frozen=True)
class _LeavesOfPart:
    """The leaves of a part that have rows, keys of their decisions (n,), and numbers of messages and of others."""

    leaves: dict[int, Path | by_leaf.LeafRows]
    keys: UIntArray
    messages: int
    controls: int


@dataclass(frozen=True)
class _ToLeaves:
    choose: ChooseRows
    leaves: int
    folder: Path | None

    def __call__(self, part: History) -> _LeavesOfPart:
        found = self.choose(part)
        if found.batch.components is None:
            return _LeavesOfPart({}, found.batch.keys[:0], 0, 0)
        leaf = leaf_of(found.user_ids, self.leaves)[found.user]
        rows = by_leaf.LeafRows.from_batch(found.batch)
        order = np.lexsort((rows.key, found.time, rows.user, leaf))
        edges = np.searchsorted(leaf[order], np.arange(self.leaves + 1))
        kept: dict[int, Path | by_leaf.LeafRows] = {}
        for k in np.flatnonzero(np.diff(edges)).tolist():
            kept[k] = mine = rows[order[edges[k] : edges[k + 1]]]
            if self.folder is not None:
                kept[k] = self.folder / f"leaf-{k:04d}"
                mine.write(self.folder / f"leaf-{k:04d}")
        sent, valued = part.modules.sends(found.batch.actions), np.isfinite(found.batch.components.value)
        return _LeavesOfPart(kept, rows.key, int((sent & valued).sum()), int((~sent & valued).sum()))
