"""Effects under staggered adoption: group-time effects and their aggregations, after Callaway & Sant'Anna (2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.reward.effects.inference import JointTest, cluster_sums, clustered_se, joint_test, student_quantile

NEVER = np.iinfo(np.int64).max
# With fewer observed units on either side an entry is left out: their variance cannot be estimated.
MIN_UNITS = 5
ControlGroup = Literal["never", "not_yet"]
Aggregation = Literal["simple", "dynamic", "group", "calendar"]


@dataclass(frozen=True)
class Panel:
    """Outcomes of U units over T periods, each unit treated from some period on, or never.

    Attributes:
        outcome: Outcomes (U, T); NaN where a unit is not observed.
        period: The periods, ascending (T,).
        first: First treated period of each unit (U,), or `NEVER`.
        cluster: Cluster codes of the units (U,); by default each unit is a cluster.
    """

    outcome: FloatArray
    period: IntArray
    first: IntArray
    cluster: IntArray | None = None

    @classmethod
    def from_long(cls, table: pd.DataFrame, unit: str, period: str, outcome: str, first: str) -> Panel:
        """Build a panel from one row per unit and period; `first` is 0, missing or infinite for units never treated.

        Raises:
            ConfigError: If a unit lacks a period, has one twice, or changes its first treated period.
        """
        wide = table.pivot_table(index=unit, columns=period, values=outcome, aggfunc=["mean", "size"])
        if wide["size"].isna().to_numpy().any() or (wide["size"] != 1).to_numpy().any():
            raise ConfigError(f"the panel is not balanced: every {unit} needs each {period} exactly once")
        starts = table.groupby(unit)[first].agg(["min", "max"]).reindex(wide.index)
        if not starts["min"].equals(starts["max"]):
            raise ConfigError(f"a {unit} has more than one value of {first}: treatment must not change its start")
        value = starts["min"].to_numpy(dtype=np.float64, na_value=np.inf)
        never = ~np.isfinite(value) | (value <= 0)
        start = np.where(never, 0, value).astype(np.int64)
        return cls(
            wide["mean"].to_numpy(dtype=np.float64),
            wide["mean"].columns.to_numpy(dtype=np.int64),
            np.where(never, NEVER, start),
        )


@dataclass(frozen=True)
class Estimate:
    """An estimate with its influence function.

    Attributes:
        label: What is estimated: an event time, a group, a period or `overall`.
        value: The estimate.
        se: Its cluster-robust standard error.
        influence: Influence of each unit (U,): the error is its mean.
        n_clusters: Clusters on the smaller side, treated or controls: few of them widen the interval.
    """

    label: str
    value: float
    se: float
    influence: FloatArray
    n_clusters: int

    @property
    def low(self) -> float:
        """Lower end of the pointwise 95 % interval, by Student's t with one degree of freedom less than clusters."""
        return self.value - student_quantile(max(self.n_clusters - 1, 1)) * self.se

    @property
    def high(self) -> float:
        """Upper end of the pointwise 95 % interval."""
        return self.value + student_quantile(max(self.n_clusters - 1, 1)) * self.se


@dataclass(frozen=True)
class GroupTimeEffects:
    """Average effects of each treatment group in each period.

    Attributes:
        group: First treated period of each entry (k,).
        period: Period of each entry (k,).
        att: Effects (k,); before treatment they are pre-trends.
        influence: Influence functions (U, k).
        cluster: Cluster codes (U,).
        share: Share of each entry's group among all units (k,).
        first: First treated period of each unit (U,).
        n_treated: Clusters of the treated units of each entry (k,).
        n_controls: Clusters of its controls (k,).
        n_small: Entries left out because fewer than `MIN_UNITS` units were observed on one side.
    """

    group: IntArray
    period: IntArray
    att: FloatArray
    influence: FloatArray
    cluster: IntArray
    share: FloatArray
    first: IntArray
    n_treated: IntArray
    n_controls: IntArray
    n_small: int = 0

    def smaller_side(self, rows: BoolArray) -> int:
        """Return the clusters on the smaller side of some entries (k,): groups are apart, controls largely the same."""
        treated = sum(int(self.n_treated[rows & (self.group == g)].max()) for g in np.unique(self.group[rows]))
        return min(treated, int(self.n_controls[rows].max(initial=0)))

    @property
    def se(self) -> FloatArray:
        """Cluster-robust standard errors (k,)."""
        return clustered_se(self.influence, self.cluster)

    @property
    def margin(self) -> FloatArray:
        """Half of each entry's pointwise 95 % interval (k,), by Student's t as in `Estimate.low`."""
        smaller = np.minimum(self.n_treated, self.n_controls)
        return np.asarray(self.se * np.array([student_quantile(max(n - 1, 1)) for n in smaller.tolist()]))

    def pre_trends(self) -> JointTest:
        """Test jointly that all effects before treatment are 0."""
        before = self.period < self.group
        return self.joint(self.att[before], self.influence[:, before])

    def joint(self, value: FloatArray, influence: FloatArray) -> JointTest:
        """Test jointly that estimates (k,) with influence functions (U, k) are all 0."""
        return joint_test(value, cluster_sums(influence, self.cluster) / len(influence))

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per entry."""
        return pd.DataFrame({"group": self.group, "period": self.period, "att": self.att, "se": self.se})


def group_time_effects(panel: Panel, control: ControlGroup = "never") -> GroupTimeEffects:
    r"""Estimate the effect of every group g in every period t.

    .. math:: ATT(g,t) = E[Y_t - Y_b | G = g] - E[Y_t - Y_b | C]

    with base period b = g - 1 for t >= g and b = t - 1 before, and controls C that are never treated, or not yet
    at t (nor at b). Assumes parallel trends between g and C, and no anticipation. Units that are not observed at both b
    and t are not part of an entry: if missingness depends on what they were about to do, the entry is about the others.
    Callaway & Sant'Anna (2021), "Difference-in-differences with multiple time periods", Journal of Econometrics.

    Raises:
        NotIdentified: If there is no group with a period before it and with controls.
    """
    n = len(panel.first)
    treated_from = panel.first
    groups = [g for g in np.unique(treated_from) if g != NEVER and g > panel.period[0] and g <= panel.period[-1]]
    cluster = np.arange(n) if panel.cluster is None else panel.cluster
    entries: list[tuple[int, int, float, FloatArray, float, int, int]] = []
    small = 0
    for g in groups:
        place = int(np.searchsorted(panel.period, g))
        for t in range(1, len(panel.period)):
            base = place - 1 if t >= place else t - 1
            change = panel.outcome[:, t] - panel.outcome[:, base]
            seen = ~np.isnan(change)
            mine = (treated_from == g) & seen
            controls = _controls(panel, int(g), t, base, control) & seen
            if min(mine.sum(), controls.sum()) < MIN_UNITS:
                small += 1
                continue
            change = np.where(seen, change, 0.0)
            treated_mean, control_mean = change[mine].mean(), change[controls].mean()
            influence = n * (
                mine * (change - treated_mean) / mine.sum() - controls * (change - control_mean) / controls.sum()
            )
            share_ = (treated_from == g).mean()
            att, (n1, n0) = treated_mean - control_mean, (len(np.unique(cluster[side])) for side in (mine, controls))
            entries.append((int(g), int(panel.period[t]), att, influence, share_, n1, n0))
    if not entries:
        raise NotIdentified(
            f"no treatment group has a period before its treatment and {MIN_UNITS} observed units and controls"
        )
    g_, t_, att_, influence_, share, n_treated, n_controls = zip(*entries, strict=True)
    return GroupTimeEffects(
        group=np.array(g_),
        period=np.array(t_),
        att=np.array(att_),
        influence=np.stack(influence_, axis=1),
        cluster=cluster,
        share=np.array(share),
        first=treated_from,
        n_treated=np.array(n_treated),
        n_controls=np.array(n_controls),
        n_small=small,
    )


def _controls(panel: Panel, g: int, t: int, base: int, control: ControlGroup) -> BoolArray:
    if control == "never":
        return np.asarray(panel.first == NEVER)
    latest = panel.period[max(t, base)]
    return np.asarray((panel.first > latest) & (panel.first != g))


def aggregate(effects: GroupTimeEffects, how: Aggregation) -> tuple[Estimate, list[Estimate]]:
    r"""Average the group-time effects; return the overall effect, and the entries that it averages.

    With :math:`P_g` the share of group g and sums over treated entries (t >= g) only:

    - `simple`: :math:`\sum_{g,t} P_g ATT(g,t) / \sum_{g,t} P_g`, without entries;
    - `dynamic`: entry e averages ATT(g, g+e) with weights :math:`P_g`; overall is the mean over e >= 0. Entries
      with e < 0 are pre-trends;
    - `group`: entry g is the mean of ATT(g,t) over t; overall weights them by :math:`P_g`;
    - `calendar`: entry t averages ATT(g,t) over g <= t with weights :math:`P_g`; overall is the mean over t.

    The error of the estimated shares is part of each influence function. Callaway & Sant'Anna (2021), section 3.
    """
    after = effects.period >= effects.group
    if how == "simple":
        return _weighted(effects, after, "overall"), []
    if how == "dynamic":
        entries = _entries(effects, effects.period - effects.group, np.ones(len(after), dtype=bool))
        after_treatment = [entry for entry in entries if int(entry.label) >= 0]
        return _mean(effects, after_treatment, after), entries
    if how == "calendar":
        entries = _entries(effects, effects.period, after)
        return _mean(effects, entries, after), entries
    groups = np.unique(effects.group[after])
    entries = [_unweighted(effects, after & (effects.group == g), str(g)) for g in groups]
    share = np.array([effects.share[effects.group == g][0] for g in groups])
    value = np.array([entry.value for entry in entries])
    weight = share / share.sum()
    influence = np.stack([entry.influence for entry in entries], axis=1) @ weight
    influence = influence + _share_influence(effects, groups, share) @ value
    return _estimate(effects, "overall", float(weight @ value), influence, after), entries


def _entries(effects: GroupTimeEffects, key: IntArray, rows: BoolArray) -> list[Estimate]:
    return [_weighted(effects, rows & (key == k), str(k)) for k in np.unique(key[rows])]


def _unweighted(effects: GroupTimeEffects, rows: BoolArray, label: str) -> Estimate:
    return _estimate(effects, label, float(effects.att[rows].mean()), effects.influence[:, rows].mean(1), rows)


def _weighted(effects: GroupTimeEffects, rows: BoolArray, label: str) -> Estimate:
    share, att = effects.share[rows], effects.att[rows]
    weight = share / share.sum()
    influence = effects.influence[:, rows] @ weight + _share_influence(effects, effects.group[rows], share) @ att
    return _estimate(effects, label, float(weight @ att), influence, rows)


def _share_influence(effects: GroupTimeEffects, group: IntArray, share: FloatArray) -> FloatArray:
    """Return the influence of each unit (U, k) on the weights `share / sum(share)`, which are estimated too."""
    deviation = (effects.first[:, None] == group[None, :]) - share[None, :]
    total = share.sum()
    return np.asarray(deviation / total - deviation.sum(1, keepdims=True) * share[None, :] / total**2)


def _mean(effects: GroupTimeEffects, entries: Sequence[Estimate], rows: BoolArray) -> Estimate:
    if not entries:
        raise NotIdentified("there is no period after treatment: no overall effect")
    influence = np.mean([entry.influence for entry in entries], axis=0)
    return _estimate(effects, "overall", float(np.mean([entry.value for entry in entries])), influence, rows)


def _estimate(effects: GroupTimeEffects, label: str, value: float, influence: FloatArray, rows: BoolArray) -> Estimate:
    """Return an estimate that averages some entries (k,)."""
    return Estimate(
        label=label,
        value=value,
        se=float(clustered_se(influence[:, None], effects.cluster)[0]),
        influence=influence,
        n_clusters=effects.smaller_side(rows),
    )
