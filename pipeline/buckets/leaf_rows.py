"""The rows that an agent learns from, leaf by leaf, from the training users of buckets."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crosschannel.agents import Batch, Observations
from crosschannel.agents.leaves.leaves import Leaves
from crosschannel.agents.leaves.rows import LeafRows
from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.files import replacing
from crosschannel.histories.arms import held_out
from crosschannel.histories.buckets import leaf_of
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.history import History
from crosschannel.pipeline.batches import learnable, message_odds
from crosschannel.pipeline.buckets.columns import read_columns
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import BucketedLog, train_columns
from crosschannel.reward import RewardFrame
from crosschannel.reward.buckets.passes import FittedRewards, RunOverHistories
from crosschannel.reward.reason import Reason


def over_training_users(log: BucketedLog, passes: Passes) -> RunOverHistories:
    """Return what runs a function over the histories of the training users, bucket by bucket.

    Args:
        log: The log.
        passes: How functions run over buckets.
    """
    items = list(train_columns(log))
    return lambda function, what: passes.run(partial(_on_columns, function=function), items, what)


def _on_columns(folder: Path, function: Callable[[History], Any]) -> Any:
    return function(read_columns(folder))


def write_leaves(
    log: BucketedLog, rewards: FittedRewards, features: ContextFeatures, scratch: Path, passes: Passes
) -> Leaves:
    """Write the rows of all training users by leaf, in one pass over the buckets; what stands already stays.

    Args:
        log: The log.
        rewards: The fitted rewards.
        features: How contexts are built.
        scratch: Folder for the rows.
        passes: How functions run over buckets.

    Raises:
        ConfigError: If no decision has a reward.
    """
    spec = rewards.pricing.measuring.spec
    # Rows that another log, another division or other settings gave are not taken for these.
    division = (log.buckets.n, log.buckets.leaves)
    key = hashlib.blake2b(
        repr((log.fingerprint, division, features.state_dict(), spec)).encode(), digest_size=8
    ).hexdigest()
    folder = scratch / f"rows-{key}"
    make = _Rows(folder=folder, leaves=log.buckets.leaves, buckets=log.buckets.n, rewards=rewards, features=features)
    counts = np.sum([*passes.run(make, list(train_columns(log)), "rewards and contexts")], axis=0)
    if not int(counts[0]):
        raise ConfigError(
            f"{log.sample.name}: no decision of the training users has a reward. Use shorter reward windows, a longer "
            "history or a reward that needs fewer controls"
        )
    paths = tuple(folder / _name(leaf) for leaf in range(log.buckets.leaves))
    first = LeafRows.open(next(path for path in paths if path.is_dir()))
    for path in paths:  # leaves without users
        if not path.is_dir():
            first[:0].write(path)
    funnel = spec.funnel
    costs = {} if funnel is None else {g.event: -g.weight for g in spec.goals if g.event in funnel.costs}
    return Leaves(
        parts=paths,
        modules=log.buckets.modules,
        rows=int(counts[0]),
        messages=int(counts[1]),
        controls=int(counts[2]),
        costs=costs,
        funnel=funnel is not None,
    )


@dataclass(frozen=True)
class _Rows:
    """The pass that writes the rows of a bucket's leaves, and counts rows, messages and controls with a value (3,).

    Attributes:
        folder: Where the leaves are written.
        leaves: Number of leaves.
        buckets: Number of buckets.
        rewards: The fitted rewards.
        features: How contexts are built.
    """

    folder: Path
    leaves: int
    buckets: int
    rewards: FittedRewards
    features: ContextFeatures

    def __call__(self, columns: Path) -> IntArray:
        bucket = int(columns.parent.name.removeprefix("bucket-"))
        done = self.folder / f"{columns.parent.name}.json"
        if done.is_file():
            return np.array(json.loads(done.read_text()), dtype=np.int64)
        history = read_columns(columns)
        rows, leaf = _rows(history, self.rewards.transform(history), self.features, self.leaves)
        for mine in range(bucket, self.leaves, self.buckets):
            path = self.folder / _name(mine)
            if path.is_dir():
                shutil.rmtree(path)
            rows[leaf == mine].write(path)
        sent, valued = rows.actions[:, 0] != 0, np.zeros(len(rows), dtype=bool)
        if rows.value is not None:
            valued = np.isfinite(rows.value)
        counts = np.array([len(rows), (sent & valued).sum(), (~sent & valued).sum()], dtype=np.int64)
        with replacing(done) as draft:
            draft.write_text(json.dumps(counts.tolist()))
        return counts


def _name(leaf: int) -> str:
    return f"leaf-{leaf:04d}"


def _rows(history: History, frame: RewardFrame, features: ContextFeatures, leaves: int) -> tuple[LeafRows, IntArray]:
    """Return the rows of a bucket's decisions with a reward by (user, time, decision), and their leaves (n,)."""
    d, user_keys = history.decisions, history.user_keys
    frame = frame.without(held_out(d, history.modules), Reason.HELD_OUT)
    rows = np.flatnonzero(frame.identified & np.isfinite(frame.se))
    rows = rows[np.lexsort((d.key[rows], d.time[rows], user_keys[d.user[rows]]))]
    user, parts, components = d.user[rows], frame.components, None
    if parts is not None:
        odds = message_odds(history.modules.sends(d.actions[rows]), d.propensity[rows, 0])
        components = learnable(parts, rows, odds)
    context = features.at(history, user, d.time[rows])
    batch = Batch(
        observations=Observations(context, np.ones((len(rows), 0), dtype=bool), user_keys[user]),
        actions=d.actions[rows],
        rewards=frame.reward[rows],
        se=frame.se[rows],
        keys=d.key[rows],
        components=components,
    )
    return LeafRows.from_batch(batch), leaf_of(history.user_ids, leaves)[user]
