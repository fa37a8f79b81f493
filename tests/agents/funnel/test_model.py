"""The model recovers components whose truth is known, and its whole value is right where they are confounded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from crosschannel.agents.funnel import design as module
from crosschannel.agents.funnel.calibration import Blend
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.hazards import predict
from crosschannel.agents.funnel.model import MIN_MESSAGES, fit_heads, moved_heads
from crosschannel.agents.funnel.rows import FunnelRows, Usual
from crosschannel.agents.funnel.values import ALL_SENDS, DIRECT, ENGAGEMENT, GAIN, Heads, Means, value_of
from crosschannel.core.action_changes import known_actions, previous_cells
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import FloatArray, IntArray
from tests.agents.funnel.samples import PLAIN, TABLES, World, contexts, messages, rows_of

N_QUICK = 12_000
SEEDS = [pytest.param(range(100, 101), id="quick"), pytest.param(range(101, 111), marks=pytest.mark.slow, id="slow")]


def fitted(rows: FunnelRows, price: float = 2.0, members: int = 8) -> Heads | None:
    design, weights = Design.build(PLAIN, rows.x.shape[1]), torch.full((rows.cost.shape[1],), price)
    return fit_heads(design, rows, weights, members, torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Fit:
    """A fitted model, and what it and the truth say of fresh messages."""

    heads: Heads
    found: FloatArray
    x: FloatArray
    actions: IntArray
    value: FloatArray

    def error_by_cell(self, part: FloatArray, truth: FloatArray) -> float:
        """The largest error of a mean over one module's action."""
        gaps = [
            abs((part - truth)[self.actions[:, m] == a].mean())
            for m, size in enumerate(PLAIN.sizes)
            for a in range(1 if m == 0 else 0, size)
        ]
        return float(max(gaps))


def learn(world: World, seed: int, n: int = N_QUICK) -> Fit:
    heads = fitted(rows_of(world.log(n, seed)))
    assert heads is not None
    design, x, actions = Design.build(PLAIN, 3), contexts(4000, 3, 1), messages(4000, PLAIN, 1)
    cells = design.cells_of(actions)
    parts = torch.stack([predict(design, head, x, cells) for head in torch.cat([heads.value, heads.hazard])[:, 0]])
    engaged, gain, direct, all_sends, *logs = parts
    rest = heads.blend.funnel * direct + heads.blend.all_sends * all_sends
    linear, nothing = torch.stack([engaged, gain - direct, rest]), torch.zeros(1, 1)
    tested = heads.tested[torch.from_numpy(actions[:, 0])].float()
    total = Means(linear[:, None, None], torch.stack(logs)[:, None, None], nothing[None], tested[None], nothing)
    value = value_of(heads, total, torch.tensor([world.price]))[0, 0]
    return Fit(heads, parts.numpy(), x.numpy(), actions, value.numpy())


@pytest.mark.parametrize("seeds", SEEDS)
def test_every_component_is_recovered(seeds: range) -> None:
    world = World()
    for seed in seeds:
        fit = learn(world, seed)
        # About 1,000 engaged messages by action of a module: a standard error of about .03 to .06, and some shrinkage.
        assert fit.error_by_cell(fit.found[ENGAGEMENT], world.engagement(fit.x, fit.actions)) < 0.05
        assert fit.error_by_cell(fit.found[GAIN], world.gain(fit.x, fit.actions)) < 0.25
        assert fit.error_by_cell(fit.found[DIRECT], world.direct(fit.actions)) < 0.25
        hazard = np.exp(fit.found[ALL_SENDS + 1])
        assert fit.error_by_cell(hazard, world.hazard(fit.actions)) < 0.02
        truth = world.value(fit.x, fit.actions)
        assert fit.error_by_cell(fit.value, truth) < 0.25
        assert np.corrcoef(fit.value, truth)[0, 1] > 0.9
        assert abs(fit.heads.blend.slope - 1.0) < 4.0 * fit.heads.blend.slope_se
        assert fit.heads.tested.tolist() == [False, True, True]


@pytest.mark.parametrize("seeds", SEEDS)
def test_confounded_engagement_misleads_the_gain_and_not_the_value(seeds: range) -> None:
    """Who engages would have bought anyway: the engaged seem to gain, and the others seem to lose as much."""
    world = World(confounding=3.0)
    for seed in seeds:
        fit = learn(world, seed)
        truth, direct = world.gain(fit.x, fit.actions), world.direct(fit.actions)
        assert (fit.found[GAIN] - truth).mean() > 0.8  # 3 (1 - P)
        assert (fit.found[DIRECT] - direct).mean() < -0.8  # -3 P
        assert fit.error_by_cell(fit.value, world.value(fit.x, fit.actions)) < 0.3


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_direct_effect_is_found_where_it_is(seeds: range) -> None:
    world = World(direct_of_push=1.0)
    for seed in seeds:
        fit = learn(world, seed)
        push = fit.actions[:, 0] == 2
        assert fit.found[DIRECT][push].mean() == pytest.approx(1.0, abs=0.2)
        assert fit.found[DIRECT][~push].mean() == pytest.approx(0.0, abs=0.2)
        assert fit.error_by_cell(fit.value, world.value(fit.x, fit.actions)) < 0.25


@pytest.mark.parametrize("seeds", SEEDS)
def test_what_surrogates_miss_is_learned_from_the_goals(seeds: range) -> None:
    world = World(missed=1.5)
    for seed in seeds:
        fit = learn(world, seed)
        assert fit.error_by_cell(fit.found[GAIN], world.gain(fit.x, fit.actions)) < 0.3
        assert fit.error_by_cell(fit.value, world.value(fit.x, fit.actions)) < 0.25
        assert abs(fit.heads.blend.slope - 1.0) < 4.0 * fit.heads.blend.slope_se


@pytest.mark.parametrize("seeds", SEEDS)
def test_costs_count_once_whatever_the_weights_are(seeds: range) -> None:
    """Costs are the only effect: the value of a message is minus their price, with and without the funnel's part."""
    world = World(price=20.0)
    for seed in seeds:
        batch = world.log(N_QUICK, seed)
        assert batch.components is not None
        value = np.random.default_rng(seed).standard_normal(len(batch))
        cost = batch.components.cost[:, 0]
        parts = replace(batch.components, value=value)
        rows = rows_of(replace(batch, components=parts, rewards=value - world.price * cost))
        heads = fitted(rows, world.price)
        assert heads is not None
        design, x, actions = Design.build(PLAIN, 3), contexts(2000, 3, 1), messages(2000, PLAIN, 1)
        everybody = predict(design, heads.value[ALL_SENDS, 0], x, design.cells_of(actions))
        assert abs(everybody.mean().item()) < 0.1  # costs of 1.6 on average are no part of it


def test_a_channel_without_open_events_has_a_whole_effect_and_no_engagement() -> None:
    world = World(direct_of_push=1.0)
    rows = rows_of(world.log(N_QUICK, 100))
    push = torch.from_numpy(rows.actions[:, 0] == 2)
    heads = fitted(replace(rows, engaged=torch.where(push, torch.nan, rows.engaged)))
    assert heads is not None
    assert heads.tested.tolist() == [False, True, False]
    design, x, actions = Design.build(PLAIN, 3), contexts(2000, 3, 1), messages(2000, PLAIN, 1)
    sent = torch.from_numpy(actions[:, 0] == 2)
    direct = predict(design, heads.value[DIRECT, 0], x, design.cells_of(actions))[sent].numpy()
    p = world.engagement(x.numpy(), actions)
    truth = (p * world.gain(x.numpy(), actions) + (1.0 - p) * world.direct(actions))[sent.numpy()]
    assert direct.mean() == pytest.approx(truth.mean(), abs=0.15)


def test_single_messages_whose_engagement_is_not_known_teach_neither_part() -> None:
    rows = rows_of(World().log(3000, 100))
    unknown = torch.rand(3000, generator=torch.Generator().manual_seed(0)) < 0.3
    without = fitted(replace(rows, engaged=torch.where(unknown, torch.nan, rows.engaged)))
    # What those messages earned may not matter to the gain: here it is a thousand.
    wild = torch.where(unknown & (torch.from_numpy(rows.actions[:, 0]) > 0), 1000.0, rows.value)
    other = fitted(replace(rows, engaged=torch.where(unknown, torch.nan, rows.engaged), value=wild))
    assert without is not None
    assert other is not None
    torch.testing.assert_close(without.value[:3], other.value[:3])


@pytest.mark.parametrize("costs", [0, 1, 2])
def test_any_number_of_costs(costs: int) -> None:
    rows = rows_of(World().log(2000, 100))
    heads = fitted(replace(rows, cost=rows.cost.repeat(1, costs)))
    assert heads is not None
    assert heads.hazard.shape == (costs, 9, Design.build(PLAIN, 3).columns)
    assert heads.organic.shape == (costs,)
    assert heads.sd.shape[0] == 4 + costs
    if costs == 2:
        torch.testing.assert_close(heads.hazard[0, 0], heads.hazard[1, 0])


def test_a_cost_that_was_never_observed_is_not_expected() -> None:
    rows = rows_of(World().log(2000, 100))
    heads = fitted(replace(rows, cost=torch.full_like(rows.cost, torch.nan)))
    assert heads is not None
    assert heads.hazard[0, 0, 0] < -10.0
    assert heads.value.isfinite().all()


def test_too_few_messages_values_or_users_give_no_model() -> None:
    rows = rows_of(World().log(4 * MIN_MESSAGES, 100))
    sent = torch.from_numpy(rows.actions[:, 0] > 0).nonzero()[:, 0]
    assert fitted(rows.take(sent[: MIN_MESSAGES - 1])) is None
    assert fitted(rows.take(sent[:MIN_MESSAGES])) is not None  # without a single decision to send nothing
    assert fitted(replace(rows, value=torch.full_like(rows.value, torch.nan))) is None
    one = torch.zeros_like(rows.user)
    assert fitted(replace(rows, user=one, fold=one)) is None


def test_everybody_or_nobody_engages() -> None:
    rows = rows_of(World().log(2000, 100))
    for engaged in (0.0, 1.0):
        heads = fitted(replace(rows, engaged=torch.full_like(rows.engaged, engaged)))
        assert heads is not None
        assert heads.value.isfinite().all()
        design, cells = Design.build(PLAIN, 3), Design.build(PLAIN, 3).cells_of(messages(100, PLAIN))
        p = predict(design, heads.value[ENGAGEMENT, 0], contexts(100, 3), cells)
        torch.testing.assert_close(p, torch.full_like(p, engaged), rtol=0.0, atol=0.02)


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = rows_of(World().log(3000, 100))
    mixed = rows.take(torch.randperm(3000, generator=torch.Generator().manual_seed(0)))
    first, second = fitted(rows), fitted(mixed)
    assert first is not None
    assert second is not None
    torch.testing.assert_close(first.value, second.value, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(first.hazard, second.hazard, rtol=1e-3, atol=1e-3)
    assert first.blend.funnel == pytest.approx(second.blend.funnel, abs=1e-4)


def test_the_members_average_to_the_best_estimate() -> None:
    heads = fitted(rows_of(World().log(2000, 100)))
    assert heads is not None
    for part in (heads.value, heads.hazard):
        torch.testing.assert_close(part[:, 1:].mean(1), part[:, 0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(Heads.from_state_dict(heads.state_dict()).value, heads.value, rtol=0.0, atol=0.0)


def moved(before: ActionSpace, present: ActionSpace, heads: Heads | None = None) -> tuple[Heads, Heads, Design, Design]:
    width = 2 if heads is None else 3
    old, new = Design.build(before, width), Design.build(known_actions(present, before), width)
    if heads is None:
        g = torch.Generator().manual_seed(3)
        value, hazard = torch.randn(4, 9, old.columns, generator=g), torch.randn(1, 9, old.columns, generator=g)
        sd = torch.full((5, old.blocks), 0.1)
        heads = Heads(value, hazard, torch.zeros(1), torch.tensor([False, True, True]), Blend(), sd)
        for part in (heads.value, heads.hazard):
            part[:, 0] = part[:, 1:].mean(1)
    return heads, moved_heads(heads, old, new, torch.Generator().manual_seed(0)), old, new


def cells_of(design: Design, part: Tensor, m: int) -> Tensor:
    start = design.starts[m]
    own = part[..., start : start + design.cells[m] * design.each]
    return own.reshape(*part.shape[:-1], design.cells[m], design.each)


def test_known_cells_keep_their_heads_to_the_bit_and_new_channels_are_not_tested() -> None:
    present = ActionSpace(
        [
            Module("channel", ("none", "push", "app")),  # e-mail retires
            Module("hour", ("noon", "night", "morning"), condition_on="channel"),
            TABLES[2],
            TABLES[3],
        ]
    )
    heads, after, old, new = moved(TABLES, present)
    for m in range(4):
        place = torch.from_numpy(previous_cells(TABLES, new.modules, m))
        for a, b in ((heads.value, after.value), (heads.hazard, after.hazard)):
            kept = cells_of(new, b, m)[:, :, place >= 0]
            assert torch.equal(kept, cells_of(old, a, m)[:, :, place[place >= 0]])
            assert cells_of(new, b, m).isfinite().all()
    assert torch.equal(after.value[..., : new.base], heads.value[..., : old.base])
    tested = dict(zip(new.modules[0].actions, after.tested.tolist(), strict=True))
    assert tested == {"none": False, "push": True, "app": False, "email": True}


def test_new_actions_start_from_their_labels_and_vary_as_the_prior_does() -> None:
    labels = {"a": {"kind": "x"}, "b": {"kind": "y"}, "c": {"kind": "x"}}
    channel = Module("channel", ("none", "email", "push"))
    before = ActionSpace([channel, Module("offer", ("a", "b"), labels={k: labels[k] for k in "ab"})])
    present = ActionSpace([channel, Module("offer", ("a", "b", "c", "d"), labels=labels)])
    heads, after, old, new = moved(before, present)
    known, found = cells_of(old, heads.value, 1)[:, 0], cells_of(new, after.value, 1)[:, 0]
    like, unlike = found[:, 2], found[:, 3]
    correlation = torch.linalg.inv(new.affinity[1])
    loading = correlation[2, :2] @ torch.linalg.inv(correlation[:2, :2])
    torch.testing.assert_close(like.double(), torch.einsum("k,pke->pe", loading, known.double()), rtol=1e-5, atol=1e-6)
    assert loading[0] > 0.3
    assert abs(loading[1]) < 0.05
    assert unlike.abs().max() < 1e-6  # no label: nothing is known of it
    members = cells_of(new, after.value, 1)[:, 1:]
    torch.testing.assert_close(members.mean(1), found, rtol=1e-4, atol=1e-5)
    spread = members[:, :, 3].std(1)  # 8 members, 4 components, 3 features, of a prior standard deviation of 0.1
    assert spread.square().mean().sqrt().item() == pytest.approx(0.1 * correlation[3, 3].sqrt().item(), rel=0.45)


def test_actions_that_change_the_number_of_features_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Design.build(PLAIN, 3)
    monkeypatch.setattr(module, "MAX_COLUMNS", old.columns)
    more = ActionSpace([PLAIN[0], PLAIN[1], Module("offer", ("small", "large", "huge", "none"))])
    heads = Heads(
        torch.zeros(4, 3, old.columns),
        torch.zeros(0, 3, old.columns),
        torch.zeros(0),
        torch.zeros(3, dtype=torch.bool),
        Blend(),
        torch.ones(4, old.blocks),
    )
    with pytest.raises(ValueError, match="train a new agent"):
        moved_heads(heads, old, Design.build(more, 3), torch.Generator())


def test_few_messages_teach_effects_without_slopes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the model is that of a design without slopes, told in the columns of the whole design."""
    monkeypatch.setattr(module, "MESSAGES_PER_COLUMN", 4)
    design = Design.build(PLAIN, 3)
    few = rows_of(World().log(150))
    found = fitted(few)
    assert found is not None
    assert len(few) < 4 * design.columns
    small = fit_heads(design.with_intercepts_only(), few, torch.tensor([2.0]), 8, torch.Generator().manual_seed(0))
    assert small is not None
    x, cells = contexts(40, 3, seed=5), design.cells_of(messages(40, PLAIN, seed=5))
    for wide, narrow in zip(found.value.flatten(0, 1), small.value.flatten(0, 1), strict=True):
        expected = predict(design.with_intercepts_only(), narrow.double(), x, cells)
        torch.testing.assert_close(predict(design, wide.double(), x, cells), expected)
    slopes = torch.ones(design.columns, dtype=torch.bool)
    slopes[: design.base] = False
    for start, count in zip(design.starts, design.cells, strict=True):
        slopes[start : start + count * design.each : design.each] = False
    assert slopes.any()
    assert bool((found.value[..., slopes] == 0).all())
    # An action that comes then varies as its module's intercepts do, and has no slopes.
    wide, narrow = ((d.block[d.starts[2]], d) for d in (design, design.with_intercepts_only()))
    torch.testing.assert_close(found.sd[:, wide[0]], small.sd[:, narrow[0]])
    for m in range(len(PLAIN)):
        more = [replace(one, actions=(*one.actions, "new")) if k == m else one for k, one in enumerate(PLAIN)]
        _, after, _, new = moved(PLAIN, ActionSpace(more), found)
        come = cells_of(new, after.value, m)[:, 1:, -1]
        assert bool((come[..., 1:] == 0).all())
        own = found.sd[: ALL_SENDS + 1, design.block[design.starts[m]]].float()
        # Of 8 members whose mean is 0: within what a chi-square of 7 degrees of freedom hardly ever leaves.
        assert bool(((come[..., 0].std(1) > 0.1 * own) & (come[..., 0].std(1) < 2.5 * own)).all())


def test_halves_share_no_error_of_what_is_usual() -> None:
    """What one half's controls say enters its own messages alone: otherwise its noise would confirm itself."""
    rows, price = rows_of(World().log(3000)), torch.tensor([2.0])
    design = Design.build(PLAIN, rows.x.shape[1])
    controls, sent = rows.controls(PLAIN), rows.messages(PLAIN)
    others = replace(controls, value=controls.value + (controls.fold == 1) * controls.x[:, 0])
    some, more = (Usual.fit(design, each, sent, price).less(design, sent, price) for each in (controls, others))
    assert torch.equal(some.value[sent.fold == 0], more.value[sent.fold == 0])
    assert (some.value - more.value)[sent.fold == 1].abs().mean() > 0.5
    # A half without a control has what the other says.
    alone = controls.take((controls.fold == 0).nonzero()[:, 0])
    found = Usual.fit(design, alone, sent, price).coefficients
    assert torch.equal(found[0], found[1])
    assert found.abs().max() > 0.0
