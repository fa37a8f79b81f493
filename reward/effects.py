"""Average effects on the treated, by calendar cell and by action, with user-clustered errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from histories.history import History
from histories.modules import BoolArray, FloatArray, IntArray
from histories.times import duration, timestamps
from reward.controls import CellMeans
from reward.inference import Z95
from reward.outcomes import Outcomes, RewardSpec, measure


@dataclass(frozen=True)
class Effect:
    """An average effect on the treated.

    Attributes:
        label: Of whom.
        value: The effect, in reward units per decision; NaN where it is not identified.
        se: Its user-clustered standard error.
        n_treated: Sent decisions that it averages.
        n_controls: Controls that it is compared with.
        n_without: Sent decisions of the group that have no reward and are left out.
    """

    label: str
    value: float
    se: float
    n_treated: int
    n_controls: int
    n_without: int = 0

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - Z95 * self.se

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value + Z95 * self.se


def average_effect(outcomes: Outcomes, spec: RewardSpec, group: BoolArray, label: str) -> Effect:
    r"""DiD estimate of the average effect on the treated decisions of a group.

    .. math:: \widehat{ATT} = \sum_c \frac{n_{1c}}{n_1} (\bar\Delta_{1c} - \bar\Delta_{0c})

    over calendar cells c, with :math:`\bar\Delta_{1c}` the mean change of the group's treated decisions and
    :math:`\bar\Delta_{0c}` that of the controls. The error adds up each user's influence, so that decisions of
    one user may be dependent: Liang & Zeger (1986), "Longitudinal data analysis using generalized linear models".
    """
    return _effect(outcomes.change, outcomes, spec, group, label)


def difference_in_means(outcomes: Outcomes, spec: RewardSpec, group: BoolArray, label: str) -> Effect:
    r"""The same with the post window alone: treated minus controls of the cell, as if treatment were random."""
    return _effect(outcomes.post, outcomes, spec, group, label)


def _effect(values: FloatArray, outcomes: Outcomes, spec: RewardSpec, group: BoolArray, label: str) -> Effect:
    c = np.flatnonzero(outcomes.control)
    controls = CellMeans.of(values[c], outcomes.cell[c], None)
    n_in_cell, mean, _ = controls.look_up(outcomes.cell)
    wanted = group & outcomes.treated
    usable = wanted & outcomes.observed & (n_in_cell >= spec.min_controls)
    if spec.overlap == "exclude":
        usable &= ~outcomes.overlap
    t = np.flatnonzero(usable)
    without = int(wanted.sum()) - len(t)
    if len(t) < 2:
        return Effect(label, float("nan"), float("nan"), len(t), 0, without)
    reward = values[t] - mean[t]
    value = float(reward.mean())

    # A control's influence: its share of the cell's mean, times how much of the group lies in that cell.
    treated_in_cell = np.zeros(len(controls.cell))
    np.add.at(treated_in_cell, np.searchsorted(controls.cell, outcomes.cell[t]), 1.0)
    place = np.searchsorted(controls.cell, outcomes.cell[c])
    pull = treated_in_cell[place] / controls.n[place] / len(t)
    influence = np.concatenate([(reward - value) / len(t), -pull * (values[c] - controls.mean[place])])
    by_user = np.bincount(np.concatenate([outcomes.user[t], outcomes.user[c]]), weights=influence)
    n_users = len(np.unique(np.concatenate([outcomes.user[t], outcomes.user[c[pull > 0]]])))
    se = float(np.sqrt((by_user**2).sum() * n_users / max(n_users - 1, 1)))
    return Effect(label, value, se, len(t), int((pull > 0).sum()), without)


def effects_by_cell(outcomes: Outcomes, spec: RewardSpec) -> list[Effect]:
    """One effect for each calendar cell in which something was sent."""
    cells = np.unique(outcomes.cell[outcomes.treated])
    names = timestamps(cells * duration(spec.cell)).dt.strftime("%Y-%m-%d %H:%M")
    return [
        average_effect(outcomes, spec, outcomes.cell == cell, name) for cell, name in zip(cells, names, strict=True)
    ]


def effects_by_action(outcomes: Outcomes, spec: RewardSpec, history: History, module: str) -> list[Effect]:
    """One effect for each action of a module that was ever sent, against the controls of the same cells."""
    m = history.modules.names.index(module)
    actions: IntArray = outcomes.actions[:, m]
    return [
        average_effect(outcomes, spec, outcomes.treated & (actions == code), name)
        for code, name in enumerate(history.modules[m].actions)
        if (outcomes.treated & (actions == code)).any()
    ]


def effects_table(history: History, spec: RewardSpec) -> pd.DataFrame:
    """Average effects over all, by cell and by action of each module, as a table."""
    outcomes = measure(history, spec)
    parts = [("all", [average_effect(outcomes, spec, outcomes.treated, "all")])]
    parts.append(("cell", effects_by_cell(outcomes, spec)))
    parts += [(m.name, effects_by_action(outcomes, spec, history, m.name)) for m in history.modules]
    return pd.DataFrame(
        [
            {
                "by": by,
                "label": e.label,
                "effect": e.value,
                "se": e.se,
                "low": e.low,
                "high": e.high,
                "n_treated": e.n_treated,
                "n_controls": e.n_controls,
                "n_without": e.n_without,
            }
            for by, effects in parts
            for e in effects
        ]
    )
