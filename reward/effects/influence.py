"""Influence functions of average effects: how much each user moves an estimate, through rewards and controls alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.odds import Odds
from crosschannel.reward.spec import RewardSpec

WITHOUT_CONTROLS = ("raw", "change")
WITH_CONTROLS = ("did", "did_regression", "did_dr")
WITHOUT_INFLUENCE = "the reward kind {!r} has no influence function: its average effects have no error"


@dataclass(frozen=True)
class Influences:
    r"""The influence of users on an average of rewards over a group of treated decisions.

    The influence of user u on :math:`\hat\theta = n_1^{-1} \sum_{i \in g} r_i` adds up over the user's decisions, with
    :math:`s_c = n_{gc} / n_1` the share of the group in cell c:

    - own part (all kinds): :math:`(r_i - \hat\theta) / n_1` for i in g;
    - `did`: :math:`-s_c r_j / n_c` for every control j of cell c;
    - `did_regression`: :math:`-(s_c / n_c + \bar d^\top S^{-1} \tilde x_j) r_j`, where :math:`\tilde x` are the
      covariates less their mean over the cell's controls, :math:`S = \sum_j \tilde x_j \tilde x_j^\top` and
      :math:`\bar d` is the mean of :math:`\tilde x_i` over the group;
    - `did_dr`: :math:`-s_c w_j r_j / W_c` with odds w and their sum W; :math:`-\bar d^\top S^{-1} \tilde x_j e_j`,
      where :math:`\bar d` is the imbalance that the odds leave and e the regression's residual; and, where odds (or
      the choice of action, see `Odds`) are estimated, the influence of the logistic regression,
      :math:`-\bar q^\top H^{-1} x_l (D_l - p_l)` with :math:`\bar q = \sum_c s_c \sum_j \dot w_j r_j x_j / W_c`
      and :math:`\dot w` the derivative of w by the regression's score.

    So every interval includes the error of the controls' means, slopes and propensities. With cross-fitting, residuals
    are those of users who were not fitted on, which is the same in large logs and a little wider in small ones.
    Liang & Zeger (1986), "Longitudinal data analysis using generalized linear models", Biometrika; Sant'Anna & Zhao
    (2020), "Doubly robust difference-in-differences estimators", Journal of Econometrics, theorems 1 and A.1.

    Cells are those of the level that gave each decision its reward; the parts of all levels add up.

    Attributes:
        reward: Rewards (n,); 0 where there is none.
        user: User codes (n,).
        ipc_weight: Weight of each decision in a mean: `Outcomes.ipc_weight` (n,).
        users: Length of the result: one more than the largest user code.
        level: Level of each decision's cell (n,).
        levels: The influence of controls on the rewards of each level.
    """

    reward: FloatArray
    user: IntArray
    ipc_weight: FloatArray
    users: int
    level: IntArray
    levels: tuple[LevelInfluence, ...]

    @classmethod
    def build(
        cls,
        kind: str,
        outcomes: Outcomes,
        spec: RewardSpec,
        frame: RewardFrame,
        by_level: Sequence[FloatArray],
        odds: Odds | None = None,
    ) -> Influences:
        """Prepare the influence functions of a reward kind.

        Args:
            kind: The reward kind.
            outcomes: What it was fitted on (n decisions).
            spec: Its settings.
            frame: Its rewards.
            by_level: The rewards (n,) from cells of each level of `spec.matching` alone; NaN where there is none.
            odds: The odds that a doubly robust kind was fitted with.

        Raises:
            ConfigError: If the kind has no influence function.
        """
        if kind not in (*WITHOUT_CONTROLS, *WITH_CONTROLS):
            raise ConfigError(WITHOUT_INFLUENCE.format(kind))
        levels = [] if kind in WITHOUT_CONTROLS else zip(spec.matching.levels, by_level, strict=True)
        return cls(
            reward=np.where(frame.identified, frame.reward, 0.0),
            user=outcomes.user,
            users=int(outcomes.user.max(initial=-1)) + 1,
            ipc_weight=outcomes.ipc_weight,
            level=frame.level,
            levels=tuple(LevelInfluence.build(kind, outcomes, outcomes.cells(level), r, odds) for level, r in levels),
        )

    def by_user(self, group: IntArray) -> FloatArray:
        """Return the influence of every user (U,) on the mean reward over the decisions `group` (n1,).

        The estimate's error is its sum.
        """
        weight = self.ipc_weight[group] / self.ipc_weight[group].sum()
        own = self.reward[group] - weight @ self.reward[group]
        total: FloatArray = np.bincount(self.user[group], own * weight, self.users).astype(np.float64)
        for code, level in enumerate(self.levels):
            here = self.level[group] == code
            if here.any():
                total = total - level.by_user(group[here], weight[here], self.user, self.users)
        return total

    def controls_of(self, group: IntArray) -> IntArray:
        """Return the controls that the rewards of a group rest on, each once."""
        found = np.zeros(len(self.reward), dtype=bool)
        for code, level in enumerate(self.levels):
            found[level.controls_of(group[self.level[group] == code])] = True
        return np.flatnonzero(found)


@dataclass(frozen=True)
class LevelInfluence:
    """The influence of controls on the rewards from cells of one level.

    Attributes:
        cell: Cell of each decision as a code below C (n,).
        control: Rows of the controls (m,).
        mean: Influence of each control on its cell's mean (m,).
        covariates: Covariates (n, p); p is 0 without a regression.
        centre: Mean that the group's covariates are compared with, by cell (C, p).
        slope: Influence of each control on the slopes (m, p).
        propensity: Derivative of each cell's mean by the propensity's coefficients (C, 1 + p), or without columns.
        score_row: The decisions that the propensity was fitted on (l,).
        score: Their influence on its coefficients (l, 1 + p), or without columns.
    """

    cell: IntArray
    control: IntArray
    mean: FloatArray
    covariates: FloatArray
    centre: FloatArray
    slope: FloatArray
    propensity: FloatArray
    score_row: IntArray
    score: FloatArray

    @classmethod
    def build(
        cls, kind: str, outcomes: Outcomes, cell: IntArray, reward: FloatArray, odds: Odds | None
    ) -> LevelInfluence:
        """Prepare it from cells (n,), the rewards (n,) that they give, and the odds of a doubly robust kind."""
        cells, code = np.unique(cell, return_inverse=True)
        row = np.flatnonzero(outcomes.control & ~np.isnan(reward))
        c, r, ipc_weight = code[row], reward[row], outcomes.ipc_weight[row]
        n = np.bincount(c, ipc_weight, len(cells))
        n = np.where(n > 0, n, 1.0)
        plain = cls(
            cell=code,
            control=row,
            mean=ipc_weight * r / n[c],
            covariates=np.zeros((len(outcomes), 0)),
            centre=np.zeros((len(cells), 0)),
            slope=np.zeros((len(row), 0)),
            propensity=np.zeros((len(cells), 0)),
            score_row=row[:0],
            score=np.zeros((0, 0)),
        )
        if kind == "did":
            return plain

        x = outcomes.covariates
        centre = cell_sums(ipc_weight[:, None] * x[row], c, len(cells)) / n[:, None]
        inner = x[row] - centre[c]
        weighted = ipc_weight[:, None] * inner
        solved = weighted @ np.linalg.pinv(inner.T @ weighted, rcond=1e-12, hermitian=True)
        if odds is None:
            return replace(plain, covariates=x, centre=centre, slope=solved * r[:, None])
        # The correction of did_dr is the same for a whole cell, so subtracting the cell's mean reward removes it.
        residual = r - (np.bincount(c, ipc_weight * r, len(cells)) / n)[c]
        weight = odds.value[row] * ipc_weight
        share = weight / np.bincount(c, weight, len(cells))[c]
        return replace(
            plain,
            mean=r * share,
            covariates=x,
            centre=cell_sums(share[:, None] * x[row], c, len(cells)),
            slope=solved * residual[:, None],
            propensity=cell_sums((share * r * odds.score_derivative[row])[:, None] * odds.design[row], c, len(cells)),
            score_row=odds.row,
            score=odds.score,
        )

    def by_user(self, group: IntArray, weight: FloatArray, user: IntArray, users: int) -> FloatArray:
        """Return the influence of users (U,) through the controls of a group, whose mean has weights (n1,)."""
        share = np.bincount(self.cell[group], weight, len(self.centre))
        through = share[self.cell[self.control]] * self.mean
        if self.slope.shape[1]:
            through = through + self.slope @ (weight @ self.covariates[group] - share @ self.centre)
        total = np.bincount(user[self.control], through, users)
        if self.score.shape[1]:
            total = total + np.bincount(user[self.score_row], self.score @ (share @ self.propensity), users)
        return np.asarray(total)

    def controls_of(self, group: IntArray) -> IntArray:
        """Return the controls in the cells of a group."""
        share = np.bincount(self.cell[group], minlength=len(self.centre))
        return self.control[share[self.cell[self.control]] > 0]


def cell_sums(values: FloatArray, cell: IntArray, cells: int) -> FloatArray:
    """Sum the columns of values (m, p) by cell code (m,), as (C, p)."""
    if values.shape[1] == 0:
        return np.zeros((cells, 0))
    return np.stack([np.bincount(cell, column, cells) for column in values.T], axis=1)
