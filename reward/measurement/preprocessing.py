"""What is learned from a training history in order to measure every other history in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.times import duration
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.fixed_point import fit_bits, unit_of
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.values.attributes import attribute_text
from crosschannel.histories.windows import Timeline
from crosschannel.reward.measurement.amounts import window_amounts
from crosschannel.reward.measurement.limits import Windows, fit_limits
from crosschannel.reward.measurement.seasonality import PopulationSeasonality
from crosschannel.reward.spec import RewardSpec

# `FittedPreprocessing.closes_at` where nothing was learned from windows: earlier than every time.
NO_WINDOWS_USED = np.iinfo(np.int64).min


@dataclass(frozen=True)
class FittedPreprocessing:
    """Fitted once on a training history, and then applied as it is to other histories and in a bootstrap.

    Attributes:
        largest: An upper bound of the amount of each goal in a window of any user (G,): it determines the scales of
            exact sums. See `histories.fixed_point`.
        limits: The largest amount of each goal (G,): its clip, its learned winsor quantile, or infinity.
        edges: Quantiles of past activity between the strata, ascending (s,); empty without strata.
        attribute_values: The known combinations of `Matching.within`; None without them.
        seasonality: The population's level by block of time; None without `RewardSpec.seasonality`.
        features: Covariates of the adjusted kinds; None without them.
        closes_at: When the last window that limits and edges were learned from closes, or the last decision whose
            context covariates were fitted on, microseconds; `NO_WINDOWS_USED` where none was learned. No reward
            measured with them is available before.
    """

    largest: FloatArray
    limits: FloatArray
    edges: FloatArray
    attribute_values: pd.MultiIndex | None
    seasonality: PopulationSeasonality | None
    features: ContextFeatures | None
    closes_at: int

    @classmethod
    def fit(
        cls,
        history: History,
        spec: RewardSpec,
        windows: Windows,
        observed: BoolArray,
        activity: FloatArray,
        largest: FloatArray,
        *,
        adjust: bool,
    ) -> FittedPreprocessing:
        """Learn from the decisions (n,) of a history whose windows were `observed`.

        Args:
            history: The training history.
            spec: What is measured.
            windows: The windows around its decisions.
            observed: Whether both windows of each decision were observed, and none was cut too short (n,).
            activity: Past activity of each decision's user (n,); NaN where it was not observed.
            largest: The largest amounts of its goals (G,).
            adjust: Whether covariates are fitted.

        Raises:
            ConfigError: If the spec names an event, an attribute or an arm that the history does not have.
            NotIdentified: If nobody is held out, and the controls are those who are.
        """
        if spec.controls == "holdout":
            _check_arms(history, spec.holdout_arms)
        closes_at = NO_WINDOWS_USED
        if spec.learns_from_amounts:
            closes_at = int((history.decisions.time + windows.post)[observed].max(initial=closes_at))
        if adjust:
            # Covariates are scaled by the contexts of all decisions, also of those without a reward.
            closes_at = int(history.decisions.time.max(initial=closes_at))
        bits = [fit_bits(amount) for amount in largest]
        return cls(
            largest=largest,
            limits=fit_limits(spec.goals, bits, history, windows, np.flatnonzero(observed)),
            edges=_stratum_edges(activity[observed], spec.matching.strata),
            attribute_values=_attribute_values(history, spec.matching.within),
            seasonality=(
                None
                if spec.seasonality is None
                else PopulationSeasonality.fit(history, spec.goals, bits, duration(spec.seasonality))
            ),
            features=ContextFeatures.fit(history, spec.covariates) if adjust else None,
            closes_at=closes_at,
        )

    @property
    def bits(self) -> list[int]:
        """Binary places of each goal's exact sums (G,)."""
        return [fit_bits(amount) for amount in self.largest]

    def unit(self, spec: RewardSpec) -> float:
        """Return a power of two near the largest reward, in which exact sums of rewards are kept."""
        ratio = max(1.0, duration(spec.post) / duration(spec.pre))
        goals = zip(spec.goals, self.largest, strict=True)
        return unit_of([abs(goal.weight) * float(amount) * ratio for goal, amount in goals])

    @property
    def n_attribute_values(self) -> int:
        """Number of known combinations of attribute values; 1 without attributes."""
        return 1 if self.attribute_values is None else len(self.attribute_values)

    @property
    def n_strata(self) -> int:
        """Number of strata of past activity."""
        return len(self.edges) + 1

    def attribute_codes(self, history: History, names: Sequence[str]) -> IntArray:
        """Return codes of the users' attribute values (U,); -1 where the training history had no such user."""
        if self.attribute_values is None:
            return np.zeros(history.n_users, dtype=np.int64)
        return np.asarray(self.attribute_values.get_indexer(_attribute_table(history, names)), dtype=np.int64)

    def stratum(self, activity: FloatArray) -> IntArray:
        """Return the strata (n,) of past activity (n,); -1 where it is not known."""
        return np.where(np.isnan(activity), -1, np.searchsorted(self.edges, activity)).astype(np.int64)


def past_activity(
    history: History, goals: Sequence[Goal], bits: Sequence[int], end: IntArray, length: int
) -> FloatArray:
    """Return the goal value in `[end - length, end)` (n,), with uniform credit; NaN where not observed."""
    d = history.decisions
    timeline = Timeline(history.events.time, history.event_offsets)
    rows = timeline.before(d.user, end - length), timeline.before(d.user, end)
    total = np.zeros(len(d))
    for goal, places in zip(goals, bits, strict=True):
        unlimited = Goal(goal.event, goal.weight, measure=goal.measure)
        total += goal.weight * window_amounts(unlimited, places, history, d.time, rows)[0]
    return np.where(end - length >= history.observed_from[d.user], total, np.nan)


def in_arms(history: History, arms: Sequence[str]) -> BoolArray:
    """Return which decisions belong to the named experiment arms (n,); none where the history has no arms."""
    if history.decisions.arm is None:
        return np.zeros(len(history.decisions), dtype=bool)
    codes, names = history.arm_codes
    return np.asarray(np.isin(names, list(arms))[codes])


def _check_arms(history: History, arms: Sequence[str]) -> None:
    """Refuse a history in which nobody is held out.

    Raises:
        NotIdentified: If no decision has an arm, as before a policy decides by arms.
        ConfigError: If decisions have arms, and the named ones are not among them.
    """
    known = set() if history.decisions.arm is None else set(history.arm_codes[1]) - {str(None)}
    if not known:
        raise NotIdentified(
            f"no decision of {history.name} has an arm (column `arm`), and `controls: holdout` compares with those of "
            f"{', '.join(arms)}: hold users out first, or choose other `reward.controls`"
        )
    if absent := sorted(set(arms) - known):
        raise ConfigError(
            f"{history.name} has no arms {absent} to hold out: name in `reward.holdout_arms` one of {sorted(known)}"
        )


def _stratum_edges(activity: FloatArray, strata: int) -> FloatArray:
    """Return the quantiles (strata - 1,) of the known past activities."""
    known = activity[~np.isnan(activity)]
    if not len(known):
        return np.zeros(0)
    # Always one of the values themselves, so that nothing depends on rounding.
    levels = [j / strata for j in range(1, strata)]
    return np.asarray(np.quantile(known, levels, method="inverted_cdf"), dtype=np.float64)


def _attribute_values(history: History, names: Sequence[str]) -> pd.MultiIndex | None:
    """Return the distinct combinations of attributes among a history's users; None without attributes."""
    # Sorted, so that codes, and with them the order of cells, do not depend on who comes first.
    return _attribute_table(history, names).unique().sort_values() if names else None


def _attribute_table(history: History, names: Sequence[str]) -> pd.MultiIndex:
    columns = [] if history.users is None else [name for name in history.users.columns if name != "user_id"]
    if history.users is None or (unknown := sorted(set(names) - set(columns))):
        missing = sorted(names) if history.users is None else unknown
        raise ConfigError(f"the users of {history.name} have no attributes {missing}; they have {sorted(columns)}")
    return pd.MultiIndex.from_arrays([attribute_text(history.users[name]) for name in names], names=list(names))
