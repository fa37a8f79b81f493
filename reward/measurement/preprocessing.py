"""The gauge: what is learned of a training history in order to measure every other one alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.windows import Timeline
from crosschannel.reward.measurement.amounts import window_amounts
from crosschannel.reward.measurement.seasonality import Population


@dataclass(frozen=True)
class Gauge:
    """Learned once from a training history and then kept, also inside a bootstrap.

    Attributes:
        limits: The largest amount of each goal (G,): its clip, its learned winsor quantile, or infinity.
        edges: Quantiles of past activity between the strata, ascending (s,); empty without strata.
        values: The known combinations of `Matching.within`, for codes; None without them.
        rhythm: The population's level by block of time; None without a rhythm.
        features: Covariates of the adjusted kinds; None without them.
        closes: When the last window that limits and edges were learned from closes, microseconds; the smallest integer
            where neither was learned. No reward that was measured with them is available before.
    """

    limits: FloatArray
    edges: FloatArray
    values: pd.MultiIndex | None
    rhythm: Population | None
    features: ContextFeatures | None
    closes: int

    def within(self, history: History, names: Sequence[str]) -> IntArray:
        """Codes of the users' attribute values (U,); -1 where the training history had no such user."""
        if self.values is None:
            return np.zeros(history.n_users, dtype=np.int64)
        return np.asarray(self.values.get_indexer(_table(history, names)), dtype=np.int64)

    def stratum(self, activity: FloatArray) -> IntArray:
        """Strata (n,) of past activity (n,); -1 where it is not known."""
        return np.where(np.isnan(activity), -1, np.searchsorted(self.edges, activity)).astype(np.int64)


def learn_edges(activity: FloatArray, strata: int) -> FloatArray:
    """Quantiles (strata - 1,) of the known past activities."""
    known = activity[~np.isnan(activity)]
    return _quantiles(known, [j / strata for j in range(1, strata)]) if len(known) else np.zeros(0)


def learn_values(history: History, names: Sequence[str]) -> pd.MultiIndex | None:
    """The distinct combinations of attributes among a history's users.

    Raises:
        ConfigError: If the users have no such attribute.
    """
    # Sorted, so that codes, and with them the order of cells, do not depend on who comes first.
    return _table(history, names).unique().sort_values() if names else None


def past_activity(history: History, goals: Sequence[Goal], pre: int, length: int) -> FloatArray:
    """Goal value in `[t - pre - length, t - pre)` (n,), with uniform credit; NaN where that was not observed."""
    d = history.decisions
    timeline = Timeline(history.events.time, history.event_offsets)
    rows = timeline.before(d.user, d.time - pre - length), timeline.before(d.user, d.time - pre)
    total = np.zeros(len(d))
    for goal in goals:
        plain = Goal(goal.event, goal.weight, goal.measure)
        total += goal.weight * window_amounts(plain, history, d.time, rows)[0]
    return np.where(d.time - pre - length >= history.span[0], total, np.nan)


def in_arms(history: History, arms: Sequence[str], *, learning: bool) -> BoolArray:
    """Which decisions belong to the named experiment arms (n,).

    Raises:
        ConfigError: If the history that is learned from has no arms, or not these.
    """
    arm = history.decisions.arm
    if arm is None:
        if learning:
            raise ConfigError(
                f"{history.name} has no column `arm`, but `controls: holdout` needs it: choose other controls"
            )
        return np.zeros(len(history.decisions), dtype=bool)
    text: npt.NDArray[np.str_] = np.asarray(arm).astype(str)
    if learning and (absent := sorted(set(arms) - set(np.unique(text).tolist()))):
        raise ConfigError(f"{history.name} has no arms {absent} to hold out; it has {np.unique(text).tolist()}")
    return np.isin(text, list(arms))


def _quantiles(values: FloatArray, levels: Sequence[float]) -> FloatArray:
    # Always one of the values themselves, so that nothing depends on rounding.
    return np.asarray(np.quantile(values, levels, method="inverted_cdf"), dtype=np.float64)


def _table(history: History, names: Sequence[str]) -> pd.MultiIndex:
    columns = [] if history.users is None else [name for name in history.users.columns if name != "user_id"]
    if history.users is None or (unknown := sorted(set(names) - set(columns))):
        missing = sorted(names) if history.users is None else unknown
        raise ConfigError(f"the users of {history.name} have no attributes {missing}; they have {sorted(columns)}")
    return pd.MultiIndex.from_arrays([_texts(history.users[name]) for name in names], names=list(names))


def _texts(column: pd.Series) -> npt.NDArray[np.str_]:
    # Numbers by value: a column that lacks some is read as floating-point, and 3 must stay equal to 3.0.
    numeric = pd.api.types.is_numeric_dtype(column)
    values = column.to_numpy(dtype=np.float64, na_value=np.nan) if numeric else column.to_numpy(dtype=object)
    return np.asarray(values).astype(str)
