"""Hazards: log-linear truth, rare events, none, and nothing but events."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.hazards import LOWEST, HazardFit, predict, weight_of_whole
from crosschannel.agents.funnel.hazards import fit_hazard as fit_hazard_by_halves
from crosschannel.agents.funnel.regression import Posterior
from tests.agents.funnel.samples import PLAIN, contexts, dense, messages


def fit_hazard(design: Design, x: Tensor, cells: Tensor, event: Tensor) -> HazardFit:
    """Fit a hazard to rows of two halves of the users in turn."""
    return fit_hazard_by_halves(design, x, cells, event, torch.arange(len(x)) % 2)


def fitted(n: int, event: Tensor | None = None, seed: int = 0) -> tuple[Design, Tensor, Tensor, Posterior]:
    design, x = Design.build(PLAIN, 2), contexts(n, 2, seed)
    cells = design.cells_of(messages(n, PLAIN, seed))
    return design, x, cells, fit_hazard(design, x, cells, torch.zeros(n) if event is None else event).solve(design)


def truth(x: Tensor, cells: Tensor) -> Tensor:
    """A hazard of 1 % on average; the channel and the tone move it sixfold and twofold, the context by a half."""
    channel, tone = torch.tensor([0.0, -0.9, 0.9]), torch.tensor([-0.35, 0.35, 0.0])
    return (math.log(0.01) + channel[cells[:, 0]] + tone[cells[:, 1]] + 0.5 * x[:, 0]).exp()


@pytest.mark.parametrize(
    ("n", "seeds"), [(40_000, range(1)), pytest.param(40_000, range(1, 16), marks=pytest.mark.slow)]
)
def test_a_log_linear_truth_is_recovered(n: int, seeds: range) -> None:
    for seed in seeds:
        design, x = Design.build(PLAIN, 2), contexts(n, 2, seed)
        cells = design.cells_of(messages(n, PLAIN, seed))
        true = truth(x, cells)
        event = (torch.rand(n, generator=torch.Generator().manual_seed(seed)) < true).float()
        found = predict(design, fit_hazard(design, x, cells, event).solve(design).mean, x, cells).exp()
        assert found.sum().item() == pytest.approx(event.sum().item(), rel=0.02)
        for m, sizes in enumerate(PLAIN.sizes):
            for a in range(1 if m == 0 else 0, sizes):
                mine = cells[:, m] == a
                se = true[mine].sum().item() ** 0.5  # of the number of events
                assert abs(found[mine].sum().item() - true[mine].sum().item()) < 4.0 * se
        error = (found / true).log()
        assert error.square().mean().sqrt() < 0.35  # some 600 events: twelve coefficients at 0.1 each


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, 22), marks=pytest.mark.slow)])
def test_the_hazard_of_those_whom_a_policy_chooses_is_not_understated(seeds: range) -> None:
    """One of 60 features doubles the hazard, and a policy sends to those who have most of it.

    With one variance for all slopes the feature's was shrunk with those of the others, to a third, and the hazard of
    the chosen quarter with it. Over seeds the sum of predictions has the error of 400 events by the slope, 5 %, and
    the feature's own shrinkage.
    """
    expected, true = 0.0, 0.0
    for seed in seeds:
        n, width = 40_000, 60
        design, x = Design.build(PLAIN, width), contexts(n, width, seed)
        cells = design.cells_of(messages(n, PLAIN, seed))
        hazard = (math.log(0.008) + 0.4 * x[:, 0]).exp()
        event = (torch.rand(n, generator=torch.Generator().manual_seed(seed)) < hazard).float()
        fit = fit_hazard(design, x, cells, event)
        assert not fit.slopes
        chosen = x[:, 0] > 0.7
        expected += predict(design, fit.solve(design).mean, x[chosen], cells[chosen]).exp().sum().item()
        true += hazard[chosen].sum().item()
    assert abs(expected / true - 1.0) < 0.05 + 0.15 / len(seeds) ** 0.5


def drawn(n: int, width: int, slope: float, seed: int) -> tuple[Design, Tensor, Tensor, Tensor, Tensor]:
    """Return columns, contexts, cells, hazards of 1 % by one of the features, and events."""
    design, x = Design.build(PLAIN, width), contexts(n, width, seed)
    hazard = (math.log(0.01) + slope * x[:, 0]).exp()
    event = (torch.rand(n, generator=torch.Generator().manual_seed(seed)) < hazard).float()
    return design, x, design.cells_of(messages(n, PLAIN, seed)), hazard, event


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 106), marks=pytest.mark.slow)])
def test_differences_that_are_not_there_are_not_followed(seeds: range) -> None:
    """The weight lies one standard error below its estimate: above 0 in a sixth of logs, and small there."""
    weights = []
    for seed in seeds:
        design, x, cells, _, event = drawn(20_000, 40, 0.0, seed)
        fit = fit_hazard(design, x, cells, event)
        head = fit.followed(design, fit.solve(design).mean)
        weights.append(fit.personal)
        assert predict(design, head, x, cells).exp().sum().item() == pytest.approx(event.sum().item(), rel=0.03)
    above = sum(weight > 0.0 for weight in weights)
    assert above <= 0.16 * len(seeds) + 2.6 * (0.16 * 0.84 * len(seeds)) ** 0.5  # 99.5 % of a count's distribution
    assert np.mean(weights) < 0.1


def test_differences_that_other_users_confirm_are_followed() -> None:
    design, x, cells, hazard, event = drawn(40_000, 10, 0.8, 0)
    fit = fit_hazard(design, x, cells, event)
    assert 0.75 < fit.personal < 1.0  # 550 events by a slope of .8 on a unit feature: an error of .08 for one half
    head = fit.solve(design).mean
    kept = predict(design, fit.followed(design, head), x, cells)
    assert kept.exp().sum().item() == pytest.approx(event.sum().item(), rel=0.03)
    plain = predict(design, head, x, cells)
    assert float(kept.std() / plain.std()) == pytest.approx(fit.personal, abs=0.02)
    assert float((kept - hazard.log()).square().mean().sqrt()) < 0.3


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 33), marks=pytest.mark.slow)])
def test_the_hazard_of_those_who_look_safest_is_not_understated(seeds: range) -> None:
    """A policy sends most to the fifth with the lowest hazards by an estimate from 200 events and 40 features.

    Without the weight their hazards are understated by a tenth and more, as who looks safest is decided by errors too.
    With it the sum over seeds has the errors of the events themselves, 1 / sqrt(200) a log, and of a slope taken low.
    """
    true = expected = unshrunk = 0.0
    for seed in seeds:
        design, x, cells, hazard, event = drawn(20_000, 40, 0.3, seed)
        fit = fit_hazard(design, x, cells, event)
        plain = predict(design, fit.solve(design).mean, x, cells)
        safest = plain <= plain.quantile(0.2)
        kept = predict(design, fit.followed(design, fit.solve(design).mean), x, cells)
        true += hazard[safest].sum().item()
        expected += kept[safest].exp().sum().item()
        unshrunk += plain[safest].exp().sum().item()
    assert unshrunk / true < 0.95
    assert expected / true > 0.97 - 0.1 / len(seeds) ** 0.5


def test_the_whole_is_as_reliable_as_its_halves_say() -> None:
    """The formula of Spearman and Brown makes the slope on one half that on the mean of both."""
    rng = np.random.default_rng(0)
    for noise in (0.3, 1.0, 3.0):
        truth = rng.normal(size=200_000)
        halves = truth + noise * rng.normal(size=(2, len(truth)))
        of_half = np.cov(halves)[0, 1] / halves[0].var()
        mean = halves.mean(0)
        assert weight_of_whole(of_half) == pytest.approx(np.cov(truth, mean)[0, 1] / mean.var(), abs=0.01)  # 4 errors
    assert [weight_of_whole(weight) for weight in (0.0, 1.0)] == [0.0, 1.0]


def squared_errors(rows: int, slope: float, seeds: range) -> tuple[float, float, float]:
    """Return mean squared errors of log hazards, in events: at the fit's weight, at that of a half, and at 0."""
    found = []
    for seed in seeds:
        design, x, cells, hazard, event = drawn(rows, 20, slope, seed)
        fit = fit_hazard(design, x, cells, event)
        head = fit.solve(design).mean
        of_half = fit.personal / (2.0 - fit.personal)
        for weight in (fit.personal, of_half, 0.0):
            error = predict(design, replace(fit, personal=weight).followed(design, head), x, cells) - hazard.log()
            error = error - (hazard * error).sum() / hazard.sum()
            found.append(float((hazard * error.square()).sum()))
    whole, half, constant = np.reshape(found, (-1, 3)).mean(0)
    return whole, half, constant


FEW_AND_MANY_EVENTS = [
    (10_000, range(100, 102)),
    pytest.param(10_000, range(100, 160), marks=pytest.mark.slow),
    pytest.param(40_000, range(100, 160), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("rows", "seeds"), FEW_AND_MANY_EVENTS)
def test_the_weight_of_the_whole_errs_less_than_that_of_a_half(rows: int, seeds: range) -> None:
    """With 130 and 550 events by a slope of .7 the weight of a half takes away what the whole does know."""
    whole, half, constant = squared_errors(rows, 0.7, seeds)
    assert whole < half < constant


@pytest.mark.parametrize(("rows", "seeds"), FEW_AND_MANY_EVENTS)
def test_the_weight_does_not_create_differences(rows: int, seeds: range) -> None:
    """Where nothing differs a larger weight errs more, by less than one coefficient of a regression errs: 1 event."""
    whole, half, constant = squared_errors(rows, 0.0, seeds)
    bound = 1.0 + 2.0 / len(seeds) ** 0.5  # the weight is 0 in most logs, so that single ones decide the mean
    assert whole < half + bound
    assert whole < constant + 2.0 * bound


def test_effects_vary_with_the_context_once_events_are_many() -> None:
    n = 60_000
    design, x = Design.build(PLAIN, 2), contexts(n, 2)
    cells = design.cells_of(messages(n, PLAIN))
    hazard = (math.log(0.01) + torch.where(cells[:, 0] == 2, 0.8, 0.0) * x[:, 0]).exp()
    event = (torch.rand(n, generator=torch.Generator().manual_seed(0)) < hazard).float()
    many, few = fit_hazard(design, x, cells, event), fit_hazard(design, x[:1000], cells[:1000], event[:1000])
    assert many.slopes
    assert not few.slopes

    def slope(found: Posterior) -> float:
        at = design.starts[0] + design.each + 1
        return float(found.mean[at + design.each] - found.mean[at]) / 2.0**0.5

    assert slope(many.solve(design)) == pytest.approx(0.8, abs=0.3)  # 300 events each: 4 standard errors of .08
    assert abs(slope(few.solve(design))) < 1e-3


@pytest.mark.parametrize("n", [50, 5000])
def test_an_event_that_never_occurred_has_a_hazard_below_one_event(n: int) -> None:
    design, x, cells, found = fitted(n)
    assert found.mean.isfinite().all()
    assert (predict(design, found.mean, x, cells).exp() < 1.0 / n).all()
    normals = torch.randn(design.columns, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    members = (dense(design, x, cells) @ found.draws(normals)).exp()
    assert members.mean(0).quantile(0.95) < 6.0 / n  # whoever saw none in n rows excludes more than some events


def test_an_event_that_always_occurs() -> None:
    design, x, cells, found = fitted(500, torch.ones(500))
    hazard = predict(design, found.mean, x, cells).exp()
    assert hazard.isfinite().all()
    assert (hazard > 0.9).all()


def test_without_rows_the_event_is_not_expected() -> None:
    design, _, _, found = fitted(0)
    x, cells = contexts(5, 2), design.cells_of(messages(5, PLAIN))
    np.testing.assert_allclose(predict(design, found.mean, x, cells).numpy(), LOWEST, rtol=1e-5)


@pytest.mark.parametrize("events", [1, 3])
def test_rare_events_and_extreme_contexts_are_finite(events: int) -> None:
    design, x = Design.build(PLAIN, 2), 10.0 * contexts(2000, 2).sign()
    cells = design.cells_of(messages(2000, PLAIN))
    event = torch.zeros(2000)
    event[:events] = 1.0
    found = fit_hazard(design, x, cells, event).solve(design)
    assert found.mean.isfinite().all()
    assert found.root.isfinite().all()
    total = predict(design, found.mean, x, cells).exp().sum().item()
    assert 0.5 * events < total < 2.0 * events


def test_a_channel_whose_every_message_ends_in_the_event() -> None:
    design, x = Design.build(PLAIN, 2), contexts(3000, 2)
    cells = design.cells_of(messages(3000, PLAIN))
    found = fit_hazard(design, x, cells, (cells[:, 0] == 2).float()).solve(design)
    hazard = predict(design, found.mean, x, cells).exp()
    assert hazard[cells[:, 0] == 2].mean() > 0.7
    assert hazard[cells[:, 0] == 1].mean() < 0.05
