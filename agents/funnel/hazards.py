"""Hazards of cost events: log-linear regressions by a fixed number of Newton passes over the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.regression import MAX_STEPS, MIN_VARIANCE, Posterior, fit_known_noise, refit
from crosschannel.agents.funnel.sums import DesignStatistics, RunningSums

NEWTON_PASSES = 4
#: Rows whose working response is in memory at once.
ROWS_PER_RESPONSE = 1 << 14
#: Prior variance of a block of columns from which learning starts.
GUESSED_VARIANCE = 0.05
STEPS_PER_PASS = 2
#: Events for each slope of the cells' effects from which these are learned.
EVENTS_PER_SLOPE = 1
#: Events that the prior counts as: it keeps the hazard of an event that never occurred next to 0, and certain of that.
PRIOR_EVENTS = 0.5
#: Standard errors by which the weight of what is personal lies below its estimate.
CAUTION = 1.0
#: Log hazards between which the linearised likelihood is taken.
LOWEST, HIGHEST = -14.0, -0.5


@dataclass(frozen=True)
class HazardFit:
    """A fitted hazard, to which later rows can be added: they have the working response of its last pass.

    Attributes:
        working: Coefficients of the log hazard at which the likelihood is taken (columns,).
        centre: Mean of the prior of the common intercept.
        sums: Sums of the working response.
        variance: Prior variances of the blocks (blocks,).
        slopes: Whether the cells' effects vary with the context.
        personal: Weight of how hazards differ by context, from 0 to 1; see `confirmed_weight`.
    """

    working: Tensor
    centre: float
    sums: DesignStatistics
    variance: Tensor
    slopes: bool
    personal: float = 1.0

    def solve(self, design: Design) -> Posterior:
        """Return the coefficients of the log hazard that follow from the sums."""
        found = refit(design, self.sums, self.variance, 1.0)
        found.mean[0] += self.centre
        return found

    def followed(self, design: Design, coefficients: Tensor) -> Tensor:
        """Return coefficients (columns,), or (V, columns) the best estimate first, with what is personal by its weight.

        The intercept moves so that the rows keep their expected number of events by the best estimate, up to the third
        order of what is taken away, whose mean and variance are those by hazard. It moves the others by the same
        variance, so that members still average to the best estimate.
        """
        if self.personal == 1.0 or self.sums.rows == 0:
            return coefficients
        gram = (self.sums.gram / self.sums.gram[0, 0]).to(coefficients.dtype)
        away = (1.0 - self.personal) * torch.where(design.contexts, coefficients, 0.0)
        best = away if away.ndim == 1 else away[0]
        variance = best @ gram @ best - (best @ gram[0]).square()
        found = coefficients - away
        found[..., 0] += away @ gram[0] - variance / 2.0
        return found

    def with_rows(self, design: Design, x: Tensor, cells: Tensor, event: Tensor) -> HazardFit:
        """Return the fit with more rows: contexts (n, D), cells (n, M) and whether the event occurred (n,).

        Sums have the precision of `event`, to which a chunk of rows is converted at a time.
        """
        return replace(self, sums=self.sums + self._sums(design, x, cells, event))

    def _sums(self, design: Design, x: Tensor, cells: Tensor, event: Tensor) -> DesignStatistics:
        total = RunningSums.zeros(design, 1)
        for start in range(0, len(x), ROWS_PER_RESPONSE):
            rows = slice(start, start + ROWS_PER_RESPONSE)
            part = x[rows].to(event.dtype), cells[rows]
            total.add(design, *part, *self.response(design, *part, event[rows]))
        return total.statistics()

    def response(self, design: Design, x: Tensor, cells: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
        """Return the working response (n, 1) of rows and their weights (n,)."""
        eta = predict(design, self.working, x, cells).clamp(LOWEST, HIGHEST)
        rate = eta.exp()
        response = eta - self.centre + (event - rate) / rate
        return response.unsqueeze(1), rate

    def state_dict(self) -> dict[str, Any]:
        """Return the fit as tensors and plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"sums": self.sums.state_dict()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> HazardFit:
        """Restore what `state_dict` returned."""
        sums = DesignStatistics.from_state_dict(state["sums"])
        working, variance = state["working"].clone(), state["variance"].clone()
        return cls(
            working=working,
            centre=float(state["centre"]),
            sums=sums,
            variance=variance,
            slopes=bool(state["slopes"]),
            personal=float(state["personal"]),
        )


def prior_centre(events: float, rows: int) -> float:
    """Return the mean log hazard at which the prior of the common intercept is centred."""
    return float(torch.log((torch.tensor(events) + PRIOR_EVENTS) / (rows + 1.0))) if rows else LOWEST


def fit_hazard(design: Design, x: Tensor, cells: Tensor, event: Tensor, fold: Tensor) -> HazardFit:
    r"""Fit the hazard of an event per message.

    .. math:: \log h = \psi(x)^\top \beta + \sum_m \varphi(x)^\top \theta_{m, a_m}

    by Fisher scoring of the Poisson likelihood (Nelder & Wedderburn 1972, "Generalized linear models", JRSS A): each
    pass is a regression of the working response with weights that are fixed by the pass before, and so a sum over rows.
    The hazard is log-linear, because what doubles it (a channel, too many messages) does so for everybody; so a
    cell's effect varies with the context only from `EVENTS_PER_SLOPE` on: events are few, and a policy sends where
    hazards look low, so that slopes that follow the noise understate what it causes. The prior of the common
    intercept is centred at the mean hazard and counts as `PRIOR_EVENTS`; without any rows the hazard is the lowest
    that there is, as nothing says that the event can occur.

    Args:
        design: The columns.
        x: Contexts (n, D) of rows in which something was sent.
        cells: Each module's cell (n, M).
        event: 1 where the event occurred, otherwise 0 (n,).
        fold: Half of the users that each row belongs to (n,).
    """
    start = before_last_pass(design, x, cells, event, float(event.sum()), len(x))
    halves = [start.with_rows(design, x[half], cells[half], event[half]).sums for half in (fold == 0, fold == 1)]
    return finish_fit(design, start, halves)


def before_last_pass(design: Design, x: Tensor, cells: Tensor, event: Tensor, events: float, rows: int) -> HazardFit:
    """Return the fit of `fit_hazard` as it enters its last pass: the working point, and no rows.

    Args:
        design: The columns.
        x: Contexts (n, D) of the rows, or of a sample of them.
        cells: Each module's cell (n, M).
        event: 1 where the event occurred, otherwise 0 (n,), in the precision of the sums.
        events: Number of events in all rows.
        rows: Number of all rows.
    """
    # An action's slopes count once: most that is told of it holds for all that it is conditioned on.
    centre, slopes = prior_centre(events, rows), events >= EVENTS_PER_SLOPE * design.modules.total * (design.each - 1)
    working = torch.zeros(design.columns, dtype=torch.float64)
    working[0] = centre
    empty = DesignStatistics.empty(design.columns, 1)
    found = HazardFit(
        working=working, centre=centre, sums=empty, variance=_first_variance(design, slopes), slopes=slopes
    )
    for _ in range(NEWTON_PASSES - 1):
        found, working = finish_pass(design, found.with_rows(design, x, cells, event))
        found = replace(found, working=working, sums=empty)
    return found


def _first_variance(design: Design, slopes: bool) -> Tensor:
    variance = torch.full((design.blocks,), GUESSED_VARIANCE, dtype=torch.float64)
    if not slopes:
        variance[design.slopes] = MIN_VARIANCE
    return variance


def finish_pass(design: Design, found: HazardFit) -> tuple[HazardFit, Tensor]:
    """Return the fit with the prior variances that its sums say, and the coefficients that follow (columns,)."""
    held = None if found.slopes else design.slopes
    posterior = fit_known_noise(
        design, found.sums, GUESSED_VARIANCE, found.variance, STEPS_PER_PASS, 1.0 / PRIOR_EVENTS, held
    )
    posterior.mean[0] += found.centre
    return replace(found, variance=posterior.variance), posterior.mean


def finish_fit(design: Design, start: HazardFit, halves: Sequence[DesignStatistics]) -> HazardFit:
    """Return the fit by its last pass, from where it enters that pass and the sums of each half of the users."""
    found, _ = finish_pass(design, replace(start, sums=reduce(add, halves)))
    return replace(found, personal=confirmed_weight(design, found, halves))


def confirmed_weight(design: Design, found: HazardFit, halves: Sequence[DesignStatistics]) -> float:
    r"""Return how much of the differences of hazards by context to follow, as far as other users confirm them.

    .. math:: \log h = \delta + \phi_0^\top \theta_{-f} + s \, \phi_1^\top \theta_{-f}

    for the users of each half f, with coefficients and prior variances by what the other half taught and
    :math:`\phi_1` the columns that vary with the context: s by weighted least squares of the working response, whose
    variance is known, so that the sums tell it. Each half is predicted by the other, so that both say the same but for
    their weights: the variance of s is that of one half. It is taken less `CAUTION` standard errors (the rule of
    Breiman, Friedman, Olshen & Stone 1984, "Classification and regression trees"), between 0 and 1: learned prior
    variances follow a little noise, and a policy sends again and again where a hazard looks low, so that a difference
    that is not there costs more than one that is overlooked. It is not without cost: with some 70 events the weight is
    mostly 0, and the policy then overlooks that those it chooses have larger hazards (docs/constraints.md). That is
    the weight of what one half taught; what all users taught deserves `weight_of_whole` of it. The assumption is that
    hazards differ alike in both halves.

    Given what the other half taught, s has no bias but for the working point, which is that of all rows: with as many
    columns as events it is .1 to .2 too high where nothing differs.

    Args:
        design: The columns.
        found: The fit by all rows.
        halves: Sums of each half of the users.
    """
    held = None if found.slopes else design.slopes
    start = _first_variance(design, found.slopes)
    gram, moment = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for own, other in zip(halves, reversed(halves), strict=True):
        head = fit_known_noise(design, other, GUESSED_VARIANCE, start, MAX_STEPS, 1.0 / PRIOR_EVENTS, held).mean
        personal = torch.where(design.contexts, head, 0.0)
        unexplained = own.moment[:, 0] - own.gram @ (head - personal)
        columns = torch.stack([torch.eye(1, len(head), dtype=torch.float64)[0], personal])
        gram, moment = gram + columns @ own.gram @ columns.t(), moment + columns @ unexplained
    information = float(gram[1, 1] - gram[0, 1].square() / gram[0, 0])
    if not information > 0.0:
        return 0.0  # none of the halves has rows, or sees a difference
    slope = float(moment[1] - gram[0, 1] * moment[0] / gram[0, 0]) / information
    return weight_of_whole(min(max(slope - CAUTION * math.sqrt(2.0 / information), 0.0), 1.0))


def weight_of_whole(of_half: float) -> float:
    r"""Return the weight of an estimate from all users, given that of an estimate from half of them, from 0 to 1.

    .. math:: w = \frac{\tau^2}{\tau^2 + \sigma^2}, \qquad
        \frac{\tau^2}{\tau^2 + \sigma^2 / 2} = \frac{2 w}{1 + w}

    Halves see the truth, of variance :math:`\tau^2`, each with noise of its own, of variance :math:`\sigma^2`. The best
    multiple of a half's estimate is the slope w of the truth on it. It is also the slope of the other half, whose noise
    has nothing to do with it, and as both vary alike their correlation: the reliability of a half. The whole has half
    of the noise's variance (Spearman 1910, "Correlation calculated from faulty data"; Brown 1910, "Some experimental
    results in the correlation of mental abilities", British Journal of Psychology 3). The assumption is that priors
    shrink a half as much as the whole; where a prior shrinks a half to :math:`\lambda` of itself and the whole less,
    the weight is :math:`s (1 + \lambda) / (1 + s \lambda)` for the slope s, from s to the above.
    """
    return 2.0 * of_half / (1.0 + of_half)


def predict(design: Design, coefficients: Tensor, x: Tensor, cells: Tensor) -> Tensor:
    """Return what coefficients (columns,) predict (n,) at contexts (n, D), given each module's cell (n, M)."""
    head = coefficients.to(x.dtype)
    out = design.common(x) @ head[: design.base]
    own = design.of_cells(x)
    for m, (start, count) in enumerate(zip(design.starts, design.cells, strict=True)):
        table = own @ head[start : start + count * design.each].view(count, design.each).t()
        out += table.gather(1, cells[:, m : m + 1])[:, 0]
    return out
