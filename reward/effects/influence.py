"""Influence functions of average effects: how much each user moves an estimate, through rewards and controls alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.measurement.outcomes import Outcomes, RewardSpec
from crosschannel.reward.odds import Odds

WITHOUT_CONTROLS = ("raw", "change")
WITH_CONTROLS = ("did", "did_regression", "did_dr")
WITHOUT_INFLUENCE = "the reward kind {!r} has no influence function: its average effects have no error"


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
      where :math:`\bar d` is what imbalance the odds leave and e the regression's residual; and, where odds (or the
      choice of action, see `Odds`) are estimated, the influence of the logistic regression,
      :math:`-\bar q^\top H^{-1} x_l (D_l - p_l)` with :math:`\bar q = \sum_c s_c \sum_j \dot w_j r_j x_j / W_c`
      and :math:`\dot w` the derivative of w by the regression's score.

    So the error of the controls' means, slopes and propensities is in every interval. With cross-fitting, residuals
    are those of users who were not fitted on, which is the same in large logs and a little wider in small ones.
    Liang & Zeger (1986), "Longitudinal data analysis using generalized linear models", Biometrika; Sant'Anna & Zhao
    (2020), "Doubly robust difference-in-differences estimators", Journal of Econometrics, theorems 1 and A.1.

    Cells are those of the level that gave each decision its reward; the parts of all levels add up.

    Attributes:
        reward: Rewards (n,); 0 where there is none.
        user: User codes (n,).
        stake: How much each decision counts for in a mean: `Outcomes.stake` (n,).
        users: Length of the result: one more than the largest user code.
        level: Level of each decision's cell (n,).
        levels: What the rewards of each level depend on.
    """

    reward: FloatArray
    user: IntArray
    stake: FloatArray
    users: int
    level: IntArray
    levels: tuple[LevelInfluence, ...]

    @classmethod
    def of(
        cls,
        kind: str,
        outcomes: Outcomes,
        spec: RewardSpec,
        frame: RewardFrame,
        by_level: Sequence[FloatArray],
        odds: Odds | None = None,
    ) -> Influences:
        """Prepares the influence functions of a reward kind.

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
            stake=outcomes.stake,
            level=frame.level,
            levels=tuple(LevelInfluence.of(kind, outcomes, outcomes.cells(level), r, odds) for level, r in levels),
        )

    def by_user(self, group: IntArray) -> FloatArray:
        """Influence of every user (U,) on the mean reward over the decisions `group` (n1,): the error is its sum."""
        stake = self.stake[group] / self.stake[group].sum()
        own = self.reward[group] - stake @ self.reward[group]
        total: FloatArray = np.bincount(self.user[group], own * stake, self.users).astype(np.float64)
        for code, level in enumerate(self.levels):
            here = self.level[group] == code
            if here.any():
                total = total - level.by_user(group[here], stake[here], self.user, self.users)
        return total

    def controls_of(self, group: IntArray) -> IntArray:
        """The controls that the rewards of a group rest on, each once."""
        found = [level.controls_of(group[self.level[group] == code]) for code, level in enumerate(self.levels)]
        return np.unique(np.concatenate(found)) if found else group[:0]


@dataclass(frozen=True)
class LevelInfluence:
    """What the rewards from cells of one level depend on.

    Attributes:
        place: Cell of each decision as a code below C (n,).
        row: The controls (m,).
        pull: What one unit of a cell's share weighs on each control (m,).
        covariates: Covariates (n, p), or of no column.
        centre: What `covariates` of the group are compared with, by cell (C, p).
        slope: Influence of each control on the slopes (m, p).
        chance: Influence of a cell's share on the propensity's coefficients (C, 1 + p), or of no column.
        score_row: The decisions that the propensity was fitted on (l,).
        score: Their influence on its coefficients (l, 1 + p), or of no column.
    """

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
    def of(cls, kind: str, outcomes: Outcomes, cell: IntArray, reward: FloatArray, odds: Odds | None) -> LevelInfluence:
        """Prepares it from cells (n,), the rewards (n,) that they give, and the odds of a doubly robust kind."""
        cells, place = np.unique(cell, return_inverse=True)
        row = np.flatnonzero(outcomes.control & ~np.isnan(reward))
        c, r, stake = place[row], reward[row], outcomes.stake[row]
        n = np.bincount(c, stake, len(cells))
        n = np.where(n > 0, n, 1.0)
        plain = cls(
            place=place,
            row=row,
            pull=stake * r / n[c],
            covariates=np.zeros((len(outcomes), 0)),
            centre=np.zeros((len(cells), 0)),
            slope=np.zeros((len(row), 0)),
            chance=np.zeros((len(cells), 0)),
            score_row=row[:0],
            score=np.zeros((0, 0)),
        )
        if kind == "did":
            return plain

        x = outcomes.covariates
        centre = cell_sums(stake[:, None] * x[row], c, len(cells)) / n[:, None]
        inner = x[row] - centre[c]
        weighted = stake[:, None] * inner
        solved = weighted @ np.linalg.pinv(inner.T @ weighted, rcond=1e-12, hermitian=True)
        if odds is None:
            return replace(plain, covariates=x, centre=centre, slope=solved * r[:, None])
        # The correction of did_dr is the same for all of a cell, so the cell's mean reward takes it out again.
        residual = r - (np.bincount(c, stake * r, len(cells)) / n)[c]
        weight = odds.value[row] * stake
        share = weight / np.bincount(c, weight, len(cells))[c]
        return replace(
            plain,
            pull=r * share,
            covariates=x,
            centre=cell_sums(share[:, None] * x[row], c, len(cells)),
            slope=solved * residual[:, None],
            chance=cell_sums((share * r * odds.steepness[row])[:, None] * odds.design[row], c, len(cells)),
            score_row=odds.row,
            score=odds.score,
        )

    def by_user(self, group: IntArray, weight: FloatArray, user: IntArray, users: int) -> FloatArray:
        """What the controls of a group take from a mean of rewards with weights (n1,) for the group, by user (U,)."""
        share = np.bincount(self.place[group], weight, len(self.centre))
        through = share[self.place[self.row]] * self.pull
        if self.slope.shape[1]:
            through = through + self.slope @ (weight @ self.covariates[group] - share @ self.centre)
        total = np.bincount(user[self.row], through, users)
        if self.score.shape[1]:
            total = total + np.bincount(user[self.score_row], self.score @ (share @ self.chance), users)
        return np.asarray(total)

    def controls_of(self, group: IntArray) -> IntArray:
        """The controls in the cells of a group."""
        share = np.bincount(self.place[group], minlength=len(self.centre))
        return self.row[share[self.place[self.row]] > 0]


def cell_sums(values: FloatArray, cell: IntArray, cells: int) -> FloatArray:
    """Sums of the columns of values (m, p) by cell code (m,), as (C, p)."""
    if values.shape[1] == 0:
        return np.zeros((cells, 0))
    return np.stack([np.bincount(cell, column, cells) for column in values.T], axis=1)
