"""Decisions of several days after the last slot of a grid are not of one slot: an export ends before the next one."""

from __future__ import annotations

import pandas as pd

from tests.histories.readers.test_decided import POLICY_DAYS, read, write_log


def test_two_days_of_decisions_after_the_last_slot(tmp_path):
    write_log(tmp_path, pd.Timedelta("0h"))
    last = tmp_path / "decided" / f"{max(POLICY_DAYS)}.csv"
    frame = pd.read_csv(last)
    for later in range(4, 7):  # the log ends before
        times = pd.to_datetime(frame["time"], utc=True) + pd.Timedelta(days=later)
        ids = frame["decision_id"].astype(str) + f"-{later}"
        out = frame.assign(time=times, decision_id=ids)
        out.assign(**dict.fromkeys(["channel"], "none")).to_csv(
            tmp_path / "decided" / f"{max(POLICY_DAYS) + later}.csv", index=False
        )
    history = read("stream", tmp_path)
    assert len(history.decisions) > 0  # a second decision of one slot would be refused
