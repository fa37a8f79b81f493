"""Calibration of a funnel's predictions by the rewards of all messages, and their combination."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import scipy  # it imports scipy.optimize on first use, so that a program's help does not wait for it
import torch
from torch import Tensor

from crosschannel.agents.funnel.regression import ROUNDING_RIDGE
from crosschannel.agents.funnel.rows import FOLDS
from crosschannel.agents.funnel.sums import ROWS_PER_CHUNK

#: Prior standard deviation of the weights and of the scale.
PRIOR_SD = 0.5
#: Smallest noise as a share of the predictions' mean square, and where all of them are 0.
MIN_NOISE_SHARE, TINY = 1e-12, 1e-300
#: Predictions that vary by less than this share of their mean square, rounding, have no slope.
ROUNDING = 1e-12
#: Users below which the slope has no standard error.
MIN_USERS = 20
#: The columns whose products are summed over messages.
COLUMNS = ("one", "reward", "value", "judged", "funnel", "missed", "all_sends", "cost")
#: Those whose products with the context are summed as well: the value, and the two that predict it.
CHOOSING = ("value", "funnel", "all_sends")
#: Those whose sums for each user are: 1, rewards y, the judged values f less costs, f y and f f.
USER_COLUMNS = 5


@dataclass(frozen=True)
class Predictions:
    """What is predicted of n messages by models that have not learned from their users.

    Attributes:
        judged: The funnel's values without costs, with prior variances of which these users know nothing either, and
            with all that is personal about actions' effects (n,).
        funnel: The funnel's values with what is personal by its weight (n,).
        missed: What the goals are beyond their surrogates, by the funnel and with what is personal by its weight (n,).
        all_sends: The values by the regression of all sends, with what is personal by its weight (n,).
        cost: The expected price of their cost events (n,).
    """

    judged: Tensor
    funnel: Tensor
    missed: Tensor
    all_sends: Tensor
    cost: Tensor


@dataclass(frozen=True)
class JudgedMessages:
    """What happened after n messages, and what was predicted of it.

    Attributes:
        common: The common features of their contexts, a constant first (n, base).
        reward: Their rewards, costs included (n,).
        value: Their values (n,).
        user: Codes of their users (n,).
        fold: Half of the users that each belongs to (n,).
        predictions: What was predicted of them.
    """

    common: Tensor
    reward: Tensor
    value: Tensor
    user: Tensor
    fold: Tensor
    predictions: Predictions


@dataclass(frozen=True)
class Blend:
    r"""How much the value of a message follows the funnel, and how much the regression of all sends.

    .. math:: v_i = w_1 f_i + w_2 q_i + \psi(x_i)^\top \beta + e_i, \qquad
        r_i + c_i = k \, \frac{w_1 (f_i + s m_i) + w_2 q_i}{w_1 + w_2} + u_i

    over messages, with values v, rewards r and expected costs c, and with predictions f by the funnel, q by the
    regression of all sends, and m by the funnel of what the goals are beyond their surrogates, for each half of the
    users by what the other half taught. The first line decides between f and q by the differences between actions, on
    which choices rest: the common features of the context, with coefficients of their own in each half, take out what
    all messages share. That is the larger part of both, and would hide which of them tells actions apart. Values have
    less noise than rewards, and choosing is all that surrogates may do here. The second line sets the scale, by
    rewards. Weights and scale are at least 0, with :math:`w_1, w_2 \sim N(1/2, \tau^2)` and
    :math:`k \sim N(1, \tau^2)`: a log that does not tell takes half of each. The assumption is that values are right on
    average given context and action (`reward.did_dr`); neither line asks who engaged. So where the funnel's assumptions
    fail, the regression of all sends takes its place.

    Two weights are found before: that of what surrogates miss, by :math:`r_i + c_i - v_i = s m_i + e_i` with
    :math:`s \sim N(0, \tau^2)` from 0 to 1, 0 where surrogates hold; and that of what is personal about the choice
    between actions, by the value of the policies that follow it (`personal_weight`).

    Attributes:
        funnel: Weight of the funnel's value, scale included.
        all_sends: Weight of the value by the regression of all sends, scale included.
        slope: Slope of the rewards on the funnel's value with costs, :math:`f - c`, before any weight and within each
            half of the users, with prior variances by the other half as well: 1 if all that the funnel assumes holds,
            surrogates included, and 0 on average where messages do nothing; NaN where predictions do not differ.
        slope_se: Its standard error, which counts a user's rows as one; NaN with fewer than `MIN_USERS` users.
        intercept: Mean of the rewards less the slope times that of the funnel's value with costs.
        missed: Weight of what surrogates miss, within the funnel's value.
        personal: Weight of how the actions' effects differ by context.
    """

    funnel: float = 1.0
    all_sends: float = 0.0
    slope: float = math.nan
    slope_se: float = math.nan
    intercept: float = math.nan
    missed: float = 0.0
    personal: float = 1.0

    def to_dict(self) -> dict[str, float | None]:
        """Return the weights as plain values; None where a figure is not identified."""
        return {f.name: None if math.isnan(value := getattr(self, f.name)) else value for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, float | None]) -> Blend:
        """Restore what `to_dict` returned."""
        return cls(**{name: math.nan if value is None else value for name, value in data.items()})


@dataclass(frozen=True)
class BlendSums:
    """Sums over messages from which all weights of a `Blend` follow; they add up over users.

    Attributes:
        products: Products of `COLUMNS`, by half of the users (2, 8, 8).
        by_user: Products of each user's sums of 1, y, f, f y and f f, with rewards y and the judged values f less
            costs, by half (2, 5, 5).
        users: Number of users in each half (2,).
        contexts: Products of the common features of the context, by half (2, base, base).
        with_contexts: Products of these with `CHOOSING`, by half (2, base, 3).
    """

    products: Tensor
    by_user: Tensor
    users: Tensor
    contexts: Tensor
    with_contexts: Tensor

    @classmethod
    def zeros(cls, base: int) -> BlendSums:
        """Return the sums of no message, with a number of common features of the context."""
        shapes = (len(COLUMNS), len(COLUMNS)), (USER_COLUMNS, USER_COLUMNS), (), (base, base), (base, len(CHOOSING))
        return cls(*(torch.zeros(FOLDS, *shape, dtype=torch.float64) for shape in shapes))

    @classmethod
    def from_messages(cls, base: int, blocks: Iterable[JudgedMessages]) -> BlendSums:
        """Sum messages, with a number of common features of the context; all messages of their users are among them."""
        out = cls.zeros(base)
        of_user, codes, folds = list[Tensor](), list[Tensor](), list[Tensor]()
        chosen = [COLUMNS.index(name) for name in CHOOSING]
        for block in blocks:
            parts = [getattr(block.predictions, part.name) for part in fields(Predictions)]
            table = torch.stack([torch.ones_like(block.reward), block.reward, block.value, *parts], 1).double()
            y, net = table[:, 1], table[:, COLUMNS.index("judged")] - table[:, COLUMNS.index("cost")]
            of_user.append(torch.stack([table[:, 0], y, net, net * y, net * net], 1))
            codes.append(block.user)
            folds.append(block.fold)
            for half in range(FOLDS):
                for rows in torch.split((block.fold == half).nonzero()[:, 0], ROWS_PER_CHUNK):
                    mine, common = table[rows], block.common[rows].double()
                    out.products[half] += mine.t() @ mine
                    out.contexts[half] += common.t() @ common
                    out.with_contexts[half] += common.t() @ mine[:, chosen]
        if codes:
            each, user, fold = torch.cat(of_user), torch.cat(codes), torch.cat(folds)
            for half in range(FOLDS):
                found, code = torch.unique(user[fold == half], return_inverse=True)
                sums = torch.zeros(len(found), USER_COLUMNS, dtype=torch.float64)
                sums.index_add_(0, code, each[fold == half])
                out.by_user[half] = sums.t() @ sums
                out.users[half] = len(found)
        return out

    def __add__(self, other: BlendSums) -> BlendSums:
        return BlendSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def blend(self, personal: float) -> Blend:
        """Return the weights, given that of what is personal, with which the predictions were made."""
        _, y, v, _, f, m, q, c = torch.eye(len(COLUMNS), dtype=torch.float64).unbind()
        first, second = self._shares()
        missed = min(max(self._weight(y + c - v, m, 0.0), 0.0), 1.0)
        scale = max(self._weight(y + c, first * (f + missed * m) + second * q, 1.0), 0.0)
        slope, error, intercept = self._line()
        return Blend(
            funnel=scale * first,
            all_sends=scale * second,
            slope=slope,
            slope_se=error,
            intercept=intercept,
            missed=missed,
            personal=personal,
        )

    def _shares(self) -> tuple[float, float]:
        """Return the shares of the funnel and of the regression of all sends, by differences between actions."""
        at = [COLUMNS.index(name) for name in CHOOSING]
        within = torch.zeros(len(at), len(at), dtype=torch.float64)
        for half in range(FOLDS):  # coefficients of its own: those of both would hold the other's predictions
            gram, moment = self.contexts[half], self.with_contexts[half]
            ridge = ROUNDING_RIDGE * gram.diagonal().clamp_min(TINY).diag()
            within += self.products[half][at][:, at] - moment.t() @ torch.linalg.solve(gram + ridge, moment)
        total = self.products.sum(0).diagonal()[at]
        difference = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
        if not float(difference @ within @ difference) > ROUNDING * float(total[1:].sum()):
            return 1.0, 0.0  # they are the same, as where nothing tells who engages
        noise = max(float(within[0, 0]), MIN_NOISE_SHARE * float(total.sum())) / self._rows()
        ridge = noise / PRIOR_SD**2 * torch.eye(2, dtype=torch.float64)
        first, second = nonnegative(within[1:, 1:] + ridge, within[1:, 0] + 0.5 * ridge.sum(1))
        return (first / (first + second), second / (first + second)) if first + second > 0.0 else (0.5, 0.5)

    def _line(self) -> tuple[float, float, float]:
        """Return the slope of the rewards on the funnel's values with costs, its standard error, and the intercept.

        Each half has a mean of its own. What is predicted of it rests on the mean of the other half, so that with one
        mean for both the noise of their difference would count against the predictions, and more than once.
        """
        one, y, _, f, *_, c = torch.eye(len(COLUMNS), dtype=torch.float64).unbind()
        columns = torch.stack([one, y, f - c])
        sums = columns @ self.products @ columns.t()
        rows = sums[:, 0, 0].clamp_min(1.0)
        means = sums[:, 0] / rows[:, None]
        within = (sums - rows[:, None, None] * means[:, :, None] * means[:, None, :]).sum(0)
        if not float(within[2, 2]) > ROUNDING * float(sums[:, 2, 2].sum()):
            return math.nan, math.nan, math.nan
        slope = float(within[1, 2] / within[2, 2])
        total = sums[:, 0].sum(0)
        intercept = float((total[1] - slope * total[2]) / total[0])
        users, square = float(self.users.sum()), 0.0
        for (_, mean_y, mean_f), products in zip(means.tolist(), self.by_user, strict=True):
            level = mean_y - slope * mean_f
            score = torch.tensor([mean_f * level, -mean_f, slope * mean_f - level, 1.0, -slope], dtype=torch.float64)
            square += float(score @ products @ score)
        error = math.sqrt(max(square, 0.0) * users / (users - 1.0)) / float(within[2, 2])
        return slope, error if users >= MIN_USERS else math.nan, intercept

    def _product(self, left: Tensor, right: Tensor) -> float:
        return float(left @ self.products.sum(0) @ right)

    def _rows(self) -> float:
        return max(float(self.products[:, 0, 0].sum()), 1.0)

    def _weight(self, target: Tensor, part: Tensor, expected: float) -> float:
        """Return the weight with which a part explains a target, drawn to an expected one by `PRIOR_SD`."""
        rest = target - expected * part
        noise = max(self._product(rest, rest) / self._rows(), TINY)
        ridge = noise / PRIOR_SD**2
        return expected + self._product(part, rest) / (self._product(part, part) + ridge)


def nonnegative(gram: Tensor, moment: Tensor) -> tuple[float, float]:
    """Return the minimum of a quadratic form in weights of at least 0; a negative one would turn a value around."""
    size = gram.diagonal().max()  # in units of its own: the solver's tolerance is in none
    root = torch.linalg.cholesky(gram / size)
    target = torch.linalg.solve_triangular(root, (moment / size).unsqueeze(1), upper=False)[:, 0]
    first, second = scipy.optimize.nnls(root.t().numpy(), target.numpy())[0]
    return float(first), float(second)
