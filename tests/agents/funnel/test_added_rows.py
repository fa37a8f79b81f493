"""Rows that are added to a fit count as those that it was fitted to; nothing but coefficients changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crosschannel.agents import Observations, load_fit, make_agent, save_fit
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.hazards import predict
from crosschannel.agents.funnel.model import Fit, add_rows, fit_model, solve
from crosschannel.agents.funnel.rows import FunnelRows
from crosschannel.agents.funnel.values import ALL_SENDS
from crosschannel.core.errors import ConfigError
from tests.agents.funnel.samples import PLAIN, World, rows_of

WEIGHTS = torch.tensor([2.0])


def rows(n: int = 6000) -> FunnelRows:
    return rows_of(World().log(n, 100))


def part(all_rows: FunnelRows, start: int, stop: int) -> FunnelRows:
    return all_rows.take(torch.arange(start, stop))


def fitted(some: FunnelRows) -> tuple[Design, Fit]:
    design = Design.build(PLAIN, some.x.shape[1])
    found = fit_model(design, some, WEIGHTS)
    assert found is not None
    return design, found


def test_sums_are_those_of_all_rows_with_the_same_usual_and_scales() -> None:
    every = rows()
    design, half = fitted(part(every, 0, 3000))
    both = add_rows(design, half, part(every, 3000, 6000), WEIGHTS)
    sent = every.messages(PLAIN)
    messages = half.usual.less(design, sent, WEIGHTS)
    wanted = messages.sums(design, 0) + messages.sums(design, 1)
    for found, sums in zip(both.sums.by_component(), wanted.by_component(), strict=True):
        torch.testing.assert_close(found.gram, sums.gram, rtol=1e-5, atol=1e-4)  # summed in single precision
        torch.testing.assert_close(found.moment, sums.moment, rtol=1e-5, atol=1e-3)
        assert found.rows == sums.rows
    assert torch.equal(both.variance, half.variance)
    assert both.blend == half.blend


def test_day_by_day_is_all_at_once_up_to_rounding() -> None:
    every = rows()
    design, half = fitted(part(every, 0, 3000))
    once = add_rows(design, half, part(every, 3000, 6000), WEIGHTS)
    daily = half
    for start in range(3000, 6000, 500):
        daily = add_rows(design, daily, part(every, start, start + 500), WEIGHTS)
    heads = [solve(design, found, 4, torch.Generator().manual_seed(0)) for found in (once, daily)]
    torch.testing.assert_close(heads[0].value, heads[1].value, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(heads[0].hazard, heads[1].hazard, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("fold", [0, 1])
def test_the_given_fit_stays_as_it_is_where_only_one_half_has_more_rows(fold: int) -> None:
    every = rows()
    design, half = fitted(part(every, 0, 3000))
    before = [(sums.gram.clone(), sums.moment.clone()) for sums in half.sums.by_component()]
    later = part(every, 3000, 6000)
    both = add_rows(design, half, later.take((later.fold == fold).nonzero()[:, 0]), WEIGHTS)
    for sums, (gram, moment) in zip(half.sums.by_component(), before, strict=True):
        assert torch.equal(sums.gram, gram)
        assert torch.equal(sums.moment, moment)
    assert both.sums.engaged.rows > half.sums.engaged.rows


def test_more_rows_make_the_estimates_surer() -> None:
    """Members of five times the rows differ less in what they predict; with no prior it would be by 5 ** -.5 = .45."""
    every = rows(20_000)
    design, few = fitted(part(every, 0, 4000))
    more = add_rows(design, few, part(every, 4000, 20_000), WEIGHTS)
    x, cells = every.x[:500], design.cells_of(np.maximum(every.actions[:500], [1, 0, 0]))
    spread = []
    for found in (few, more):
        members = solve(design, found, 32, torch.Generator().manual_seed(0)).value[ALL_SENDS, 1:]
        spread.append(float(torch.stack([predict(design, one, x, cells) for one in members]).std(0).mean()))
    assert spread[1] < 0.85 * spread[0]


def batch(n: int, seed: int):
    return World().log(n, seed)


def test_an_agent_that_was_stored_goes_on_to_the_same_bits(tmp_path) -> None:
    first, later = batch(4000, 100), batch(1000, 101)
    width = first.observations.context.shape[1]
    spec = {"name": "ensemble_thompson", "context_dim": width, "settings": {"members": 4}, "seed": 0}
    agent = make_agent(modules=PLAIN, **spec)
    assert not agent.extendable
    with pytest.raises(ConfigError, match="fit it to rows first"):
        agent.extend(later)
    agent.observe(first)
    agent.update(1)
    save_fit(agent, tmp_path / "fit.pt", spec, {"slot": 3})
    stored, extra = load_fit(tmp_path / "fit.pt")
    assert extra == {"slot": 3}
    for each in (agent, stored):
        each.extend(later)
    seen = Observations(later.observations.context[:50], np.ones((50, PLAIN.total), dtype=bool))
    found = [each.action_probabilities(seen) for each in (agent, stored)]
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


def test_rows_of_other_cost_events_are_refused() -> None:
    first = batch(4000, 100)
    agent = make_agent("ensemble_thompson", PLAIN, first.observations.context.shape[1], {"members": 4})
    agent.observe(first)
    agent.update(1)
    assert first.components is not None
    other = replace(first, components=replace(first.components, cost_names=("complained",)))
    with pytest.raises(ConfigError, match="cost events"):
        agent.extend(other)
