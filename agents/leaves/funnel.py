"""Fit a funnel from sums over leaves: the model of `agents.funnel.model.fit_model`, in three passes over the rows.

1. Sums of decisions without a message, what is counted, and two hashed samples: of decisions without a message for how
   noisy contexts are, and of messages for the point at which the hazards' likelihood is taken and for the contexts at
   which policies are valued.
2. Sums of messages by half of the users, and of the hazards' working response at that point.
3. Sums of the products of rewards and predictions, by what the other half of the users taught: the blend.

Each pass uses what the passes before it found and nothing else. A call sums a group of leaves row by row in their
order, in blocks of fixed size and in double precision; groups are added in their order. So the fit has the same bits
for every number of buckets and every engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial, reduce
from operator import add

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.ensemble.noise import learn_noise
from crosschannel.agents.funnel.calibration import BlendSums, JudgedMessages
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.hazards import (
    HazardFit,
    before_last_pass,
    finish_fit,
)
from crosschannel.agents.funnel.model import (
    MIN_MESSAGES,
    Fit,
    Taught,
    expected_cost,
    fit_priors,
    followed,
    judged_messages,
    taught_by_halves,
)
from crosschannel.agents.funnel.personal import contexts_to_judge
from crosschannel.agents.funnel.rows import (
    FOLDS,
    NOISE_ROWS,
    NOISE_SALT,
    SAMPLE_SALT,
    FunnelRows,
    Messages,
    MessageSums,
    Usual,
    control_coefficients,
    control_targets,
    usual_of,
)
from crosschannel.agents.funnel.sums import DesignStatistics, RunningSums, sum_common
from crosschannel.agents.leaves.leaves import Leaves, RunOverTasks, Task
from crosschannel.agents.leaves.rows import blocks
from crosschannel.core.hashing import in_sample

#: Messages of the sample, about.
MESSAGE_ROWS = 200_000


def fit_funnel(design: Design, leaves: Leaves, run: RunOverTasks) -> Fit | None:
    """Fit all components from the sums over leaves; return None while messages are too few.

    Args:
        design: The columns of all effects.
        leaves: The rows, which have components.
        run: Runs a function over groups of leaves.
    """
    first = reduce(add, run(partial(first_sums, design=design, leaves=leaves), leaves.tasks))
    messages = int(first.by_fold.sum())
    if messages < MIN_MESSAGES or int((first.by_fold > 0).sum()) < FOLDS:
        return None
    used = design.of_rows(messages)
    usual, start, organic = first.usual(used), first.hazards(used), first.organic
    contexts = contexts_to_judge(first.message_sample)
    del first  # frees the samples
    second = partial(message_sums, design=used, leaves=leaves, usual=usual, hazards=start)
    found = reduce(SecondSums.add_in_place, run(second, leaves.tasks))
    sums = reduce(add, found.by_fold)
    variance, noise = fit_priors(used, sums)
    hazards, logs = [], []
    for c, hazard in enumerate(start):
        done = finish_fit(used, hazard, [half[c] for half in found.hazards])
        hazards.append(done)
        logs.append(done.followed(used, done.solve(used).mean))
    halves = taught_by_halves(used, found.by_fold, variance, noise)
    del found  # frees the sums by half, which are large
    personal = followed(used, halves, usual.tested, contexts)
    third = partial(
        blend_sums,
        design=used,
        leaves=leaves,
        usual=usual,
        halves=[replace(half, drawn=half.drawn[:0]) for half in halves],  # the draws are large, and not needed
        personal=personal,
        hazards=logs,
        organic=organic,
    )
    blend = reduce(add, run(third, leaves.tasks)).blend(personal)
    assert len(leaves.costs) == len(hazards)  # the leaves' cost events are those of their rows
    return Fit(
        messages=messages,
        usual=usual,
        sums=sums,
        hazards=tuple(hazards),
        organic=organic.float(),
        variance=variance,
        noise=noise,
        blend=blend,
    )


def add_leaves(design: Design, found: Fit, leaves: Leaves, run: RunOverTasks) -> Fit:
    """Return a fit with later rows added to its sums, in one pass over them: see `agents.funnel.model.add_rows`.

    Args:
        design: The columns of all effects.
        found: The fit.
        leaves: The later rows, which have components.
        run: Runs a function over groups of leaves.
    """
    used = found.design(design)
    nothing = DesignStatistics.empty(used.columns, 1)
    working = [replace(hazard, sums=nothing) for hazard in found.hazards]  # the sums, which are large, are not sent
    one_pass = partial(message_sums, design=used, leaves=leaves, usual=found.usual, hazards=working)
    later = reduce(SecondSums.add_in_place, run(one_pass, leaves.tasks))
    hazards = (
        replace(hazard, sums=hazard.sums + reduce(add, (half[c] for half in later.hazards)))
        for c, hazard in enumerate(found.hazards)
    )
    return replace(found, sums=found.sums + reduce(add, later.by_fold), hazards=tuple(hazards))


@dataclass(frozen=True)
class FirstSums:
    """What the first pass over the rows finds; `+` adds the rows of other users.

    Attributes:
        controls: Sums of the rows without a message of each half of the users (2), whose targets are value, reward, and
            reward without cost events.
        tested: Whether the log tells who engaged with the messages of each action of the first module (A,).
        by_fold: Number of messages in each half of the users (2,).
        events: Number of messages after which each cost event occurred, and after which that is known (2, C).
        idle: The same of decisions without a message (2, C).
        noise_sample: Contexts (k, D), values and halves (k, 1) of sampled rows without a message.
        message_sample: Sampled messages.
    """

    controls: tuple[DesignStatistics, ...]
    tested: Tensor
    by_fold: Tensor
    events: Tensor
    idle: Tensor
    noise_sample: Tensor
    message_sample: FunnelRows

    def __add__(self, other: FirstSums) -> FirstSums:
        return FirstSums(
            controls=tuple(map(add, self.controls, other.controls)),
            tested=self.tested | other.tested,
            by_fold=self.by_fold + other.by_fold,
            events=self.events + other.events,
            idle=self.idle + other.idle,
            noise_sample=torch.cat([self.noise_sample, other.noise_sample]),
            message_sample=joined([self.message_sample, other.message_sample]),
        )

    @property
    def organic(self) -> Tensor:
        """Probability of each cost event where nothing is sent (C,); 0 where that is not known."""
        return self.idle[0] / self.idle[1].clamp_min(1.0)

    def usual(self, design: Design) -> Usual:
        """Fit what happens without a message, and how noisy it is by the sample."""
        coefficients = control_coefficients(self.controls).float()
        x, value, fold = self.noise_sample[:, :-2], self.noise_sample[:, -2], self.noise_sample[:, -1].long()
        noise = torch.zeros(design.width)
        if len(x):
            noise = learn_noise(x, (value - usual_of(design, x, fold, coefficients)[:, 0]).square())
        return Usual(coefficients, noise, self.tested)

    def hazards(self, design: Design) -> list[HazardFit]:
        """Return fits whose working point is where the next pass takes the likelihood: from the sample."""
        sample, out = self.message_sample, []
        cells = design.cells_of(sample.actions)
        for c in range(self.events.shape[1]):
            seen = sample.cost[:, c].isfinite()
            rows = sample.x[seen], cells[seen], sample.cost[seen, c].double()
            out.append(before_last_pass(design, *rows, float(self.events[0, c]), int(self.events[1, c])))
        return out


def first_sums(folders: Task, design: Design, leaves: Leaves) -> FirstSums:
    """Make the first pass over the rows of some leaves."""
    weights, costs = _weights(leaves), len(leaves.costs)
    total = [DesignStatistics.empty(design.base, 3) for _ in range(FOLDS)]
    tested = torch.zeros(design.modules.sizes[0], dtype=torch.bool)
    by_fold, events, idle = (torch.zeros(*shape, dtype=torch.float64) for shape in ((FOLDS,), (2, costs), (2, costs)))
    noise, some = [torch.zeros(0, design.width + 2)], [_no_rows(design, costs)]
    noise_share, message_share = NOISE_ROWS / max(leaves.controls, 1), MESSAGE_ROWS / max(leaves.messages, 1)
    for block in blocks(folders):
        rows = block.funnel_rows()
        is_sent, known = torch.from_numpy(design.modules.sends(rows.actions)), rows.value.isfinite()
        at_controls, at_sent = (~is_sent & known).nonzero()[:, 0], (is_sent & known).nonzero()[:, 0]
        controls, sent = rows.take(at_controls), rows.take(at_sent)
        targets = control_targets(controls, weights)
        for half in range(FOLDS):
            at = controls.fold == half
            total[half] += sum_common(design, controls.x[at], targets[at], controls.odds[at])
        tested[torch.from_numpy(sent.actions[:, 0])[sent.engaged.isfinite()]] = True
        by_fold += torch.bincount(sent.fold, minlength=FOLDS)
        events += torch.stack([sent.cost.nan_to_num(0.0).sum(0), sent.cost.isfinite().double().sum(0)])
        idle += torch.stack([controls.cost.nan_to_num(0.0).sum(0), controls.cost.isfinite().double().sum(0)])
        chosen = torch.from_numpy(in_sample(block.key[at_controls.numpy()], noise_share, NOISE_SALT))
        columns = controls.x[chosen], controls.value[chosen, None], controls.fold[chosen, None]
        noise.append(torch.cat(columns, 1).float())
        chosen = torch.from_numpy(in_sample(block.key[at_sent.numpy()], message_share, SAMPLE_SALT))
        some.append(_single(sent.take(chosen.nonzero()[:, 0])))
    return FirstSums(
        controls=tuple(total),
        tested=tested,
        by_fold=by_fold,
        events=events,
        idle=idle,
        noise_sample=torch.cat(noise),
        message_sample=joined(some),
    )


@dataclass(frozen=True)
class SecondSums:
    """What the second pass finds; `add_in_place` adds the rows of other users.

    Attributes:
        by_fold: Sums of the messages of each half of the users.
        hazards: Sums of each hazard's working response, by half of the users.
    """

    by_fold: tuple[MessageSums, ...]
    hazards: tuple[tuple[DesignStatistics, ...], ...]

    def add_in_place(self, other: SecondSums) -> SecondSums:
        """Return these sums with other users' rows, added in place, as sums of two thousand columns are large."""
        by_fold = (mine.add_in_place(more) for mine, more in zip(self.by_fold, other.by_fold, strict=True))
        hazards = (
            tuple(mine.add_in_place(more) for mine, more in zip(half, others, strict=True))
            for half, others in zip(self.hazards, other.hazards, strict=True)
        )
        return SecondSums(tuple(by_fold), tuple(hazards))


def message_sums(
    folders: Task, design: Design, leaves: Leaves, usual: Usual, hazards: Sequence[HazardFit]
) -> SecondSums:
    """Make the second pass over the rows of some leaves."""
    totals: list[dict[str, RunningSums]] = [{} for _ in range(FOLDS)]
    working = [[RunningSums.zeros(design, 1) for _ in hazards] for _ in range(FOLDS)]
    for messages in _messages(folders, design, leaves, usual):
        for fold, mine in enumerate(totals):
            messages.add_to(mine, design, fold)
            for c, (hazard, total) in enumerate(zip(hazards, working[fold], strict=True)):
                seen = messages.rows.cost[:, c].isfinite() & (messages.rows.fold == fold)
                rows = messages.rows.x[seen], messages.cells[seen]
                total.add(design, *rows, *hazard.response(design, *rows, messages.rows.cost[seen, c]))
    by_fold = tuple(MessageSums.from_totals(mine, design) for mine in totals)
    return SecondSums(by_fold, tuple(tuple(total.statistics() for total in half) for half in working))


def blend_sums(
    folders: Task,
    design: Design,
    leaves: Leaves,
    usual: Usual,
    halves: Sequence[Taught],
    personal: float,
    hazards: Sequence[Tensor],
    organic: Tensor,
) -> BlendSums:
    """Make the third pass over the rows of some leaves, all of whose users are within them."""
    weights = _weights(leaves)

    def judged() -> Iterator[JudgedMessages]:
        for messages in _messages(folders, design, leaves, usual):
            cost = expected_cost(design, messages, hazards, organic, weights)
            yield judged_messages(design, messages, halves, personal, cost)

    return BlendSums.from_messages(design.base, judged())


def _messages(folders: Task, design: Design, leaves: Leaves, usual: Usual) -> Iterator[Messages]:
    """Yield the messages of some leaves less what is usual, in double precision, block by block."""
    usual = replace(usual, coefficients=usual.coefficients.double(), noise=usual.noise.double())
    for block in blocks(folders):
        sent = block.funnel_rows().messages(design.modules)
        if len(sent):
            yield usual.less(design, sent, _weights(leaves))


def _weights(leaves: Leaves) -> Tensor:
    return torch.tensor(list(leaves.costs.values()), dtype=torch.float64)


def joined(parts: Sequence[FunnelRows]) -> FunnelRows:
    """Join the rows of some parts, in order."""
    columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(FunnelRows)}
    actions = np.concatenate(columns.pop("actions"))
    return FunnelRows(actions=actions, **{name: torch.cat(each) for name, each in columns.items()})


def _single(rows: FunnelRows) -> FunnelRows:
    """Return rows in single precision, as they are on disk."""
    found = {f.name: getattr(rows, f.name) for f in fields(rows)}
    return FunnelRows(**{n: v.float() if n != "actions" and v.dtype == torch.float64 else v for n, v in found.items()})


def _no_rows(design: Design, costs: int) -> FunnelRows:
    empty, codes = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    actions = np.zeros((0, len(design.modules)), dtype=np.int64)
    contexts, events = torch.zeros(0, design.width), torch.zeros(0, costs)
    return FunnelRows(
        x=contexts,
        actions=actions,
        reward=empty,
        engaged=empty,
        value=empty,
        cost=events,
        odds=empty,
        fold=codes,
        user=codes,
        key=codes,
    )
