"""The funnel model: engagement, gain, direct effect and hazards of every action, from the components of rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from crosschannel.agents.funnel.calibration import Blend, BlendSums, JudgedMessages, Predictions
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.hazards import HazardFit, fit_hazard, predict
from crosschannel.agents.funnel.personal import contexts_to_judge, personal_weight
from crosschannel.agents.funnel.regression import Posterior, centred, fit, refit
from crosschannel.agents.funnel.rows import FOLDS, FunnelRows, Messages, MessageSums, Usual
from crosschannel.agents.funnel.values import ALL_SENDS, Heads
from crosschannel.core.action_changes import previous_cells

#: Prior variance of a block of columns, in units of the noise, from which learning starts.
GUESSED_VARIANCE = 1e-2
#: Draws from the posterior of each half of the users, by which policies are compared.
JUDGES = 32
#: Messages below which no model is fitted.
MIN_MESSAGES = 50


@dataclass(frozen=True)
class Fit:
    """A fitted model, to which later rows can be added.

    What it has learned beside coefficients (what is usual without a message, how noisy contexts are, the blocks' prior
    variances, the hazards' working responses, the blend) stays as it is; coefficients follow from the sums.

    Attributes:
        messages: Number of messages from which the columns follow: effects vary less while these are few.
        usual: What happens without a message, and how noisy it is.
        sums: Sums over the messages.
        hazards: The hazards of cost events, each with its sums.
        organic: Probability of each cost event where nothing is sent (C,).
        variance: Prior variances of the components' blocks, in units of the noise (6, blocks).
        noise: Variance of a row around its expectation, by component (6,).
        blend: Weights of the funnel's parts and of the regression of all sends.
    """

    messages: int
    usual: Usual
    sums: MessageSums
    hazards: tuple[HazardFit, ...]
    organic: Tensor
    variance: Tensor
    noise: Tensor
    blend: Blend

    def design(self, full: Design) -> Design:
        """Return the columns of the fit, given those of all effects."""
        return full.of_rows(self.messages)

    def state_dict(self) -> dict[str, Any]:
        """Return the fit as tensors and plain values."""
        parts = {"usual": self.usual.state_dict(), "sums": self.sums.state_dict()}
        hazards = [hazard.state_dict() for hazard in self.hazards]
        return (
            {f.name: getattr(self, f.name) for f in fields(self)}
            | parts
            | {"hazards": hazards, "blend": self.blend.to_dict()}
        )

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Fit:
        """Restore what `state_dict` returned."""
        return cls(
            messages=int(state["messages"]),
            usual=Usual.from_state_dict(state["usual"]),
            sums=MessageSums.from_state_dict(state["sums"]),
            hazards=tuple(HazardFit.from_state_dict(each) for each in state["hazards"]),
            organic=state["organic"].clone(),
            variance=state["variance"].clone(),
            noise=state["noise"].clone(),
            blend=Blend.from_dict(state["blend"]),
        )


def fit_model(design: Design, rows: FunnelRows, weights: Tensor) -> Fit | None:
    """Fit all components; return None while messages are too few.

    Values and rewards are taken less what a regression on the context predicts of decisions without a message, so that
    what users do anyway is not credited to messages. Gain and direct effect have regressions of their own, on those who
    engaged and on those who did not. Each is the sum of two: of the value, in which surrogates may stand for goals, and
    of what the goals themselves were beyond it, with a weight from users that it has not learned from: where surrogates
    hold, the second is noise. The regression of all sends is of the value of every message, whoever engaged: less
    noise where engagement tells little.

    Args:
        design: The columns of all effects.
        rows: The rows.
        weights: Prices of the cost events (C,), in reward units.
    """
    controls, sent = rows.controls(design.modules), rows.messages(design.modules)
    if len(sent) < MIN_MESSAGES or len(torch.unique(sent.fold)) < FOLDS:
        return None
    used = design.of_rows(len(sent))
    usual = Usual.fit(used, controls, sent, weights)
    messages = usual.less(used, sent, weights)
    by_fold = [messages.sums(used, fold) for fold in range(FOLDS)]
    sums = by_fold[0] + by_fold[1]
    variance, noise = fit_priors(used, sums)
    hazards, organic = [], []
    for c in range(rows.cost.shape[1]):
        seen, idle = sent.cost[:, c].isfinite(), controls.cost[:, c]
        idle = idle[idle.isfinite()]
        organic.append(float(idle.mean()) if len(idle) else 0.0)
        hazards.append(fit_hazard(used, sent.x[seen], messages.cells[seen], sent.cost[seen, c], sent.fold[seen]))
    logs = [hazard.followed(used, hazard.solve(used).mean) for hazard in hazards]
    cost = expected_cost(used, messages, logs, torch.tensor(organic), weights)
    halves = taught_by_halves(used, by_fold, variance, noise)
    personal = followed(used, halves, usual.tested, contexts_to_judge(sent))
    blend = BlendSums.from_messages(used.base, [judged_messages(used, messages, halves, personal, cost)])
    return Fit(
        messages=len(sent),
        usual=usual,
        sums=sums,
        hazards=tuple(hazards),
        organic=torch.tensor(organic),
        variance=variance,
        noise=noise,
        blend=blend.blend(personal),
    )


def add_rows(design: Design, found: Fit, rows: FunnelRows, weights: Tensor) -> Fit:
    """Return a fit with later rows added to its sums."""
    used, sent = found.design(design), rows.messages(design.modules)
    messages = found.usual.less(used, sent, weights)
    # The new sums alone are added in place: those of the fit that is given may be those of others as well.
    sums = found.sums + reduce(MessageSums.add_in_place, (messages.sums(used, fold) for fold in range(FOLDS)))
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
    followed = [each.followed(used, head) for each, head in zip(found.hazards, drawn[len(fitted) :], strict=True)]
    value = _with_missed(drawn[: len(fitted)], blend.missed)
    value = [used.scale_slopes(head, blend.personal) for head in value]
    spread = _with_missed(variance[: len(fitted)], blend.missed**2)
    hazard = torch.stack(followed) if hazards else torch.zeros(0, 1 + members, used.columns)
    sd = torch.stack([*spread, *variance[len(fitted) :]]).sqrt()
    sd[: len(value), used.slopes] *= blend.personal
    for spread_of, each in zip(sd[len(value) :], found.hazards, strict=True):
        spread_of[used.slopes] *= each.personal
    heads = Heads(
        value=torch.stack(value), hazard=hazard, organic=found.organic, tested=found.usual.tested, blend=blend, sd=sd
    )
    return heads if used.columns == design.columns else _in_columns(heads, used, design)


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


def _in_columns(heads: Heads, used: Design, design: Design) -> Heads:
    """Return heads that were fitted to fewer columns in those of all effects: slopes that were left out are 0."""

    def widened(found: Tensor) -> Tensor:
        out = found.new_zeros(*found.shape[:2], design.columns)
        out[..., : design.base] = found[..., : design.base]
        for m, (start, count) in enumerate(zip(design.starts, design.cells, strict=True)):
            first, known = used.starts[m], used.cells[m]
            cells = found[..., first : first + known * used.each].view(*found.shape[:2], known, used.each)
            every = out[..., start : start + count * design.each].view(*found.shape[:2], count, design.each)
            every[..., : used.each] = cells[:, :, torch.arange(count) % known]
        return out

    sd = heads.sd.new_zeros(len(heads.sd), design.blocks)
    sd[:, : design.base] = heads.sd[:, : design.base]
    for k in range(used.each):
        sd[:, design.base + k :: design.each] = heads.sd[:, design.base + k :: used.each]
    return replace(heads, value=widened(heads.value), hazard=widened(heads.hazard), sd=sd)


def expected_cost(
    design: Design, messages: Messages, hazards: Sequence[Tensor], organic: Tensor, weights: Tensor
) -> Tensor:
    """Return what the messages' cost events are expected to cost (n,), beyond those without a message.

    Args:
        design: The columns.
        messages: The messages.
        hazards: Coefficients of the logarithm of each cost event's hazard (columns,).
        organic: Probability of each cost event where nothing is sent (C,).
        weights: Prices of the cost events (C,).
    """
    out = messages.rows.x.new_zeros(len(messages.rows))
    for hazard, usual, weight in zip(hazards, organic, weights, strict=True):
        rate = predict(design, hazard, messages.rows.x, messages.cells).exp().clamp(max=1.0)
        out += weight * (rate - usual).clamp_min(0.0)
    return out


def fit_priors(design: Design, sums: MessageSums) -> tuple[Tensor, Tensor]:
    """Return the prior variances of each component's blocks (6, blocks) and the noise of its rows (6,): see `fit`."""
    found = [
        (each.variance, each.noise) for each in (fit(design, part, GUESSED_VARIANCE) for part in sums.by_component())
    ]
    variance, noise = zip(*found, strict=True)
    return torch.stack(variance), torch.tensor(noise, dtype=torch.float64)


@dataclass(frozen=True)
class Taught:
    """What one half of the users taught; of each component's posterior, which is large, draws are kept.

    Attributes:
        alone: The best estimates of engagement, gain and direct effect by the half alone, prior variances included.
        means: The best estimate of each component (columns,) with the prior variances that all users taught.
        drawn: The best estimates of the components that choose, then `JUDGES` draws (4, 1 + JUDGES, columns).
    """

    alone: list[Tensor]
    means: list[Tensor]
    drawn: Tensor


def taught_by_halves(design: Design, by_fold: Sequence[MessageSums], variance: Tensor, noise: Tensor) -> list[Taught]:
    """Return the coefficients of all components by what each half of the users taught."""
    generator = torch.Generator().manual_seed(JUDGES)
    halves = []
    for half in by_fold:
        alone, means, drawn = list[Tensor](), list[Tensor](), list[Tensor]()
        for sums, blocks, of_row in zip(half.by_component(), variance, noise.tolist(), strict=True):
            if len(alone) < ALL_SENDS:
                alone.append(fit(design, sums, GUESSED_VARIANCE).mean)
            found = refit(design, sums, blocks, of_row)
            means.append(found.mean)
            drawn.append(_with_members(found, torch.randn(design.columns, JUDGES, generator=generator)))
        halves.append(Taught(alone, means, torch.stack(drawn[: ALL_SENDS + 1])))
    return halves


def followed(design: Design, halves: Sequence[Taught], tested: Tensor, contexts: Sequence[Tensor]) -> float:
    """Return how much of what is personal about actions' effects to follow: see `personal_weight`.

    Args:
        design: The columns.
        halves: The coefficients by what each half of the users taught.
        tested: Which actions of the first module have engagement in the log (A,).
        contexts: Contexts (n, D) of messages of each half: see `contexts_to_judge`.
    """
    nothing = torch.zeros(0)
    judging = [
        Heads(value=half.drawn, hazard=half.drawn[:0], organic=nothing, tested=tested, blend=Blend(), sd=nothing)
        for half in halves
    ]
    return personal_weight(design, [each.best() for each in judging], judging, contexts)


def judged_messages(
    design: Design, messages: Messages, halves: Sequence[Taught], personal: float, cost: Tensor
) -> JudgedMessages:
    """Predict messages by what the other half of the users taught, at an expected `cost` (n,)."""
    judged, funnel, everybody, missed = cost.new_zeros(4, len(cost)).unbind()
    for fold in range(FOLDS):
        other, at = halves[1 - fold], (messages.rows.fold == fold).nonzero()[:, 0]
        x, cells = messages.rows.x[at], messages.cells[at]
        tested = messages.tested[torch.from_numpy(messages.rows.actions)[at, 0]]
        p, gain, direct = (predict(design, head, x, cells) for head in other.alone)
        judged[at] = direct + p.clamp(0.0, 1.0) * tested * (gain - direct)
        scaled = (design.scale_slopes(head, personal) for head in other.means)
        p, gain, direct, everybody[at], *beyond = (predict(design, head, x, cells) for head in scaled)
        p = p.clamp(0.0, 1.0) * tested
        funnel[at], missed[at] = direct + p * (gain - direct), beyond[1] + p * (beyond[0] - beyond[1])
    return JudgedMessages(
        common=design.common(messages.rows.x),
        reward=messages.reward,
        value=messages.value,
        user=messages.rows.user,
        fold=messages.rows.fold,
        predictions=Predictions(judged=judged, funnel=funnel, missed=missed, all_sends=everybody, cost=cost),
    )


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
    if after.each != before.each or after.shared != before.shared:
        raise ValueError("with these actions the effects have another number of features: train a new agent")
    parts = torch.cat([heads.value, heads.hazard]).double()
    out = torch.zeros(*parts.shape[:2], after.columns, dtype=torch.float64)
    out[..., : after.base] = parts[..., : before.base]
    for m in range(len(after.cells)):
        place = torch.from_numpy(previous_cells(before.effects, after.effects, m))
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
