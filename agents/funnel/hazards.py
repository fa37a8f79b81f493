"""Hazards of cost events: log-linear regressions by a fixed number of Newton passes over the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.regression import MIN_VARIANCE, Posterior, fit_known_noise, refit
from crosschannel.agents.funnel.sums import ROWS_PER_CHUNK, DesignStatistics, RunningSums

NEWTON_PASSES = 4
GUESS = 0.05
STEPS_PER_PASS = 2
#: Events for each slope of the cells' effects from which these are learned.
EVENTS_PER_SLOPE = 1
#: Events that the prior counts as: it keeps the hazard of an event that never occurred next to 0, and certain of that.
PRIOR_EVENTS = 0.5
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
    """

    working: Tensor
    centre: float
    sums: DesignStatistics
    variance: Tensor
    slopes: bool

    def solve(self, design: Design) -> Posterior:
        """Return the coefficients of the log hazard that follow from the sums."""
        found = refit(design, self.sums, self.variance, 1.0)
        found.mean[0] += self.centre
        return found

    def with_rows(self, design: Design, x: Tensor, cells: Tensor, event: Tensor) -> HazardFit:
        """Return the fit with more rows: contexts (n, D), cells (n, M) and whether the event occurred (n,).

        Sums have the precision of `event`, to which a chunk of rows is converted at a time.
        """
        return replace(self, sums=self.sums + self._sums(design, x, cells, event))

    def _sums(self, design: Design, x: Tensor, cells: Tensor, event: Tensor) -> DesignStatistics:
        total = RunningSums.zeros(design, 1)
        for start in range(0, len(x), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
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
        return cls(working, float(state["centre"]), sums, variance, bool(state["slopes"]))


def prior_centre(events: float, rows: int) -> float:
    """Return the mean log hazard at which the prior of the common intercept is centred."""
    return float(torch.log((torch.tensor(events) + PRIOR_EVENTS) / (rows + 1.0))) if rows else LOWEST


def fit_hazard(design: Design, x: Tensor, cells: Tensor, event: Tensor) -> HazardFit:
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
    """
    start = before_last_pass(design, x, cells, event, float(event.sum()), len(x))
    return finish_pass(design, start.with_rows(design, x, cells, event))[0]


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
    centre, slopes = prior_centre(events, rows), events >= EVENTS_PER_SLOPE * int(design.slopes[design.block].sum())
    working = torch.zeros(design.columns, dtype=torch.float64)
    working[0] = centre
    empty = DesignStatistics.empty(design.columns, 1)
    variance = torch.full((design.blocks,), GUESS, dtype=torch.float64)
    if not slopes:
        variance[design.slopes] = MIN_VARIANCE
    found = HazardFit(working, centre, empty, variance, slopes)
    for _ in range(NEWTON_PASSES - 1):
        found, working = finish_pass(design, found.with_rows(design, x, cells, event))
        found = replace(found, working=working, sums=empty)
    return found


def finish_pass(design: Design, found: HazardFit) -> tuple[HazardFit, Tensor]:
    """Return the fit with the prior variances that its sums say, and the coefficients that follow (columns,)."""
    held = None if found.slopes else design.slopes
    posterior = fit_known_noise(design, found.sums, GUESS, found.variance, STEPS_PER_PASS, 1.0 / PRIOR_EVENTS, held)
    posterior.mean[0] += found.centre
    return replace(found, variance=posterior.variance), posterior.mean


def predict(design: Design, coefficients: Tensor, x: Tensor, cells: Tensor) -> Tensor:
    """Return what coefficients (columns,) predict (n,) at contexts (n, D), given each module's cell (n, M)."""
    head = coefficients.to(x.dtype)
    out = design.common(x) @ head[: design.base]
    own = design.of_cells(x)
    for m, (start, count) in enumerate(zip(design.starts, design.cells, strict=True)):
        table = own @ head[start : start + count * design.each].view(count, design.each).t()
        out += table.gather(1, cells[:, m : m + 1])[:, 0]
    return out
