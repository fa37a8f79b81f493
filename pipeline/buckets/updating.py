"""Learn day by day from a log in buckets: the bytes of learning from the same log in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from crosschannel.core.arrays import IntArray, UIntArray
from crosschannel.core.times import NEVER
from crosschannel.core.wording import counted, log_in_words
from crosschannel.histories.buckets import Buckets, open_buckets, read_bucket
from crosschannel.histories.buckets.leaves import DEFAULT_LEAVES
from crosschannel.pipeline.buckets.columns import read_columns, write_columns
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config, HistoryConfig
from crosschannel.pipeline.loop.parts.log import LogParts
from crosschannel.pipeline.loop.updating import Updated, learn_from_parts
from crosschannel.pipeline.reading import with_declared
from crosschannel.pipeline.run_files import RunLock, remove_left_scratch, scratch_folder
from crosschannel.pipeline.run_folder import Run
from crosschannel.reward import DidReward


def update_over_buckets(run: Run, passes: Passes) -> Updated:
    """Learn from what a log in buckets holds by now: as `update` does, to the same bytes, a few buckets at a time.

    Args:
        run: The run, whose history is a bucketed folder.
        passes: How functions run over buckets and leaves.

    Raises:
        InputError: If a bucket cannot be read.
        ConfigError: As for `update`.
        NotIdentified: If the log has no decisions.
    """
    source = run.config.history
    assert source.path is not None  # the history is a bucketed folder
    with RunLock(run.path):
        remove_left_scratch(run.path)
        with scratch_folder(run.path) as scratch:
            log, in_words = _read(source, open_buckets(source.path), scratch, passes)
            logger.info(in_words)
            return learn_from_parts(run, log, in_words)[0]


def why_whole(config: Config) -> str | None:
    """Return why a log in buckets has to be read as a whole; None if it does not."""
    kind = config.reward.kind
    return None if kind == DidReward.name else f"rewards of the kind {kind!r} are fitted to all users at once"


def _read(source: HistoryConfig, buckets: Buckets, scratch: Path, passes: Passes) -> tuple[LogParts, str]:
    """Read every bucket once and keep its columns in a folder; return them as parts of a log, and what they hold."""
    read = partial(_read_bucket, source=source, scratch=scratch)
    found = list(passes.run(read, buckets.paths, "reading buckets"))
    folders = tuple(scratch / path.name for path in buckets.paths)
    shared = read_columns(folders[0])
    shared = shared.select_users(np.zeros(shared.n_users, dtype=bool))
    log = LogParts(
        parts=folders,
        shared=shared,
        user_keys=np.concatenate([each.user_keys for each in found]),
        observed_from=np.concatenate([each.observed_from for each in found]),
        decisions=sum(each.decisions for each in found),
        first_decision=min(each.first_decision for each in found),
        # Those of a log in memory, where the buckets are unions of them.
        leaves=DEFAULT_LEAVES if DEFAULT_LEAVES % buckets.n == 0 else buckets.leaves,
        by_value=buckets.manifest.numbered,
        passes=passes,
        scratch=scratch,
    )
    users = f"{counted(len(log.user_keys), 'user')} in {counted(len(found), 'bucket')}"
    rows = log.decisions, sum(each.sent for each in found), sum(each.events for each in found)
    line = log_in_words(shared.name, users, *rows, len(shared.event_names), shared.span)
    return log, "\n".join((line, *shared.notes))


@dataclass(frozen=True)
class _Found:
    """What reading a bucket tells of its users (U,) and rows."""

    user_keys: UIntArray
    observed_from: IntArray
    decisions: int
    sent: int
    events: int
    first_decision: int


def _read_bucket(path: Path, source: HistoryConfig, scratch: Path) -> _Found:
    """Read a bucket, and keep its columns below a folder."""
    history = with_declared(read_bucket(path, source.decided), source)
    write_columns(history, scratch / path.name, decides=True)
    d = history.decisions
    return _Found(
        user_keys=history.user_keys,
        observed_from=history.observed_from,
        decisions=len(d),
        sent=int(history.modules.sends(d.actions).sum()),
        events=len(history.events),
        first_decision=int(d.time.min(initial=NEVER)),
    )
