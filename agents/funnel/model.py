"""The funnel model: engagement, gain, direct effect and hazards of every action, from the components of rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from crosschannel.agents.ensemble.noise import learn_noise, noise_factor, row_weights, subsample
from crosschannel.agents.funnel.calibration import Blend, Predictions
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.hazards import fit_hazard, predict
from crosschannel.agents.funnel.regression import Posterior, centred, fit, refit
from crosschannel.agents.funnel.rows import FOLDS, FunnelRows
from crosschannel.agents.funnel.sums import DesignStatistics, sum_common, sum_rows
from crosschannel.core.action_changes import previous_cells

#: The components of a value; hazards of cost events follow them.
ENGAGEMENT, GAIN, DIRECT, ALL_SENDS = range(4)
COMPONENTS = ("engagement", "gain", "direct", "all sends")
GUESS = 1e-2
#: Ridge of the regression of what happens without a message, in rows.
CONTROL_RIDGE = 1.0
#: Messages for each column from which the actions' effects vary with the context; a fit of few rows is then cheap too.
MESSAGES_PER_COLUMN = 4
#: Messages below which no model is fitted.
MIN_MESSAGES = 50
#: Largest weight of a message.
MAX_WEIGHT = 4.0


@dataclass(frozen=True)
class Heads:
    """Coefficients of the components, float32: the best estimate, then the members.

    Attributes:
        value: Engagement, gain, direct effect, and the regression of all sends (4, 1 + K, columns).
        hazard: The logarithm of each cost event's hazard (C, 1 + K, columns).
        organic: Probability of each cost event where nothing is sent (C,).
        tested: Whether the log tells who engaged with the messages of each action of the first module (A,).
        blend: Weights of the funnel and of the regression of all sends.
        sd: Standard deviation that each block of columns has, by component, costs last (4 + C, blocks).
    """

    value: Tensor
    hazard: Tensor
    organic: Tensor
    tested: Tensor
    blend: Blend
    sd: Tensor

    def state_dict(self) -> dict[str, Any]:
        """Return the heads as tensors and plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"blend": asdict(self.blend)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Heads:
        """Restore what `state_dict` returned."""
        tensors = {f.name: state[f.name].clone() for f in fields(cls) if f.name != "blend"}
        return cls(**tensors, blend=Blend(**state["blend"]))

    def best(self) -> Heads:
        """Return the best estimates alone."""
        return replace(self, value=self.value[:, :1], hazard=self.hazard[:, :1])

    def of_present(self, actions: Tensor) -> Heads:
        """Return the heads with `tested` for some of the first module's actions (A,)."""
        return replace(self, tested=self.tested[actions])


@dataclass(frozen=True)
class _Messages:
    """The rows in which something was sent, less what the context predicts without a message.

    Attributes:
        rows: The rows.
        cells: Each module's cell (n, M).
        engaged: 1 if engaged, 0 if not or if the channel is not tested, NaN where that is not known (n,).
        tested: Which actions of the first module are tested (A,).
        value: Value less the usual (n,).
        reward: Reward less the usual (n,).
        gross: Reward without the observed cost events, less the usual (n,).
        weight: Weights (n,): the noisier values are in a context, the less its messages count.
    """

    rows: FunnelRows
    cells: Tensor
    engaged: Tensor
    tested: Tensor
    value: Tensor
    reward: Tensor
    gross: Tensor
    weight: Tensor

    def sums(self, design: Design, fold: int) -> list[DesignStatistics]:
        """Return one fold's sums for each component, then for what the surrogates miss of gain and direct effect.

        The engaged and the others are summed once for all of them.
        """
        mine = self.rows.fold == fold
        known = self.tested[torch.from_numpy(self.rows.actions[:, 0])]

        def summed(which: Tensor) -> DesignStatistics:
            at = (mine & which).nonzero()[:, 0]
            engaged = self.engaged[at].nan_to_num(0.0)
            targets = torch.stack([engaged, self.value[at], self.gross[at], self.gross[at] - self.value[at]], 1)
            return sum_rows(design, self.rows.x[at], self.cells[at], targets, self.weight[at])

        engaged, others = summed(self.engaged == 1.0), summed((self.engaged == 0.0) & known)
        untested, unknown = summed(~known), summed(self.engaged.isnan())
        seen = engaged + others
        everybody = seen + untested + unknown
        unengaged = others + untested
        parts = [seen.target(0), engaged.target(1), unengaged.target(1), everybody.target(2)]
        return [*parts, engaged.target(3), unengaged.target(3)]


def fit_heads(
    design: Design, rows: FunnelRows, weights: Tensor, members: int, generator: torch.Generator
) -> Heads | None:
    """Fit all components; return None while messages are too few.

    Values and rewards are taken less what a regression on the context predicts of decisions without a message, so that
    what users do anyway is not credited to messages. Gain and direct effect have regressions of their own, on those who
    engaged and on those who did not. Each is the sum of two: of the value, in which surrogates may stand for goals, and
    of what the goals themselves were beyond it, with a weight from users that it has not learned from: where surrogates
    hold, the second is noise. The regression of all sends leaves out the cost events that were observed, as these have
    hazards of their own.

    Args:
        design: The columns.
        rows: The rows.
        weights: Prices of the cost events (C,), in reward units.
        members: Number of draws K from the posterior.
        generator: Source of the draws.
    """
    sends = torch.from_numpy(design.modules.sends(rows.actions))
    known = rows.value.isfinite()
    controls, sent = rows.take((~sends & known).nonzero()[:, 0]), rows.take((sends & known).nonzero()[:, 0])
    if len(sent) < MIN_MESSAGES or len(torch.unique(sent.fold)) < FOLDS:
        return None
    if design.each > 1 and len(sent) < MESSAGES_PER_COLUMN * design.columns:
        small = design.with_intercepts_only()
        found = fit_heads(small, rows, weights, members, generator)
        return None if found is None else _with_slopes(found, small, design)
    messages = _less_usual(design, controls, sent, weights)
    by_fold = [messages.sums(design, fold) for fold in range(FOLDS)]
    total = [first + second for first, second in zip(*by_fold, strict=True)]
    fitted = [fit(design, sums, GUESS) for sums in total]

    hazards, organic = [], []
    for c in range(rows.cost.shape[1]):
        seen, idle = sent.cost[:, c].isfinite(), controls.cost[:, c]
        idle = idle[idle.isfinite()]
        organic.append(float(idle.mean()) if len(idle) else 0.0)
        hazards.append(fit_hazard(design, sent.x[seen], messages.cells[seen], sent.cost[seen, c]))
    cost = _expected_cost(design, messages, [h.mean for h in hazards], torch.tensor(organic), weights)
    blend = _blend(design, messages, by_fold, fitted, cost)

    fits = (*fitted, *hazards)
    drawn = [_with_members(each, torch.randn(design.columns, members, generator=generator)) for each in fits]
    variance = [each.variance * each.noise for each in fits]
    value = _with_missed(drawn[: len(fitted)], blend.missed)
    value[:ALL_SENDS] = [design.scale_slopes(head, blend.personal) for head in value[:ALL_SENDS]]
    spread = _with_missed(variance[: len(fitted)], blend.missed**2)
    hazard = torch.stack(drawn[len(fitted) :]) if hazards else torch.zeros(0, 1 + members, design.columns)
    sd = torch.stack([*spread, *variance[len(fitted) :]]).sqrt()
    sd[:ALL_SENDS, 4::2] *= blend.personal  # the slopes of each module's effects
    return Heads(torch.stack(value), hazard, torch.tensor(organic), messages.tested, blend, sd)


def _with_missed(parts: list[Tensor], weight: float) -> list[Tensor]:
    """Return the components, with what surrogates miss added to gain and direct effect by a weight."""
    engagement, gain, direct, all_sends, missed_gain, missed_direct = parts
    return [engagement, gain + weight * missed_gain, direct + weight * missed_direct, all_sends]


def _with_slopes(heads: Heads, small: Design, design: Design) -> Heads:
    """Return heads that were fitted without the cells' slopes, with slopes of 0."""

    def widened(found: Tensor) -> Tensor:
        out = found.new_zeros(*found.shape[:2], design.columns)
        out[..., : design.base] = found[..., : small.base]
        for start, own, count in zip(design.starts, small.starts, design.cells, strict=True):
            out[..., start : start + count * design.each : design.each] = found[..., own : own + count]
        return out

    return replace(heads, value=widened(heads.value), hazard=widened(heads.hazard))


def _less_usual(design: Design, controls: FunnelRows, sent: FunnelRows, weights: Tensor) -> _Messages:
    tested = torch.zeros(design.modules.sizes[0], dtype=torch.bool)
    channel = torch.from_numpy(sent.actions[:, 0])
    tested[channel[sent.engaged.isfinite()]] = True
    targets = torch.stack([controls.value, controls.reward, controls.gross(weights)], 1)
    sums = sum_common(design, controls.x, targets)
    ridge = CONTROL_RIDGE * torch.eye(design.base, dtype=torch.float64)
    coefficients = torch.linalg.solve(sums.gram + ridge, sums.moment).float()
    usual = design.common(sent.x) @ coefficients
    factor = torch.ones(len(sent))
    if len(controls):
        some = subsample(len(controls))
        square = (targets[some, 0] - design.common(controls.x[some]) @ coefficients[:, 0]).square()
        factor = noise_factor(sent.x, learn_noise(controls.x[some], square))
    engaged = torch.where(tested[channel], sent.engaged, torch.zeros_like(sent.engaged))
    cells = design.cells_of(sent.actions)
    return _Messages(
        rows=sent,
        cells=cells,
        engaged=engaged,
        tested=tested,
        value=sent.value - usual[:, 0],
        reward=sent.reward - usual[:, 1],
        gross=sent.gross(weights) - usual[:, 2],
        weight=row_weights(torch.ones_like(factor), factor, MAX_WEIGHT),
    )


def _expected_cost(
    design: Design, messages: _Messages, hazards: list[Tensor], organic: Tensor, weights: Tensor
) -> Tensor:
    """Return what the messages' cost events are expected to cost (n,), beyond those without a message."""
    out = torch.zeros(len(messages.rows))
    for head, usual, weight in zip(hazards, organic, weights, strict=True):
        rate = predict(design, head, messages.rows.x, messages.cells).exp().clamp(max=1.0)
        out += weight * (rate - usual).clamp_min(0.0)
    return out


def _blend(
    design: Design, messages: _Messages, by_fold: list[list[DesignStatistics]], found: list[Posterior], cost: Tensor
) -> Blend:
    """Weigh the funnel's parts and all sends by rewards of users that taught none of them."""
    funnel, missed, general, general_missed, everybody = torch.zeros(5, len(cost)).unbind()
    for fold in range(FOLDS):
        at = (messages.rows.fold == fold).nonzero()[:, 0]
        heads = [refit(design, sums, each).mean for sums, each in zip(by_fold[1 - fold], found, strict=True)]
        x, cells = messages.rows.x[at], messages.cells[at]
        tested = messages.tested[torch.from_numpy(messages.rows.actions)[at, 0]]
        everybody[at] = predict(design, heads.pop(ALL_SENDS), x, cells)
        for weight, values, beyond in ((1.0, funnel, missed), (0.0, general, general_missed)):
            scaled = (design.scale_slopes(head, weight) for head in heads)
            p, gain, direct, missed_gain, missed_direct = (predict(design, head, x, cells) for head in scaled)
            p = p.clamp(0.0, 1.0) * tested
            values[at] = p * gain + (1.0 - p) * direct
            beyond[at] = p * missed_gain + (1.0 - p) * missed_direct
    predictions = Predictions(
        funnel=funnel,
        missed=missed,
        general=general,
        general_missed=general_missed,
        all_sends=everybody,
        cost=cost,
    )
    return Blend.fit(messages.reward, predictions, messages.rows.user)


def _with_members(posterior: Posterior, normals: Tensor) -> Tensor:
    return torch.cat([posterior.mean.unsqueeze(1), posterior.draws(normals.double())], 1).t().float().contiguous()


def moved_heads(heads: Heads, before: Design, after: Design, generator: torch.Generator) -> Heads:
    """Return the heads of other actions: known cells keep theirs, new ones are predicted by cells with their labels.

    The prediction is the prior's expectation given the known cells, and the members vary around it as the prior does
    (kriging, with the correlation of the labels). A new action of the first module is not tested.

    Args:
        heads: The heads for the earlier actions.
        before: The earlier columns.
        after: The present columns.
        generator: Source of the members' deviations.
    """
    if after.each != before.each:
        raise ValueError("with these actions the effects have another number of features: train a new agent")
    parts = torch.cat([heads.value, heads.hazard]).double()
    out = torch.zeros(*parts.shape[:2], after.columns, dtype=torch.float64)
    out[..., : after.base] = parts[..., : before.base]
    for m in range(len(after.cells)):
        place = torch.from_numpy(previous_cells(before.modules, after.modules, m))
        known, new = (place >= 0).nonzero()[:, 0], (place < 0).nonzero()[:, 0]
        start, stop = before.starts[m], before.starts[m] + before.cells[m] * before.each
        every = parts[..., start:stop].reshape(*parts.shape[:2], before.cells[m], before.each)
        old = every[:, :, place[known]]
        cells = torch.zeros(*parts.shape[:2], after.cells[m], after.each, dtype=torch.float64)
        cells[:, :, known] = old
        if len(new):
            correlation = torch.linalg.inv(after.affinity[m])
            loading = correlation[new][:, known] @ torch.linalg.inv(correlation[known][:, known])
            rest = correlation[new][:, new] - loading @ correlation[known][:, new]
            root = torch.linalg.cholesky(rest + 1e-9 * torch.eye(len(new), dtype=torch.float64))
            sd = heads.sd[:, after.block[after.starts[m] : after.starts[m] + after.each]]
            normals = torch.randn(*parts.shape[:2], len(new), after.each, generator=generator, dtype=torch.float64)
            normals = torch.cat([torch.zeros_like(normals[:, :1]), centred(normals[:, 1:], 1)], 1)
            spread = torch.einsum("ab,pvbe->pvae", root, normals) * sd[:, None, None, :]
            cells[:, :, new] = torch.einsum("nk,pvke->pvne", loading, old) + spread
        out[..., after.starts[m] : after.starts[m] + after.cells[m] * after.each] = cells.flatten(-2)
    tested = torch.zeros(after.cells[0], dtype=torch.bool)
    first = torch.from_numpy(previous_cells(before.modules, after.modules, 0))
    tested[first >= 0] = heads.tested[first[first >= 0]]
    value, hazard = out[: len(heads.value)].float(), out[len(heads.value) :].float()
    return replace(heads, value=value, hazard=hazard, tested=tested)
