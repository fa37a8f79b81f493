"""Decide for the users of a bucketed log, one bucket after the other: the decisions are those for all users at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.engines import Engine
from crosschannel.histories import Buckets, Guardrails, History, read_bucket
from crosschannel.histories.buckets.merging import merge
from crosschannel.histories.logs import take_rows
from crosschannel.histories.values.identifiers import order_of_ids
from crosschannel.pipeline.building import with_declared
from crosschannel.pipeline.loop.deciding import DecidedDay, decide_day, rolled_out
from crosschannel.pipeline.loop.decisions.consent import everything, open_columns
from crosschannel.pipeline.loop.decisions.eligible import eligible_before_guardrails, unsaid
from crosschannel.pipeline.run_folder import Run


@dataclass(frozen=True)
class BucketRequest:
    """What is decided for every bucket.

    Attributes:
        run: The run, with the history and the arms of the command line.
        at: Time of the decisions, microseconds since 1970 UTC.
        guardrails: Limits on what is sent.
        ignored: Columns of users that look like consent but do not limit what may be sent.
        ramp: Share of the users who may get messages.
        explore: Whether the policy explores.
        device: Where the agent computes.
        seed: Seed of the draws.
        clear_ids: Whether decision ids have the users' ids in them.
    """

    run: Run
    at: int
    guardrails: Guardrails
    ignored: tuple[str, ...] = ()
    ramp: float = 1.0
    explore: bool = True
    device: str = "cpu"
    seed: int = 0
    clear_ids: bool = False


@dataclass(frozen=True)
class BucketDay:
    """What was decided for the users of one bucket.

    Attributes:
        day: The decisions.
        what: Where what may be sent is from.
        silent: A sentence on users and actions of whom nobody says that anything may be sent; empty without them.
        everything: Whether every channel was eligible for everybody.
        open_columns: Columns that look like consent and are not mentioned.
    """

    day: DecidedDay
    what: str
    silent: str
    everything: bool
    open_columns: tuple[str, ...]


def slots_of(buckets: Buckets, run: Run, engine: Engine) -> History:
    """Return a history of all different times of the decisions of a bucketed log, which shows what its slots are.

    It has no events, and of the users only those whose decisions were the first at a time in their bucket.
    """
    parts = list(engine(partial(_slots_of_bucket, run=run), buckets.paths))
    return merge(parts, by_value=buckets.manifest.numbered)


def decide_buckets(paths: Sequence[Path], request: BucketRequest, engine: Engine) -> list[BucketDay]:
    """Decide for the users of buckets, each a pure function of the bucket.

    Without constraints, which couple users by their prices, a decision depends on its user alone: draws are hashes of
    the seed, the time and the user.
    """
    return list(engine(partial(_decide_bucket, request=request), paths))


def merge_days(days: Sequence[DecidedDay], *, by_value: bool) -> DecidedDay:
    """Return the decisions of all buckets as those of one day, in the order of the users' ids.

    Args:
        days: The decisions of each bucket.
        by_value: Whether ids are in the order of their values as whole numbers, or of their text.
    """
    tables = []
    for frames in ([day.decisions for day in days], [day.arms for day in days]):
        filled = [frame for frame in frames if len(frame)] or frames[:1]
        order = order_of_ids(_column(filled, "user_id"), by_value=by_value)
        # Columns are made from arrays, as those of one day are: joined ones are written in another type of text.
        tables.append(pd.DataFrame({name: _column(filled, name)[order] for name in filled[0].columns}))
    summaries = [day.summary for day in days]
    summary = {
        **summaries[0],
        "users": {arm: sum(one["users"][arm] for one in summaries) for arm in summaries[0]["users"]},
        "waiting": sum(one["waiting"] for one in summaries),
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
    history = _read(path, run)
    first = np.unique(history.decisions.time, return_index=True)[1]
    decisions = take_rows(history.decisions, np.sort(first))
    few = replace(history, decisions=decisions, events=take_rows(history.events, np.zeros(0, dtype=np.int64)))
    chosen = np.zeros(history.n_users, dtype=bool)
    chosen[decisions.user] = True
    return few.select_users(chosen)


def _decide_bucket(path: Path, request: BucketRequest) -> BucketDay:
    run, at = request.run, request.at
    history = _read(path, run)
    eligible, what = eligible_before_guardrails(history, at, run.config.history.decided)
    day = decide_day(
        *(run, history, at, eligible, request.guardrails),
        may_receive=None if request.ramp == 1.0 else rolled_out(history, run.config.arms, request.ramp),
        explore=request.explore,
        device=request.device,
        seed=request.seed,
        clear_ids=request.clear_ids,
    )
    return BucketDay(
        day=day,
        what=what,
        silent=unsaid(history, eligible),
        everything=everything(history.modules, eligible),
        open_columns=tuple(open_columns(history, request.guardrails, request.ignored)),
    )


def _read(path: Path, run: Run) -> History:
    declared = run.config.history
    return with_declared(read_bucket(path, declared.decided), declared)
