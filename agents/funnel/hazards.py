"""Hazards of cost events: log-linear regressions by a fixed number of Newton passes over the rows."""

from __future__ import annotations

import torch
from torch import Tensor

from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.regression import Posterior, fit_known_noise
from crosschannel.agents.funnel.sums import sum_rows

NEWTON_PASSES = 4
GUESS = 0.05
STEPS_PER_PASS = 2
#: Events that the prior counts as: it keeps the hazard of an event that never occurred next to 0, and certain of that.
PRIOR_EVENTS = 0.5
#: Log hazards between which the linearised likelihood is taken.
LOWEST, HIGHEST = -14.0, -0.5


def fit_hazard(design: Design, x: Tensor, cells: Tensor, event: Tensor) -> Posterior:
    r"""Fit the hazard of an event per message.

    .. math:: \log h = \psi(x)^\top \beta + \sum_m \varphi(x)^\top \theta_{m, a_m}

    by Fisher scoring of the Poisson likelihood (Nelder & Wedderburn 1972, "Generalized linear models", JRSS A): each
    pass is a regression of the working response with weights that are fixed by the pass before, and so a sum over rows.
    The hazard is log-linear, because what doubles it (a channel, too many messages) does so for everybody. The prior of
    the common intercept is centred at the mean hazard and counts as `PRIOR_EVENTS`; without any rows the hazard is the
    lowest that there is, as nothing says that the event can occur.

    Args:
        design: The columns.
        x: Contexts (n, D) of rows in which something was sent.
        cells: Each module's cell (n, M).
        event: 1 where the event occurred, otherwise 0 (n,).
    """
    centre = float(torch.log((event.sum() + PRIOR_EVENTS) / (len(x) + 1.0))) if len(x) else LOWEST
    eta = torch.full((len(x),), centre)
    variance: Tensor | None = None
    for _ in range(NEWTON_PASSES):
        eta = eta.clamp(LOWEST, HIGHEST)
        rate = eta.exp()
        working = eta - centre + (event - rate) / rate
        sums = sum_rows(design, x, cells, working.unsqueeze(1), rate)
        posterior = fit_known_noise(design, sums, GUESS, variance, STEPS_PER_PASS, 1.0 / PRIOR_EVENTS)
        variance = posterior.variance
        posterior.mean[0] += centre
        eta = predict(design, posterior.mean, x, cells)
    return posterior


def predict(design: Design, coefficients: Tensor, x: Tensor, cells: Tensor) -> Tensor:
    """Return what coefficients (columns,) predict (n,) at contexts (n, D), given each module's cell (n, M)."""
    head = coefficients.float()
    out = design.common(x) @ head[: design.base]
    own = design.of_cells(x)
    for m, (start, count) in enumerate(zip(design.starts, design.cells, strict=True)):
        table = own @ head[start : start + count * design.each].view(count, design.each).t()
        out += table.gather(1, cells[:, m : m + 1])[:, 0]
    return out
