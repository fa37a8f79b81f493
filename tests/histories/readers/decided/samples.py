"""Write the decisions of a history's days into a folder by date, as `decide` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.histories import History
from crosschannel.histories.readers.decided.days import ARMS_FILE, DECISIONS_FILE, SUMMARY_FILE, day_name


def write_days(history: History, folder: Path, times: Sequence[int], arms: np.ndarray, period: int) -> pd.DataFrame:
    """Write the decisions at some times of all users who are not in business as usual; return them as one table."""
    d, frame = history.decisions, history.decisions_frame()
    parts = []
    for time in times:
        day = folder / day_name(int(time), period)
        day.mkdir(parents=True)
        mine = frame[(d.time == time) & (arms[d.user] != "business_as_usual")]
        parts.append(mine.assign(policy="0123456789ab", arm=arms[d.user[mine.index]]))
        parts[-1].to_parquet(day / DECISIONS_FILE, index=False)
        pd.DataFrame({"user_id": history.user_ids, "arm": arms}).to_parquet(day / ARMS_FILE, index=False)
        (day / SUMMARY_FILE).write_text("{}")
    return pd.concat(parts)
