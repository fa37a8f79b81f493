"""Decisions by date that join a log in buckets: what is noted about them is about the whole log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crosschannel.core.times import DAY
from crosschannel.histories import read_history
from crosschannel.histories.buckets import open_buckets, write_buckets
from crosschannel.histories.buckets.merging import merge
from tests.histories.readers.decided.samples import write_days
from tests.histories.readers.decided.test_joining import some_arms, whole_log


def test_no_bucket_has_a_caution_that_counts_its_own_users_alone(tmp_path):
    """The first bucket's counts stood for all of them once the buckets were merged."""
    history = whole_log()
    d, times = history.decisions, np.unique(history.decisions.time)[-4:]
    write_days(history, tmp_path / "decided", times, some_arms(history), DAY)
    lost = np.isin(d.time, times) & (some_arms(history)[d.user] == "agent")
    p = np.where(lost[:, None], [0.7, 1.0], d.propensity)
    quiet = replace(d, actions=np.where(lost[:, None], 0, d.actions), propensity=p, joint=p.prod(1))
    write_buckets(replace(history, decisions=quiet), tmp_path / "buckets", 2)
    buckets = open_buckets(tmp_path / "buckets")
    parts = [buckets.read(path, tmp_path / "decided") for path in buckets.paths]
    assert len(parts) == 2
    assert {part.notes for part in parts} == {buckets.manifest.notes}
    whole = read_history(tmp_path / "buckets", tmp_path / "decided")
    merged = merge(parts, by_value=buckets.manifest.numbered)
    np.testing.assert_array_equal(merged.decisions.actions, whole.decisions.actions)
    assert not merged.cautions
    sent = history.modules.sends(d.actions) & np.isin(d.time, times)
    due = sent & (some_arms(history)[d.user] != "business_as_usual")
    (caution,) = whole.cautions
    assert caution.startswith(f"{(due & lost).sum()} of {due.sum()} decided messages")
