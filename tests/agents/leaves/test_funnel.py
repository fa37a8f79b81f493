"""A funnel from sums over leaves is that of all rows: sums to 1e-9, and all that follows from them."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch

from crosschannel.agents import EnsembleThompson, EnsembleThompsonSettings, LinearThompson
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.hazards import before_last_pass, fit_hazard, predict
from crosschannel.agents.funnel.model import Fit, add_rows, fit_model
from crosschannel.agents.funnel.regression import Posterior, refit
from crosschannel.agents.funnel.rows import FOLDS, FunnelRows
from crosschannel.agents.leaves import funnel as module
from crosschannel.agents.leaves import rows as rows_module
from crosschannel.agents.leaves.funnel import SecondSums, add_leaves, fit_funnel, message_sums
from crosschannel.agents.leaves.learning import check_learns, extend_funnel_of, fit_funnel_of, learn_from_leaves
from crosschannel.agents.leaves.rows import LeafRows
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.engines import make_engine, run_locally
from tests.agents.funnel.samples import PLAIN, rows_of
from tests.agents.leaves.samples import WORLD, write_leaves

DESIGN = Design.build(PLAIN, 3)
PRICE = torch.tensor([2.0])


def distance(mean: torch.Tensor, other: Posterior) -> float:
    """Root mean square of the distances of coefficients, in standard deviations of a posterior."""
    sd = (other.noise * torch.cholesky_inverse(other.root).diagonal()).sqrt()
    return float(((mean - other.mean) / sd).square().mean().sqrt())


def bits(found: Fit) -> bytes:
    sums = [getattr(part, name) for part in vars(found.sums).values() for name in ("gram", "moment", "square")]
    hazards = [tensor for each in found.hazards for tensor in (each.working, each.sums.gram, each.variance)]
    tensors = [*sums, *hazards, found.variance, found.noise, found.usual.coefficients, found.usual.noise, found.organic]
    return b"".join(tensor.numpy().tobytes() for tensor in tensors) + repr(found.blend).encode()


def test_it_is_the_fit_of_all_rows_in_memory(tmp_path: Path) -> None:
    """In-memory sums of chunks are in single precision: what that leaves is far below what rows tell."""
    batch = WORLD.log(20_000, users=2_000)
    wanted = fit_model(DESIGN, rows_of(batch), PRICE)
    found = fit_funnel(DESIGN, write_leaves(batch, tmp_path), run_locally)
    assert found is not None
    assert wanted is not None
    torch.testing.assert_close(found.sums.engaged.gram, wanted.sums.engaged.gram, rtol=1e-4, atol=1e-2)
    assert found.usual.tested.equal(wanted.usual.tested)
    # What surrogates miss has no noise in this world, so that no distance can be measured in its units.
    parts = [[*each.sums.by_component()][:4] for each in (found, wanted)]
    for mine, other, variance, noise in zip(*parts, wanted.variance, wanted.noise.tolist(), strict=False):
        left, right = (refit(DESIGN, sums, variance, noise) for sums in (mine, other))
        assert distance(left.mean, right) < 0.05
    assert distance(found.hazards[0].solve(DESIGN).mean, wanted.hazards[0].solve(DESIGN)) < 0.05
    torch.testing.assert_close(found.variance[:4].sqrt(), wanted.variance[:4].sqrt(), rtol=0.02, atol=1e-3)
    for name in ("funnel", "all_sends", "slope", "slope_se", "missed", "personal"):
        assert getattr(found.blend, name) == pytest.approx(getattr(wanted.blend, name), abs=2e-3), name


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_hazards_are_those_of_all_rows_in_memory(tmp_path: Path, precision: torch.dtype) -> None:
    """As many passes over rows and as many steps of the prior variances: what is left is rounding.

    In double precision both are the same sums in another order. In memory blocks are in single precision: an error of
    2^-24 = 6e-8 a product, and a logarithm of a rate of up to 14 units, so 1e-6 of a rate before the regression.
    """
    batch = WORLD.log(20_000, users=2_000)
    found = fit_funnel(DESIGN, write_leaves(batch, tmp_path), run_locally)
    assert found is not None
    sent = LeafRows.from_batch(batch).funnel_rows().messages(PLAIN)
    x, cells = sent.x.to(precision), DESIGN.cells_of(sent.actions)
    wanted = fit_hazard(DESIGN, x, cells, sent.cost[:, 0].to(precision), sent.fold)
    tolerance = 1e-4 if precision == torch.float32 else 1e-9
    if precision == torch.float64:
        torch.testing.assert_close(found.hazards[0].variance, wanted.variance, rtol=1e-7, atol=0.0)
    assert found.hazards[0].personal == pytest.approx(wanted.personal, abs=tolerance)
    heads = [each.followed(DESIGN, each.solve(DESIGN).mean) for each in (found.hazards[0], wanted)]
    mine, other = (predict(DESIGN, head, sent.x, cells).exp() for head in heads)
    torch.testing.assert_close(mine, other, rtol=tolerance, atol=0.0)
    # One pass less is told apart: the tolerance is not a wide one.
    event = sent.cost[:, 0].to(precision)
    fewer = before_last_pass(DESIGN, x, cells, event, float(event.sum()), len(x))
    assert float((predict(DESIGN, fewer.working, sent.x, cells).exp() / other - 1).abs().max()) > 10 * tolerance


def test_sums_over_leaves_are_one_sum_over_all_rows(tmp_path: Path) -> None:
    batch = WORLD.log(6_000, users=500)
    leaves = write_leaves(batch, tmp_path)
    found = fit_funnel(DESIGN, leaves, run_locally)
    assert found is not None
    start = [found.hazards[0]]
    parts = [message_sums(task, DESIGN, leaves, found.usual, start) for task in leaves.tasks]
    assert len(parts) == 2
    total = reduce(SecondSums.add_in_place, parts)
    rows = LeafRows.from_batch(batch).funnel_rows().messages(PLAIN)
    usual = type(found.usual)(found.usual.coefficients.double(), found.usual.noise.double(), found.usual.tested)
    messages = usual.less(DESIGN, rows, PRICE.double())
    for fold in range(FOLDS):
        whole = messages.sums(DESIGN, fold)
        for name, part in vars(whole).items():
            for sums in ("gram", "moment", "square"):
                added, wanted = getattr(getattr(total.by_fold[fold], name), sums), getattr(part, sums)
                torch.testing.assert_close(added, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max() + 1e-300))
            assert getattr(total.by_fold[fold], name).rows == part.rows
    hazard = start[0].response(DESIGN, rows.x, messages.cells, rows.cost[:, 0])
    wanted = float(hazard[1].sum())  # the first column is 1, and its weight the rate
    assert float(sum(half[0].gram[0, 0] for half in total.hazards)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.slow
def test_an_engine_changes_no_bit(tmp_path: Path) -> None:
    leaves = write_leaves(WORLD.log(3_000, users=300), tmp_path)
    here, pool = (fit_funnel(DESIGN, leaves, run) for run in (run_locally, make_engine("processes", 2)))
    assert here is not None
    assert pool is not None
    assert bits(here) == bits(pool)


def test_blocks_that_cut_users_change_sums_by_rounding_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = write_leaves(WORLD.log(3_000, users=300), tmp_path)
    one = fit_funnel(DESIGN, leaves, run_locally)
    monkeypatch.setattr(module, "blocks", lambda folders: rows_module.blocks(folders, 100))
    cut = fit_funnel(DESIGN, leaves, run_locally)
    assert one is not None
    assert cut is not None
    torch.testing.assert_close(one.sums.engaged.gram, cut.sums.engaged.gram, rtol=1e-9, atol=1e-9)
    assert one.blend.slope_se == pytest.approx(cut.blend.slope_se, rel=1e-6)


def test_samples_are_as_good_as_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fifth of the messages for the working point the hazard is the same up to a fifth of its posterior's sd."""
    leaves = write_leaves(WORLD.log(20_000, users=2_000), tmp_path)
    whole = fit_funnel(DESIGN, leaves, run_locally)
    monkeypatch.setattr(module, "MESSAGE_ROWS", 2_000)
    monkeypatch.setattr(module, "NOISE_ROWS", 2_000)
    sampled = fit_funnel(DESIGN, leaves, run_locally)
    assert whole is not None
    assert sampled is not None
    assert distance(sampled.hazards[0].solve(DESIGN).mean, whole.hazards[0].solve(DESIGN)) < 0.2
    assert not sampled.usual.noise.equal(whole.usual.noise)
    assert sampled.blend.slope == pytest.approx(whole.blend.slope, abs=3 * whole.blend.slope_se)


def test_few_messages_are_not_enough(tmp_path: Path) -> None:
    leaves = write_leaves(WORLD.log(60), tmp_path)
    assert leaves.messages < 50
    assert fit_funnel(DESIGN, leaves, run_locally) is None
    agent = EnsembleThompson(PLAIN, 3, EnsembleThompsonSettings(members=3))
    with pytest.raises(NotIdentified, match="too few for a model of the funnel"):
        learn_from_leaves(agent, leaves, run_locally)


def test_agents_choose_by_what_leaves_have_taught(tmp_path: Path) -> None:
    batch = WORLD.log(8_000, users=800)
    leaves = write_leaves(batch, tmp_path)
    for kind in (EnsembleThompson, LinearThompson):
        agent, other = kind(PLAIN, 3), kind(PLAIN, 3)
        scalars = learn_from_leaves(agent, leaves, run_locally)
        assert set(scalars) >= {"calibration_slope", "weight_of_funnel"}
        other.observe(batch)
        other.update(1)
        some = batch.observations[np.arange(200)]
        for found, wanted in zip(agent.action_probabilities(some), other.action_probabilities(some), strict=True):
            assert np.abs(found - wanted).mean() < 0.02
        restored = kind(PLAIN, 3)
        restored.load_state_dict(agent.policy_state_dict())
        for found, wanted in zip(restored.action_probabilities(some), agent.action_probabilities(some), strict=True):
            assert found.tobytes() == wanted.tobytes()


def test_other_agents_are_refused_before_rows_are_read() -> None:
    check_learns("linear_thompson")
    with pytest.raises(ConfigError, match=r"the agent beta_thompson does not learn from buckets: choose one of"):
        check_learns("beta_thompson")


def test_rows_of_a_block_keep_their_users() -> None:
    rows = LeafRows.from_batch(WORLD.log(30, users=5)).funnel_rows()
    assert isinstance(rows, FunnelRows)
    assert len(torch.unique(rows.user)) == 5


def test_later_rows_are_added_as_in_memory(tmp_path: Path) -> None:
    """To the same sums up to single precision; the fit that is given stays as it is."""
    first, later = (WORLD.log(3_000, seed, users=300) for seed in (0, 1))
    found = fit_funnel(DESIGN, write_leaves(first, tmp_path / "first"), run_locally)
    assert found is not None
    before = bits(found)
    more = add_leaves(DESIGN, found, write_leaves(later, tmp_path / "later"), run_locally)
    wanted = add_rows(DESIGN, found, rows_of(later), PRICE)
    for mine, other in zip(more.sums.by_component(), wanted.sums.by_component(), strict=True):
        assert mine.rows == other.rows
        torch.testing.assert_close(mine.gram, other.gram, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(mine.moment, other.moment, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(more.hazards[0].sums.gram, wanted.hazards[0].sums.gram, rtol=1e-3, atol=1e-3)
    assert more.sums.engaged.rows > found.sums.engaged.rows
    assert bits(found) == before


def test_rows_with_other_cost_events_are_not_added(tmp_path: Path) -> None:
    leaves = write_leaves(WORLD.log(3_000, users=300), tmp_path)
    agent = EnsembleThompson(PLAIN, 3, EnsembleThompsonSettings(members=4))
    with pytest.raises(ConfigError, match="no fit with the cost events"):
        extend_funnel_of(agent, leaves, run_locally)
    assert fit_funnel_of(agent, leaves, run_locally)
    extend_funnel_of(agent, leaves, run_locally)
    with pytest.raises(ConfigError, match="no fit with the cost events"):
        extend_funnel_of(agent, replace(leaves, costs={"complained": 2.0}), run_locally)
