"""Decide bucket by bucket under constraints, whose prices rest on all users, with the bytes of one reading.

The passes read the log once; `decide` reads it once before them where --out is a folder by date, to find the slot to
decide for. What a pass finds of each user is kept below a folder, so that a process has a bucket or a block of users in
memory, and a few numbers of each of the others:

1. Each bucket: who is decided for, what may be sent to whom, contexts.
2. Each block of the agent's users, in the order of all users: votes and what they use. From these files follow the
   prices, with the solver and the bits of all votes in memory.
3. Each block: the draws at these prices.
4. Each bucket: its part of the day's tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel import agents
from crosschannel.agents import Decisions, Observations
from crosschannel.agents.constraints.budgets import budgets_at
from crosschannel.agents.constraints.prices import Prices
from crosschannel.agents.votes import PriceableAgent
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray, ObjectArray
from crosschannel.core.times import WEEK
from crosschannel.histories import Buckets
from crosschannel.histories.values.identifiers import order_of_ids
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.command_line import one_thread
from crosschannel.pipeline.loop.deciding import (
    DecidedDay,
    day_of_users,
    draw,
    no_decisions,
    note_binding,
    open_policy,
)
from crosschannel.pipeline.loop.decisions.bucket_lists import ListedBucket
from crosschannel.pipeline.loop.decisions.buckets import BucketRequest, DecidedUsers, look_at_bucket
from crosschannel.pipeline.loop.decisions.day_users import DayPolicy, DayRequest, DayUsers, users_of_day
from crosschannel.pipeline.loop.decisions.vote_files import VoteFiles, writing
from crosschannel.pipeline.priced_votes import PricedVotes, Voting, blocks, find_prices
from crosschannel.pipeline.pricing import check_priceable, price_table
from crosschannel.pipeline.run_folder import Run

CONTEXT_FILE, MASK_FILE, KEYS_FILE = "context.npy", "mask.npy", "keys.npy"


@dataclass(frozen=True)
class LookedAt:
    """A bucket that was read.

    Attributes:
        folder: Where what its users look like is kept.
        ids: Ids of the users whom the agent decides for (n,).
        with_slot: Number of these who can get a message at all.
        shown: What else the bucket shows.
    """

    folder: Path
    ids: ObjectArray
    with_slot: int
    shown: DecidedUsers


@dataclass(frozen=True)
class SeenUsers:
    """What the agent sees of the users whom it decides for, bucket after bucket, on disk.

    Attributes:
        folders: Where it is kept, for each bucket.
        starts: Number of the first such user of each bucket.
    """

    folders: tuple[Path, ...]
    starts: IntArray

    def of(self, users: IntArray) -> Observations:
        """Return what the agent sees of some users by their numbers (n,), in their order."""
        bucket = np.searchsorted(self.starts, users, side="right") - 1
        places = [(self.folders[b], bucket == b, users[bucket == b] - self.starts[b]) for b in np.unique(bucket)]

        def gathered(name: str) -> npt.NDArray[Any]:
            parts = [np.load(folder / name, mmap_mode="r")[rows] for folder, _, rows in places]
            out = np.empty((len(users), *parts[0].shape[1:]), dtype=parts[0].dtype)
            for (_, mine, _), part in zip(places, parts, strict=True):
                out[mine] = part
            return out

        return Observations(gathered(CONTEXT_FILE), gathered(MASK_FILE), gathered(KEYS_FILE))


@dataclass(frozen=True)
class _Block:
    """Users whose votes are computed together: their rows in the order of all users, and their numbers (n,)."""

    rows: slice
    users: IntArray


@dataclass(frozen=True)
class _BlockWork:
    """What is done for each block of users, given the run's policy, the action space, and where votes are kept."""

    run: Run
    device: str
    modules: ActionSpace
    seen: SeenUsers
    files: VoteFiles

    def vote(self, block: _Block, voting: Voting, charged: FloatArray | None) -> None:
        """Write the votes of a block, given what budgets charge for each action of all modules."""
        agent = _load_agent(self.run, self.modules, self.device)
        self.files.write(block.rows.start, voting.of_block(agent, self.seen.of(block.users), charged))

    def draw(self, block: _Block, request: DayRequest, prices: Prices) -> Decisions:
        """Return the draws of a block at the prices of all users."""
        probabilities = self.files.read_block(block.rows).probabilities(prices)
        return draw(self.modules, probabilities, self.seen.of(block.users), request)


@dataclass(frozen=True)
class PricedBuckets:
    """Buckets that were read once, for whose users prices can be found.

    Attributes:
        buckets: The bucketed log.
        request: What is decided for every bucket.
        policy: The policy that decides.
        looked_at: The buckets that were read.
        scratch: Folder for what is found of each user.
        passes: How functions run over buckets and blocks.
    """

    buckets: Buckets
    request: BucketRequest
    policy: DayPolicy
    looked_at: tuple[LookedAt, ...]
    scratch: Path
    passes: Passes

    @property
    def shown(self) -> DecidedUsers:
        """What all buckets show, without any decision."""
        return reduce(add, (one.shown for one in self.looked_at))

    @one_thread()
    def decide(self) -> tuple[DecidedDay, ...]:
        """Find the prices for all users together, draw at these prices, and return the day's part of each bucket.

        Raises:
            ConfigError: If the agent cannot keep the constraints, or they cannot be kept (`InfeasibleBudget`).
            OutputError: If the votes cannot be written.
        """
        folders, ids = zip(*((one.folder, one.ids) for one in self.looked_at), strict=True)
        starts = np.cumsum([0, *map(len, ids)])
        order = order_of_ids(np.concatenate(ids), by_value=self.buckets.manifest.numbered)
        chosen, prices = no_decisions(self.buckets.modules), None
        if len(order):
            chosen, prices = self._at_prices(SeenUsers(folders, starts[:-1]), order)
        note_binding(prices)
        place = np.argsort(order)  # the inverse permutation: the row of each user in the order of all
        items = [
            (folder, chosen[place[start:end]])
            for folder, start, end in zip(folders, starts[:-1], starts[1:], strict=True)
        ]
        tables = partial(_day_of_bucket, request=self.request.day, policy=self.policy, prices=prices)
        return tuple(self.passes.run(tables, items, "tables"))

    def _at_prices(self, seen: SeenUsers, order: IntArray) -> tuple[Decisions, pd.DataFrame]:
        """Return what is decided for the users (n,) of an order, by their numbers, and the constraints' prices."""
        run, day, modules = self.request.run, self.request.day, self.buckets.modules
        pace = self.policy.trained_with.pace
        agent, constraints = _load_agent(run, modules, day.device), run.constraints
        with_slot = sum(one.with_slot for one in self.looked_at)
        budgets = budgets_at(constraints, with_slot, pace.period, pace.rates, pace.organic)
        voting = Voting(constraints, pace.message_price, day.explore)
        files = VoteFiles.create(self.scratch / "votes", len(order), voting.of_block(agent, seen.of(order[:1])))
        work = _BlockWork(run=run, device=day.device, modules=modules, seen=seen, files=files)
        items = [_Block(rows, order[rows]) for rows in blocks(len(order))]

        def votes_at(charged: FloatArray | None) -> PricedVotes:
            for _ in self.passes.run(partial(work.vote, voting=voting, charged=charged), items, "votes"):
                pass
            return files.read()

        user_weeks = with_slot * pace.period / WEEK
        _, prices = find_prices(votes_at, constraints, modules, budgets, user_weeks, pace.organic)
        drawn = list(self.passes.run(partial(work.draw, request=day, prices=prices), items, "draws"))
        chosen = Decisions(*(np.concatenate([getattr(one, f.name) for one in drawn]) for f in fields(Decisions)))
        return chosen, price_table(0, constraints, prices, budgets)


def look_at_buckets(
    buckets: Buckets, listed: Sequence[ListedBucket], request: BucketRequest, scratch: Path, passes: Passes
) -> PricedBuckets:
    """Read every bucket of a log once, and write what its users look like below a folder.

    Args:
        buckets: The bucketed log.
        listed: Its buckets, with the lists of their users.
        request: What is decided.
        scratch: The folder.
        passes: How functions run over buckets and blocks.

    Raises:
        ConfigError: If the constraints do not fit the log, or the agent cannot keep them.
        InputError: If a bucket cannot be read.
        OutputError: If the folder cannot be written.
    """
    agent, constraints, policy = open_policy(request.run, buckets.modules, request.day.device)
    check_priceable(agent, constraints)
    items = [(bucket, scratch / bucket.path.name) for bucket in listed]
    found = tuple(passes.run(partial(_look_at, request=request, policy=policy), items, "reading buckets"))
    return PricedBuckets(
        buckets=buckets, request=request, policy=policy, looked_at=found, scratch=scratch, passes=passes
    )


def _load_agent(run: Run, modules: ActionSpace, device: str) -> PriceableAgent:
    """Load the policy of a run, which keeps constraints.

    Raises:
        ConfigError: If it cannot.
    """
    agent, _ = agents.load_policy(run.policy, device, modules, run.allowed_classes)
    check_priceable(agent, run.constraints)
    assert isinstance(agent, PriceableAgent)
    return agent


def _look_at(item: tuple[ListedBucket, Path], request: BucketRequest, policy: DayPolicy) -> LookedAt:
    """Read a bucket, and write what its users look like into a folder."""
    bucket, folder = item
    history, eligible, receive, shown = look_at_bucket(bucket, request)
    users, deciders = users_of_day(request.day, policy, history, eligible, receive)
    seen = deciders.seen
    assert seen.users is not None  # `users_of_day` knows them
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in ((CONTEXT_FILE, seen.context), (MASK_FILE, seen.action_mask), (KEYS_FILE, seen.users)):
            np.save(folder / name, array)
        users.write(folder)
    return LookedAt(folder, users.user_ids[users.users[users.decides]], int(deciders.has_slot.sum()), shown)


def _day_of_bucket(
    item: tuple[Path, Decisions], request: DayRequest, policy: DayPolicy, prices: pd.DataFrame | None
) -> DecidedDay:
    """Return a bucket's part of the day, given what is decided for its users."""
    folder, chosen = item
    return day_of_users(request, policy, DayUsers.read(folder), chosen, prices)
