"""Decide for the users of a bucketed log, one bucket after the other: the decisions are those for all users at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.times import DAY
from crosschannel.engines import Engine, shard
from crosschannel.histories import Buckets, History, read_bucket
from crosschannel.histories.buckets.merging import merge
from crosschannel.histories.logs import take_rows
from crosschannel.histories.values.identifiers import order_of_ids
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.loop.deciding import DecidedDay, decide_day, rolled_out
from crosschannel.pipeline.loop.decisions.bucket_lists import ListedBucket
from crosschannel.pipeline.loop.decisions.consent import everything, open_columns
from crosschannel.pipeline.loop.decisions.day_users import DayRequest
from crosschannel.pipeline.loop.decisions.eligible import EligibleSource, Unsaid, eligible_before_guardrails
from crosschannel.pipeline.loop.decisions.slot_times import few_times
from crosschannel.pipeline.reading import with_declared
from crosschannel.pipeline.run_folder import Run


@dataclass(frozen=True)
class BucketRequest:
    """What is decided for every bucket.

    Attributes:
        run: The run, with the history and the arms of the command line.
        day: What is decided for the day.
        ignored: Columns of users that look like consent but do not limit what may be sent.
        ramp: Share of the users who may get messages.
    """

    run: Run
    day: DayRequest
    ignored: tuple[str, ...] = ()
    ramp: float = 1.0


@dataclass(frozen=True)
class DecidedUsers:
    """What was decided for the users of some buckets, and what else these show; `+` adds those of other buckets.

    Attributes:
        days: The decisions of each bucket; a bucket that was only looked at has none.
        first: Time of the first decision of the log, microseconds since 1970 UTC; None where there is none.
        times_of_day: Times of day of the log's decisions, as far as `few_times` keeps them.
        source: Where what may be sent is from.
        unsaid: Users and actions of whom nobody says that anything may be sent.
        everything: Whether every channel was eligible for everybody.
        open_columns: Columns that look like consent in each of the buckets and are not mentioned.
        nobody: The history of none of the users.
    """

    days: tuple[DecidedDay, ...]
    first: int | None
    times_of_day: IntArray
    source: EligibleSource
    unsaid: Unsaid
    everything: bool
    open_columns: tuple[str, ...]
    nobody: History

    def __add__(self, other: DecidedUsers) -> DecidedUsers:
        return DecidedUsers(
            days=self.days + other.days,
            first=min((one for one in (self.first, other.first) if one is not None), default=None),
            times_of_day=few_times(np.concatenate([self.times_of_day, other.times_of_day])),
            source=self.source | other.source,
            unsaid=self.unsaid + other.unsaid,
            everything=self.everything and other.everything,
            # What is a flag for some users and something else for others, such as an address, is none.
            open_columns=tuple(name for name in self.open_columns if name in other.open_columns),
            nobody=self.nobody,
        )

    def decides_alone(self, at: int) -> bool:
        """Return whether nothing that other users' buckets may show decides whether anything is decided at a time."""
        return self.first is not None and self.first < at and not (self.everything and self.open_columns)


def slots_of(buckets: Buckets, run: Run, engine: Engine) -> History:
    """Return a history of all different times of the decisions of a bucketed log, which shows what its slots are.

    It has no events, and of the users only those whose decisions were the first at a time in their bucket.
    """
    parts = list(engine(partial(_slots_of_bucket, run=run), buckets.paths))
    return merge(parts, by_value=buckets.manifest.numbered)


def decide_buckets(
    buckets: Sequence[ListedBucket], request: BucketRequest, engine: Engine, part: str | None = None
) -> DecidedUsers:
    """Decide for the users of buckets, each a pure function of the bucket.

    Without constraints, which couple users by their prices, a decision depends on its user alone: draws are hashes of
    the seed, the time and the user. Whether a time is one of the log, and whether something looks like consent that is
    not mentioned, is a question about all users: a task that cannot answer it by its own buckets looks at the others.

    Args:
        buckets: The buckets of the log, with the lists of their users.
        request: What is decided.
        engine: What runs a function over buckets.
        part: `i/n`, the task i of n, whose buckets alone are decided for; None for all. A task beyond the number of
            buckets decides for nobody.
    """
    mine = buckets if part is None else shard(buckets, part)
    found = list(engine(partial(_decide_bucket, request=request), mine))
    decided = reduce(add, found) if found else None
    if part is not None and (decided is None or not decided.decides_alone(request.day.at)):
        places = {bucket.path for bucket in mine}
        others = [bucket for bucket in buckets if bucket.path not in places]
        looked = list(engine(partial(_decide_bucket, request=request, decides=False), others))
        decided = reduce(add, looked if decided is None else [decided, *looked])
    assert decided is not None  # a folder has at least one bucket
    if decided.days:
        return decided
    logger.warning(
        f"--shard {part}: the log has {len(buckets)} buckets with users and none for this task, which decides "
        f"for nobody; {len(buckets)} tasks are enough"
    )
    none = np.zeros((0, decided.nobody.modules.total), dtype=bool)
    return replace(decided, days=(decide_day(request.run, decided.nobody, request.day, none),))


def merge_days(days: Sequence[DecidedDay], *, by_value: bool) -> DecidedDay:
    """Return the decisions of all buckets as those of one day, in the order of the users' ids.

    Args:
        days: The decisions of each bucket.
        by_value: Whether ids are in the order of their values as whole numbers, or of their text.
    """
    tables = []
    for frames in ([day.decisions for day in days], [day.arms for day in days]):
        filled = [frame for frame in frames if len(frame)]
        if not filled:
            # Text is text also where there is none: the files of several tasks are read as one table.
            text = {name: "str" for name, column in frames[0].items() if column.dtype == object}
            tables.append(frames[0].astype(text))
            continue
        order = order_of_ids(_column(filled, "user_id"), by_value=by_value)
        # Columns are made from arrays, as those of one day are: joined ones are written in another type of text. Each
        # becomes one of the table before the next is made: as objects the texts of all columns take the most memory.
        tables.append(pd.DataFrame({name: pd.Series(_column(filled, name)[order]) for name in filled[0].columns}))
    summaries = [day.summary for day in days]
    summary = {
        **summaries[0],
        "users": {arm: sum(one["users"][arm] for one in summaries) for arm in summaries[0]["users"]},
        "waiting": sum(one["waiting"] for one in summaries),
        "without_choice": {
            reason: sum(one["without_choice"][reason] for one in summaries) for reason in summaries[0]["without_choice"]
        },
        "counts": {
            module: dict(sorted(sum((Counter(one["counts"][module]) for one in summaries), Counter()).items()))
            for module in summaries[0]["counts"]
        },
    }
    return DecidedDay(days[0].name, tables[0], tables[1], summary)


def _column(frames: Sequence[pd.DataFrame], name: str) -> Any:
    """Return a column of several tables as one array."""
    values = [frame[name] for frame in frames]
    if isinstance(values[0].dtype, pd.DatetimeTZDtype):
        return pd.concat(values, ignore_index=True).array
    return np.concatenate([one.to_numpy(dtype=object if one.dtype.kind == "O" else None) for one in values])


def _slots_of_bucket(path: Path, run: Run) -> History:
    """Return the first decision at each time, and its users."""
    history = _read(path, run)
    first = np.unique(history.decisions.time, return_index=True)[1]
    decisions = take_rows(history.decisions, np.sort(first))
    few = replace(history, decisions=decisions, events=take_rows(history.events, np.zeros(0, dtype=np.int64)))
    chosen = np.zeros(history.n_users, dtype=bool)
    chosen[decisions.user] = True
    return few.select_users(chosen)


def _decide_bucket(bucket: ListedBucket, request: BucketRequest, *, decides: bool = True) -> DecidedUsers:
    """Decide for the users of a bucket, or only look at what it shows."""
    history, eligible, receive, shown = look_at_bucket(bucket, request)
    if not decides:
        return shown
    return replace(shown, days=(decide_day(request.run, history, request.day, eligible, receive),))


def look_at_bucket(
    bucket: ListedBucket, request: BucketRequest
) -> tuple[History, BoolArray, BoolArray | None, DecidedUsers]:
    """Read a bucket.

    Returns:
        Its history; what may be sent before guardrails (U, sum of actions); which users may get messages yet (U,), None
        for all; and what else it shows.
    """
    run = request.run
    history = _read(bucket.path, run)
    time = history.decisions.time
    eligible, source = bucket.eligible_of(history), EligibleSource(logged=False, given=False)
    if eligible is None:
        eligible, source = eligible_before_guardrails(history, request.day.at, run.config.history.decided)
    listed, receive = bucket.listed_of(history), None
    if request.ramp < 1.0 or listed is not None:
        receive = rolled_out(history, run.config.arms, request.ramp, listed)
    shown = DecidedUsers(
        days=(),
        first=int(time.min()) if len(time) else None,
        times_of_day=few_times(time % DAY),
        source=source,
        unsaid=Unsaid.of_users(history, eligible),
        everything=everything(history.modules, eligible),
        open_columns=tuple(open_columns(history, request.day.guardrails, request.ignored)),
        nobody=history.select_users(np.zeros(history.n_users, dtype=bool)),
    )
    return history, eligible, receive, shown


def _read(path: Path, run: Run) -> History:
    declared = run.config.history
    return with_declared(read_bucket(path, declared.decided), declared)
