"""The funnel model: engagement, gain, direct effect and hazards of every action, from the components of rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from crosschannel.agents.funnel.calibration import Blend, Predictions, weight_of_missed
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.hazards import HazardFit, fit_hazard, predict
from crosschannel.agents.funnel.personal import personal_weight
from crosschannel.agents.funnel.regression import Posterior, centred, fit, refit
from crosschannel.agents.funnel.rows import FOLDS, FunnelRows, Messages, MessageSums, Usual
from crosschannel.agents.funnel.values import ALL_SENDS, Heads
from crosschannel.core.action_changes import previous_cells

GUESS = 1e-2
#: Messages for each column from which the actions' effects vary with the context; a fit of few rows is then cheap too.
MESSAGES_PER_COLUMN = 1
#: Messages below which no model is fitted.
MIN_MESSAGES = 50


@dataclass(frozen=True)
class Fit:
    """A fitted model, to which later rows can be added.

    What it has learned beside coefficients (what is usual without a message, how noisy contexts are, the blocks' prior
    variances, the hazards' working responses, the blend) stays as it is; coefficients follow from the sums.

    Attributes:
        slopes: Whether the cells' effects vary with the context; not while messages are few.
        usual: What happens without a message, and how noisy it is.
        sums: Sums over the messages.
        hazards: The hazards of cost events, each with its sums.
        organic: Probability of each cost event where nothing is sent (C,).
        variance: Prior variances of the components' blocks, in units of the noise (6, blocks).
        noise: Variance of a row around its expectation, by component (6,).
        blend: Weights of the funnel's parts and of the regression of all sends.
    """

    slopes: bool
    usual: Usual
    sums: MessageSums
    hazards: tuple[HazardFit, ...]
    organic: Tensor
    variance: Tensor
    noise: Tensor
    blend: Blend

    def design(self, full: Design) -> Design:
        """Return the columns of the fit, given those of all effects."""
        return full if self.slopes else full.with_intercepts_only()

    def state_dict(self) -> dict[str, Any]:
        """Return the fit as tensors and plain values."""
        parts = {"usual": self.usual.state_dict(), "sums": self.sums.state_dict()}
        hazards = [hazard.state_dict() for hazard in self.hazards]
        return (
            {f.name: getattr(self, f.name) for f in fields(self)}
            | parts
            | {"hazards": hazards, "blend": asdict(self.blend)}
        )

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Fit:
        """Restore what `state_dict` returned."""
        return cls(
            slopes=bool(state["slopes"]),
            usual=Usual.from_state_dict(state["usual"]),
            sums=MessageSums.from_state_dict(state["sums"]),
            hazards=tuple(HazardFit.from_state_dict(each) for each in state["hazards"]),
            organic=state["organic"].clone(),
            variance=state["variance"].clone(),
            noise=state["noise"].clone(),
            blend=Blend(**state["blend"]),
        )


def fit_model(design: Design, rows: FunnelRows, weights: Tensor) -> Fit | None:
    """Fit all components; return None while messages are too few.

    Values and rewards are taken less what a regression on the context predicts of decisions without a message, so that
    what users do anyway is not credited to messages. Gain and direct effect have regressions of their own, on those who
    engaged and on those who did not. Each is the sum of two: of the value, in which surrogates may stand for goals, and
    of what the goals themselves were beyond it, with a weight from users that it has not learned from: where surrogates
    hold, the second is noise. The regression of all sends leaves out the cost events that were observed, as these have
    hazards of their own.

    Args:
        design: The columns of all effects.
        rows: The rows.
        weights: Prices of the cost events (C,), in reward units.
    """
    controls, sent = rows.controls(design.modules), rows.messages(design.modules)
    if len(sent) < MIN_MESSAGES or len(torch.unique(sent.fold)) < FOLDS:
        return None
    slopes = design.each == 1 or len(sent) >= MESSAGES_PER_COLUMN * design.columns
    used = design if slopes else design.with_intercepts_only()
    usual = Usual.fit(used, controls, sent, weights)
    messages = usual.less(used, sent, weights)
    by_fold = [messages.sums(used, fold) for fold in range(FOLDS)]
    sums = by_fold[0] + by_fold[1]
    fitted = [fit(used, each, GUESS) for each in sums.by_component()]
    hazards, organic = [], []
    for c in range(rows.cost.shape[1]):
        seen, idle = sent.cost[:, c].isfinite(), controls.cost[:, c]
        idle = idle[idle.isfinite()]
        organic.append(float(idle.mean()) if len(idle) else 0.0)
        hazards.append(fit_hazard(used, sent.x[seen], messages.cells[seen], sent.cost[seen, c]))
    cost = _expected_cost(used, messages, hazards, torch.tensor(organic), weights)
    return Fit(
        slopes=slopes,
        usual=usual,
        sums=sums,
        hazards=tuple(hazards),
        organic=torch.tensor(organic),
        variance=torch.stack([each.variance for each in fitted]),
        noise=torch.tensor([each.noise for each in fitted], dtype=torch.float64),
        blend=_blend(used, messages, by_fold, fitted, cost),
    )


def add_rows(design: Design, found: Fit, rows: FunnelRows, weights: Tensor) -> Fit:
    """Return a fit with later rows added to its sums."""
    used, sent = found.design(design), rows.messages(design.modules)
    messages = found.usual.less(used, sent, weights)
    sums = found.sums
    for fold in range(FOLDS):
        sums = sums + messages.sums(used, fold)
    hazards = []
    for c, hazard in enumerate(found.hazards):
        seen = sent.cost[:, c].isfinite()
        hazards.append(hazard.with_rows(used, sent.x[seen], messages.cells[seen], sent.cost[seen, c]))
    return replace(found, sums=sums, hazards=tuple(hazards))


def solve(design: Design, found: Fit, members: int, generator: torch.Generator) -> Heads:
    """Return the coefficients that follow from a fit's sums: the best estimate, and draws from the posterior.

    Args:
        design: The columns of all effects.
        found: The fit.
        members: Number of draws K.
        generator: Source of the draws.
    """
    used = found.design(design)
    fitted = [
        refit(used, sums, variance, noise)
        for sums, variance, noise in zip(found.sums.by_component(), found.variance, found.noise.tolist(), strict=True)
    ]
    hazards = [hazard.solve(used) for hazard in found.hazards]
    fits = (*fitted, *hazards)
    drawn = [_with_members(each, torch.randn(used.columns, members, generator=generator)) for each in fits]
    variance = [each.variance * each.noise for each in fits]
    blend = found.blend
    value = _with_missed(drawn[: len(fitted)], blend.missed)
    value[:ALL_SENDS] = [used.scale_slopes(head, blend.personal) for head in value[:ALL_SENDS]]
    spread = _with_missed(variance[: len(fitted)], blend.missed**2)
    hazard = torch.stack(drawn[len(fitted) :]) if hazards else torch.zeros(0, 1 + members, used.columns)
    sd = torch.stack([*spread, *variance[len(fitted) :]]).sqrt()
    sd[:ALL_SENDS, 4::2] *= blend.personal  # the slopes of each module's effects
    heads = Heads(torch.stack(value), hazard, found.organic, found.usual.tested, blend, sd)
    return heads if found.slopes else _with_slopes(heads, used, design)


def fit_heads(
    design: Design, rows: FunnelRows, weights: Tensor, members: int, generator: torch.Generator
) -> Heads | None:
    """Fit all components and solve for their coefficients; see `fit_model` and `solve`."""
    found = fit_model(design, rows, weights)
    return None if found is None else solve(design, found, members, generator)


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


def _expected_cost(
    design: Design, messages: Messages, hazards: list[HazardFit], organic: Tensor, weights: Tensor
) -> Tensor:
    """Return what the messages' cost events are expected to cost (n,), beyond those without a message."""
    out = torch.zeros(len(messages.rows))
    for hazard, usual, weight in zip(hazards, organic, weights, strict=True):
        rate = predict(design, hazard.solve(design).mean, messages.rows.x, messages.cells).exp().clamp(max=1.0)
        out += weight * (rate - usual).clamp_min(0.0)
    return out


def _blend(
    design: Design, messages: Messages, by_fold: list[MessageSums], found: list[Posterior], cost: Tensor
) -> Blend:
    """Weigh the funnel's parts and all sends by rewards of users that taught none of them."""
    folds = [(messages.rows.fold == fold).nonzero()[:, 0] for fold in range(FOLDS)]
    taught = []  # the best estimates by what each half of the users taught
    for sums in by_fold:
        pairs = zip(sums.by_component(), found, strict=True)
        taught.append([refit(design, each, fit.variance, fit.noise).mean for each, fit in pairs])
    all_sends = torch.zeros(len(cost))
    for fold, at in enumerate(folds):
        head = taught[1 - fold][ALL_SENDS]
        all_sends[at] = predict(design, head, messages.rows.x[at], messages.cells[at])
    funnel, missed = _funnel_values(design, messages, folds, taught, 1.0)
    missing = weight_of_missed(messages.reward + cost - funnel, missed)
    heads = [_values_alone(each, missing, messages.tested) for each in taught]
    personal = personal_weight(design, heads, [messages.rows.x[at] for at in folds])
    used, used_missed = funnel, missed
    if personal < 1.0:
        used, used_missed = _funnel_values(design, messages, folds, taught, personal)
    predictions = Predictions(funnel=funnel, used=used + missing * used_missed, all_sends=all_sends, cost=cost)
    return Blend.fit(messages.reward, predictions, messages.rows.user, missing, personal)


def _funnel_values(
    design: Design, messages: Messages, folds: list[Tensor], taught: list[list[Tensor]], personal: float
) -> tuple[Tensor, Tensor]:
    """Return the funnel's values of messages, and what surrogates miss (n,), each by what the other half taught."""
    values, beyond = torch.zeros(2, len(messages.rows)).unbind()
    for fold, at in enumerate(folds):
        x, cells = messages.rows.x[at], messages.cells[at]
        tested = messages.tested[torch.from_numpy(messages.rows.actions)[at, 0]]
        heads = [design.scale_slopes(head, personal) for c, head in enumerate(taught[1 - fold]) if c != ALL_SENDS]
        p, gain, direct, missed_gain, missed_direct = (predict(design, head, x, cells) for head in heads)
        p = p.clamp(0.0, 1.0) * tested
        values[at] = p * gain + (1.0 - p) * direct
        beyond[at] = p * missed_gain + (1.0 - p) * missed_direct
    return values, beyond


def _values_alone(parts: list[Tensor], missing: float, tested: Tensor) -> Heads:
    """Return best estimates as heads without hazards, which value messages by the funnel before costs."""
    value = torch.stack(_with_missed(parts, missing)).float().unsqueeze(1)
    nothing = torch.zeros(0)
    return Heads(value, value[:0], nothing, tested, Blend(), nothing)


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
