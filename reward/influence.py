"""Influence functions of average effects: how much each user moves an estimate, through rewards and controls alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from histories.errors import ConfigError
from histories.modules import BoolArray, FloatArray, IntArray
from reward.adjusted import LARGEST_PROPENSITY, sending_probability
from reward.outcomes import Outcomes, RewardSpec

WITHOUT_CONTROLS = ("raw", "change")


@dataclass(frozen=True)
class Influences:
    r"""What an average of rewards over a group of treated decisions depends on, beside those decisions.

    The influence of user u on :math:`\hat\theta = n_1^{-1} \sum_{i \in g} r_i` adds up over the user's decisions, with
    :math:`s_c = n_{gc} / n_1` the share of the group in cell c:

    - own part (all kinds): :math:`(r_i - \hat\theta) / n_1` for i in g;
    - `did`: :math:`-s_c r_j / n_c` for every control j of cell c;
    - `did_regression`: :math:`-(s_c / n_c + \bar d^\top S^{-1} \tilde x_j) r_j`, where :math:`\tilde x` are the
      covariates less their mean over the cell's controls, :math:`S = \sum_j \tilde x_j \tilde x_j^\top` and
      :math:`\bar d` is the mean of :math:`\tilde x_i` over the group;
    - `did_dr`: :math:`-s_c w_j r_j / W_c` with odds w and their sum W; :math:`-\bar d^\top S^{-1} \tilde x_j e_j`,
      where :math:`\bar d` is what imbalance the odds leave and e the regression's residual; and, where the propensity
      is estimated, the influence of the logistic regression, :math:`-\bar q^\top H^{-1} x_l (D_l - p_l)` with
      :math:`\bar q = \sum_c s_c \sum_j w_j r_j x_j / W_c`.

    So the error of the controls' means, slopes and propensities is in every interval. With cross-fitting, residuals
    are those of users who were not fitted on, which is the same in large logs and a little wider in small ones.
    Liang & Zeger (1986), "Longitudinal data analysis using generalized linear models", Biometrika; Sant'Anna & Zhao
    (2020), "Doubly robust difference-in-differences estimators", Journal of Econometrics, theorems 1 and A.1.

    Attributes:
        reward: Rewards (n,); 0 where there is none.
        user: User codes (n,).
        users: Length of the result: one more than the largest user code.
        place: Cell of each decision as a code below C (n,).
        row: The controls (m,).
        pull: What one unit of a cell's share weighs on each control (m,).
        covariates: Covariates (n, p), or of no column.
        centre: What `covariates` of the group are compared with, by cell (C, p).
        slope: Influence of each control on the slopes (m, p).
        chance: Influence of the cell's share on the propensity's coefficients (C, 1 + p), or of no row.
        score_row: The decisions that the propensity was fitted on (l,).
        score: Their influence on its coefficients (l, 1 + p).
    """

    reward: FloatArray
    user: IntArray
    users: int
    place: IntArray
    row: IntArray
    pull: FloatArray
    covariates: FloatArray
    centre: FloatArray
    slope: FloatArray
    chance: FloatArray
    score_row: IntArray
    score: FloatArray

    @classmethod
    def of(cls, kind: str, outcomes: Outcomes, spec: RewardSpec, reward: FloatArray) -> Influences:
        """Prepares the influence functions of a reward kind, from its rewards (n,) on the outcomes it was fitted on.

        Raises:
            ConfigError: If the kind has none.
        """
        cells, place = np.unique(outcomes.cell, return_inverse=True)
        known = ~np.isnan(reward)
        reward = np.where(known, reward, 0.0)
        row = np.flatnonzero(outcomes.control & known)
        if kind in WITHOUT_CONTROLS:
            row = row[:0]
        c = place[row]
        n = np.maximum(np.bincount(c, minlength=len(cells)), 1).astype(np.float64)
        plain = cls(
            reward=reward,
            user=outcomes.user,
            users=int(outcomes.user.max(initial=-1)) + 1,
            place=place,
            row=row,
            pull=reward[row] / n[c],
            covariates=np.zeros((len(outcomes), 0)),
            centre=np.zeros((len(cells), 0)),
            slope=np.zeros((len(row), 0)),
            chance=np.zeros((len(cells), 0)),
            score_row=row[:0],
            score=np.zeros((0, 0)),
        )
        if kind in (*WITHOUT_CONTROLS, "did"):
            return plain
        if kind not in ("did_regression", "did_dr"):
            raise ConfigError(f"the reward kind {kind!r} has no influence function: its average effects have no error")

        x = outcomes.covariates
        centre = cell_sums(x[row], c, len(cells)) / n[:, None]
        inner = x[row] - centre[c]
        solved = inner @ np.linalg.pinv(inner.T @ inner, rcond=1e-12, hermitian=True)
        if kind == "did_regression":
            return replace(plain, covariates=x, centre=centre, slope=solved * reward[row, None])
        # The correction of did_dr is the same for all of a cell, so the cell's mean reward takes it out again.
        residual = reward[row] - (np.bincount(c, reward[row], len(cells)) / n)[c]
        p = sending_probability(outcomes, np.ones(len(outcomes)), spec.folds)
        capped = np.minimum(p[row], LARGEST_PROPENSITY)
        odds = capped / (1.0 - capped)
        share = odds / np.bincount(c, odds, len(cells))[c]
        robust = replace(
            plain,
            pull=reward[row] * share,
            covariates=x,
            centre=cell_sums(share[:, None] * x[row], c, len(cells)),
            slope=solved * residual[:, None],
        )
        if not np.isnan(outcomes.p_nothing[outcomes.control]).any():
            return robust
        fitted = np.flatnonzero(outcomes.observed & (outcomes.treated | outcomes.control))
        design = np.concatenate([np.ones((len(outcomes), 1)), x], axis=1)
        moving = share * reward[row] * (p[row] < LARGEST_PROPENSITY)
        inside, q = design[fitted], p[fitted]
        curvature = (inside * (q * (1.0 - q))[:, None]).T @ inside
        return replace(
            robust,
            chance=cell_sums(moving[:, None] * design[row], c, len(cells)),
            score_row=fitted,
            score=inside
            @ np.linalg.pinv(curvature, rcond=1e-12, hermitian=True)
            * (outcomes.treated[fitted] - q)[:, None],
        )

    def by_user(self, group: IntArray) -> FloatArray:
        """Influence of every user (U,) on the mean reward over the decisions `group` (n1,): the error is its sum."""
        n1 = len(group)
        own = self.reward[group] - self.reward[group].mean()
        total = np.bincount(self.user[group], own / n1, self.users)
        if len(self.row):
            share = np.bincount(self.place[group], minlength=len(self.centre)) / n1
            through = share[self.place[self.row]] * self.pull
            if self.slope.shape[1]:
                imbalance = self.covariates[group].mean(0) - share @ self.centre
                through = through + self.slope @ imbalance
            total -= np.bincount(self.user[self.row], through, self.users)
            if len(self.score):
                total -= np.bincount(self.user[self.score_row], self.score @ (share @ self.chance), self.users)
        return np.asarray(total)

    def controls_of(self, group: IntArray) -> BoolArray:
        """Which of the controls `row` lie in a cell of the group (m,)."""
        share = np.bincount(self.place[group], minlength=len(self.centre))
        return np.asarray(share[self.place[self.row]] > 0)


def cell_sums(values: FloatArray, cell: IntArray, cells: int) -> FloatArray:
    """Sums of the columns of values (m, p) by cell code (m,), as (C, p)."""
    if values.shape[1] == 0:
        return np.zeros((cells, 0))
    return np.stack([np.bincount(cell, column, cells) for column in values.T], axis=1)
