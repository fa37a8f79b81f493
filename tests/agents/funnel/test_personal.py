"""What is personal counts if policies that follow it earn more, judged by users who did not teach them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from crosschannel.agents.funnel import personal as module
from crosschannel.agents.funnel.calibration import Blend
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.hazards import predict
from crosschannel.agents.funnel.model import fit_model
from crosschannel.agents.funnel.personal import MARGIN, WEIGHTS, contexts_to_judge, personal_weight
from crosschannel.agents.funnel.rows import SAMPLE_SALT
from crosschannel.agents.funnel.values import Heads
from crosschannel.agents.leaves.funnel import fit_funnel
from crosschannel.core.hashing import in_sample
from crosschannel.engines import run_locally
from tests.agents.funnel.samples import PARENTS, PLAIN, SPACES, contexts, rows_of
from tests.agents.leaves.samples import WORLD, write_leaves

WIDTH = 4
DRAWS = 16
CONTEXTS = [contexts(150, WIDTH, seed) for seed in (1, 2)]


@dataclass(frozen=True)
class Halves:
    """Direct effects of the actions that each half of the users taught: some actions are better for all, by `general`.

    Slopes have a part that is true, and noise of each half. Nothing tells who engages, so that an action's value is its
    direct effect.
    """

    general: float = 1.0
    personal: float = 0.0
    noise: float = 0.0
    seed: int = 0

    def heads(self, design: Design) -> list[Heads]:
        """The best estimates by what each half taught, and draws that are as far from them as they from the truth."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(3, 1 + DRAWS, design.columns, generator=generator)
        slopes = design.slopes[design.block]
        truth = torch.where(slopes, self.personal, self.general) * drawn[0, :1]
        estimates = [truth + self.noise * slopes * each[:1] for each in drawn[1:]]
        deviations = [self.noise * slopes * each[1:] for each in drawn[1:]]
        return [_heads(design, torch.cat([e, e + d])) for e, d in zip(estimates, deviations, strict=True)]

    def weight(self, design: Design) -> float:
        """The weight that is chosen."""
        judging = self.heads(design)
        return personal_weight(design, [each.best() for each in judging], judging, CONTEXTS)


def _heads(design: Design, direct: Tensor) -> Heads:
    value = torch.zeros(4, len(direct), design.columns)
    value[2, :, design.base :] = direct[:, design.base :]
    nothing = torch.zeros(0)
    tested = torch.zeros(design.modules.sizes[0], dtype=torch.bool)
    return Heads(value, value[:0], nothing, tested, Blend(), nothing)


@pytest.mark.parametrize("space", SPACES)
def test_what_both_halves_find_is_followed(space: str) -> None:
    assert Halves(personal=1.0).weight(Design.build(SPACES[space], WIDTH)) == 1.0


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_the_weight_is_that_of_the_best_policy_among_all_messages(space: str, seed: int) -> None:
    design = Design.build(SPACES[space], WIDTH)
    halves = Halves(personal=0.5, noise=0.5, seed=seed)
    cells = design.cells_of(design.modules.joint_actions[1:])
    earned = torch.zeros(len(WEIGHTS), 1 + DRAWS, dtype=torch.float64)
    for fold, x in enumerate(CONTEXTS):
        judging, choosing = halves.heads(design)[fold].value[2], halves.heads(design)[1 - fold].value[2, 0]

        def values(head: Tensor, x: Tensor = x) -> Tensor:
            return torch.stack([predict(design, head, x, each.expand(len(x), -1)) for each in cells])

        for place, weight in enumerate(WEIGHTS):
            chosen = values(design.scale_slopes(choosing, weight)).argmax(0)
            by_voter = [values(head).gather(0, chosen[None]).double().mean() for head in judging]
            earned[place] += torch.stack(by_voter) / 2.0
    below, above = earned[earned[:, 0].argmax()] - earned, earned - earned[0]
    allowed = [
        weight
        for weight, (lost, *lost_by), (won, *won_by) in zip(WEIGHTS, below.tolist(), above.tolist(), strict=True)
        if lost <= MARGIN * np.std(lost_by, ddof=1) and won > MARGIN * np.std(won_by, ddof=1)
    ]
    assert halves.weight(design) == max(allowed, default=0.0)


def test_what_only_one_half_finds_is_not_followed() -> None:
    # A choice by noise loses what the best action earns for all; seldom does it win by chance among 150 contexts.
    found = [Halves(noise=1.0, seed=seed).weight(Design.build(PLAIN, WIDTH)) for seed in range(10)]
    assert np.median(found) <= 0.3


def test_a_large_effect_is_followed_through_some_noise() -> None:
    found = [Halves(personal=1.0, noise=0.3, seed=seed).weight(Design.build(PLAIN, WIDTH)) for seed in range(10)]
    assert np.median(found) == 1.0


def test_what_neither_half_confirms_is_not_followed() -> None:
    # Nothing is personal, and no action is better for all: the policies earn equally little, but for noise.
    found = [Halves(general=0.0, noise=1.0, seed=seed).weight(Design.build(PLAIN, WIDTH)) for seed in range(10)]
    assert np.mean(np.array(found) == 0.0) >= 0.5
    assert Halves(general=0.0).weight(Design.build(PLAIN, WIDTH)) == 0.0


def test_without_slopes_nothing_is_weighed() -> None:
    design = Design.build(PARENTS, WIDTH).with_intercepts_only()
    assert Halves(noise=1.0).weight(design) == 1.0


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_contexts_are_those_of_the_same_messages_in_every_order_and_from_a_sample(seed: int) -> None:
    rows = rows_of(WORLD.log(6_000, users=500, seed=seed))
    wanted = contexts_to_judge(rows)
    assert [len(each) for each in wanted] == [module.CONTEXTS] * 2
    shuffled = rows.take(torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)))
    sample = rows.take(torch.from_numpy(in_sample(rows.key.numpy().view(np.uint64), 0.4, SAMPLE_SALT)).nonzero()[:, 0])
    assert len(sample) < len(rows) / 2
    for other in (shuffled, sample):
        assert all(map(torch.equal, contexts_to_judge(other), wanted))


def test_contexts_are_a_fair_sample() -> None:
    """The mean of each feature is that of all messages, up to 4 standard errors."""
    rows = rows_of(WORLD.log(6_000, users=500, seed=103))
    for half, x in enumerate(contexts_to_judge(rows)):
        every = rows.x[rows.fold == half]
        assert ((x.mean(0) - every.mean(0)).abs() < 4 * every.std(0) / len(x) ** 0.5).all()


@pytest.mark.parametrize(("noise", "seed"), [(1.0, 106), (2.0, 108), (3.0, 108)])
def test_the_weight_is_one_for_every_order_of_the_rows(
    noise: float, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by leaves, whose rows come in another order; 32 other contexts of these logs would give another weight."""
    monkeypatch.setattr(module, "CONTEXTS", 32)
    batch = replace(WORLD, noise=noise).log(2_000, users=500, seed=seed)
    design, price = Design.build(PLAIN, batch.observations.context.shape[1]), torch.tensor([2.0])
    random = np.random.default_rng(seed)
    found = [fit_model(design, rows_of(batch[random.permutation(len(batch))]), price) for _ in range(4)]
    found.append(fit_funnel(design, write_leaves(batch, tmp_path), run_locally))
    weights = {None if each is None else each.blend.personal for each in found}
    assert len(weights) == 1
    assert weights < set(WEIGHTS[1:-1])
