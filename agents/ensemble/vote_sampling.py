"""Sample actions from the mixtures' votes without probabilities: one matrix product for each drawn mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.ensemble.learner import Learner
from crosschannel.agents.sampling import best_codes, sample_voter, uniform_codes
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, Float32Array, IntArray

ROWS_PER_HEAD = 4096


@dataclass(frozen=True)
class VoteSampler:
    """What samples actions from the votes of L mixtures, each of which is a head on its module's network.

    Attributes:
        modules: The action space.
        learners: The ensemble of each module.
        heads: The mixtures' heads (rows of the table, L, A, F) for each module.
        floors: Each module's probability of a uniform draw.
        hidden: Width of the networks' last layer.
        device: Where the networks compute.
    """

    modules: ActionSpace
    learners: Sequence[Learner]
    heads: Sequence[Tensor]
    floors: Sequence[float]
    hidden: int
    device: torch.device

    def sample(self, context: Float32Array, mask: BoolArray, draws: np.random.Generator) -> IntArray:
        """Sample canonical actions (N, M) for contexts (N, D), with eligible actions (N, sum of actions)."""
        n = len(context)
        actions = np.zeros((n, len(self.modules)), dtype=np.int64)
        size = ROWS_PER_HEAD * max(len(each) * each.shape[1] for each in self.heads)
        for start in range(0, n, size):
            rows = slice(start, start + size)
            self._sample_into(actions[rows], context[rows], mask[rows], draws)
        return actions

    def _sample_into(
        self, actions: IntArray, context: Float32Array, mask: BoolArray, draws: np.random.Generator
    ) -> None:
        """Sample actions module by module, each given the earlier choices, into an array (N, M) of zeros."""
        modules, reached = self.modules, np.arange(len(actions))
        for m, voting in enumerate(self.heads):
            mixtures, c = voting.shape[1], modules.condition(m)
            head = sample_voter(draws.random(len(reached)), mixtures, self.floors[m])
            uniform = head == mixtures
            if c is not None:
                head += actions[reached, c] * mixtures
            head[uniform] = last = len(voting) * mixtures
            order = np.argsort(head.astype(np.min_scalar_type(last)), kind="stable")
            ends = np.bincount(head, minlength=last).cumsum().tolist()
            eligible = modules.conditional_mask(m, mask, actions)
            rows, free = np.split(reached[order], [ends[last - 1]])
            actions[rows, m] = self._best_by_head(m, rows, ends[:last], context, eligible)
            actions[free, m] = uniform_codes(eligible[free], draws.random(len(free)))
            if m == 0:
                reached = np.flatnonzero(modules.sends(actions))

    def _best_by_head(
        self, m: int, rows: IntArray, ends: Sequence[int], context: Float32Array, eligible: BoolArray
    ) -> IntArray:
        """Return module m's best actions (n,) for some rows by each row's head, with one product per head.

        Args:
            m: Index of the module.
            rows: The rows (n,), in the order of their heads.
            ends: Where each head's rows end.
            context: Contexts of all rows (N, D).
            eligible: Eligible actions of all rows (N, A).
        """
        voting, most = self.heads[m], int(np.diff(ends, prepend=0).max())
        values = torch.empty(voting.shape[2], len(rows), device=self.device)
        hidden = torch.empty(most, self.hidden, device=self.device)
        for head, start, end in zip(voting.flatten(0, 1), [0, *ends], ends, strict=False):
            x = torch.from_numpy(context.take(rows[start:end], 0)).to(self.device)
            self.learners[m].estimates(x, head, values[:, start:end], hidden[: len(x)])
        return best_codes(values.cpu().numpy(), eligible.take(rows, 0).T)
