"""Thompson sampling with one ensemble per module: K heads on a network that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.base import DECIDES_ONLY, Batch, Decisions, Float32Array, Observations
from crosschannel.agents.buffers.buffer import Buffer
from crosschannel.agents.ensemble.learner import WARM, Learner, LearnerConfig
from crosschannel.agents.sampling import FLOOR, Floor, best_codes, draw, floors, spread_mask, turns, uniform_codes
from crosschannel.core.action_changes import design, known_actions, places, shown
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import generator_state, restore_generator

CHUNK = 2048
SEGMENT = 4096


@dataclass(frozen=True)
class EnsembleConfig(LearnerConfig):
    """Settings of `ensemble_thompson`: those of the modules' learners, and three more.

    Attributes:
        spread: How far the members that vote stray from the ensemble's mean, in their own deviations: 1 is Thompson
            sampling proper, less explores less, 0 not at all but for the floor. See docs/agents.md for what it was
            chosen by.
        floor: Share of decisions that are drawn uniformly from the eligible actions, so that every log keeps support:
            one number, or one by module's name.
        capacity: Observed rows that are kept.
    """

    spread: float = 0.25
    floor: Floor = FLOOR
    capacity: int = 2_000_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.capacity < 1:
            raise ConfigError(f"capacity is {self.capacity}: it must be at least 1")
        if not 0.0 <= self.spread <= 1.0:
            raise ConfigError(f"spread {self.spread} is not between 0 and 1")


class EnsembleThompson:
    """Each module draws one of its K members for every decision and takes what that member thinks best.

    The probability of an action is therefore its share of the members' votes, mixed with a floor; modules draw
    independently. Osband & Van Roy (2015), "Bootstrapped Thompson sampling and deep exploration".

    The members of a module share one network, and are K heads on it that are solved in closed form from all observed
    rows (`agents.learner`): so all of them can vote at the price of little more than one. A module but the first
    learns from the rows in which something was sent. A module with a condition has a head for each cell of its table;
    cells share what is due to the action and to the condition.

    Actions of equal labels share what labels have in common, so that one that is new, or was never eligible yet, begins
    with what its labels have earned.

    Args:
        modules: What can be chosen.
        context_dim: Context features; they come standardised.
        config: Settings.
        seed: Seed of the initial weights, the prior draws, the hashed signs and the draws of actions.
        device: Where the networks compute. The same seed gives the same bits on the CPU.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        config: EnsembleConfig | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.modules = modules
        self.config = config or EnsembleConfig()
        self._floors = floors(modules, self.config.floor)
        self._width, self._seed, self._device = context_dim, seed, torch.device(device)
        self._known, self._changes = modules, 0
        self._learners = self._fresh()
        self._buffer = Buffer(context_dim, modules, self.config.capacity)
        self._draws = np.random.default_rng([seed, 1])
        self._batches = np.random.default_rng([seed, 2])
        self._learns = True

    def _fresh(self) -> list[Learner]:
        """Learners of all known actions that have seen nothing; after each change of the actions with other draws."""
        seed = self._seed
        if self._changes:
            seed = int(np.random.SeedSequence([self._seed, self._changes]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        learners = []
        for m in range(len(self._known)):
            shared = design(self._known, m)[:, 1:]
            learners.append(
                Learner(self._width, self._known, m, shared, self.config, generator, self._seed, self._device)
            )
        return learners

    def _heads(self, m: int) -> Tensor:
        """The heads (cells, 1 + K, F) of module m's present cells."""
        present = shown(np.arange(self._known.n_table_cells(m)), self._known, self.modules, m)
        return self._learners[m].heads[torch.from_numpy(present.reshape(-1))]

    def act(self, observations: Observations, *, explore: bool = True) -> Decisions:
        """Draws from the exploring policy, or takes the best action on the members' mean."""
        probabilities = self.action_probabilities(observations) if explore else self._certain(observations)
        return draw(self.modules, probabilities, self._draws)

    def sample(self, observations: Observations) -> IntArray:
        """Draws canonical actions (N, M) as `act` does, without their probabilities and so more quickly.

        For serving where the log is not learned from: without propensities no other policy can be evaluated on it.
        Where decisions are logged, use `act`.
        """
        modules, n = self.modules, len(observations)
        found = [self._voting(m) for m in range(len(modules))]
        heads = [
            each.view(-1, size, *each.shape[1:]).transpose(1, 2).contiguous()
            for each, size in zip(found, modules.sizes, strict=True)
        ]
        mask, context = modules.feasible_mask(observations.action_mask), _contexts(observations).numpy()
        actions = np.zeros((n, len(modules)), dtype=np.int64)
        size = SEGMENT * max(len(each) * each.shape[1] for each in heads)
        for start in range(0, n, size):
            rows = slice(start, start + size)
            self._draw_into(actions[rows], context[rows], mask[rows], heads)
        return actions

    def _draw_into(self, actions: IntArray, context: Float32Array, mask: BoolArray, heads: Sequence[Tensor]) -> None:
        """Draws actions (N, M), which are 0, module by module, each given the choices before it.

        Args:
            actions: The actions.
            context: Contexts (N, D).
            mask: Eligible actions (N, sum of actions).
            heads: Those that decide (rows of the table, K, A, F), for each module.
        """
        modules, asked = self.modules, np.arange(len(actions))
        for m, voting in enumerate(heads):
            members, c = voting.shape[1], modules.condition(m)
            head = turns(self._draws.random(len(asked)), members, self._floors[m])
            chance = head == members
            if c is not None:
                head += actions[asked, c] * members
            head[chance] = last = len(voting) * members
            order = np.argsort(head.astype(np.min_scalar_type(last)), kind="stable")
            ends = np.bincount(head, minlength=last).cumsum().tolist()
            eligible = modules.conditional_mask(m, mask, actions)
            rows, free = np.split(asked[order], [ends[last - 1]])
            actions[rows, m] = self._obeyed(m, rows, ends[:last], context, eligible, voting)
            actions[free, m] = uniform_codes(eligible[free], self._draws.random(len(free)))
            if m == 0:
                asked = np.flatnonzero(modules.sends(actions))

    def _obeyed(
        self,
        m: int,
        rows: IntArray,
        ends: Sequence[int],
        context: Float32Array,
        eligible: BoolArray,
        voting: Tensor,
    ) -> IntArray:
        """Codes (n,) of module m for some rows: what is best by each one's head; each head is asked once for many.

        Args:
            m: The module.
            rows: The rows (n,), in the order of the heads that decide about them.
            ends: Where each head's rows end.
            context: Contexts of all rows (N, D).
            eligible: Eligible actions of all rows (N, A).
            voting: The heads (rows of the table, K, A, F).
        """
        most = int(np.diff(ends, prepend=0).max())
        values = torch.empty(voting.shape[2], len(rows), device=self._device)
        room = torch.empty(most, self.config.hidden[-1], device=self._device)
        for head, start, end in zip(voting.flatten(0, 1), [0, *ends], ends, strict=False):
            x = torch.from_numpy(context.take(rows[start:end], 0)).to(self._device)
            self._learners[m].estimates(x, head, values[:, start:end], room[: len(x)])
        return best_codes(values.cpu().numpy(), eligible.take(rows, 0).T)

    def _certain(self, observations: Observations) -> list[FloatArray]:
        heads = [self._heads(m)[:, :1] for m in range(len(self.modules))]
        return self._shares(observations, heads, [0.0] * len(heads))

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Exact probabilities, one array (N, *modules.shape(m)) a module, conditional on the earlier choice."""
        return self._shares(observations, [self._voting(m) for m in range(len(self.modules))], self._floors)

    def _voting(self, m: int) -> Tensor:
        """The heads (cells, K, F) that decide: the members, as far from their mean as `spread` lets them stray."""
        found = self._heads(m)
        mean, members = found[:, :1], found[:, 1:]
        return mean + self.config.spread * (members - mean)

    def _shares(self, observations: Observations, heads: Sequence[Tensor], shares: Sequence[float]) -> list[FloatArray]:
        """The shares of the votes of each module's heads (cells, C, F), in pieces of rows that stay in cache."""
        modules, n = self.modules, len(observations)
        parts = modules.split(modules.feasible_mask(observations.action_mask))
        masks = [
            torch.from_numpy(spread_mask(modules, m, part).reshape(n, modules.n_table_cells(m)))
            for m, part in enumerate(parts)
        ]
        groups = [_competing(modules, m) for m in range(len(modules))]
        context = _contexts(observations)
        out = [np.empty((n, modules.n_table_cells(m))) for m in range(len(modules))]
        for start in range(0, len(context), CHUNK):
            rows = slice(start, start + CHUNK)
            x = context[rows].to(self._device)
            for m, learner in enumerate(self._learners):
                eligible = masks[m][rows].to(self._device)
                found = vote(learner.values(x, heads[m]), eligible, groups[m], shares[m])
                out[m][rows] = found.cpu().numpy()
        return [each.reshape(n, *modules.shape(m)) for m, each in enumerate(out)]

    def expected_rewards(self, observations: Observations) -> list[Float32Array]:
        """The members' estimates of each module's actions, (K, N, *modules.shape(m)) a module, in reward units.

        An estimate is the expected reward of the action with the other modules as logged. The members' spread says
        how sure the ensemble is; their mean is the best estimate.
        """
        x = _contexts(observations)
        out = []
        for m, learner in enumerate(self._learners):
            heads = self._heads(m)[:, 1:]
            parts = [learner.values(part, heads).permute(1, 2, 0).cpu() for part in torch.split(x, CHUNK)]
            values = np.asarray((torch.cat(parts, 1) * learner.scale + learner.mean).numpy())
            out.append(values.reshape(len(values), len(x), *self.modules.shape(m)))
        return out

    def observe(self, batch: Batch) -> None:
        """Keeps executed actions and rewards for learning.

        Raises:
            InputError: If a row cannot be learned from; nothing is kept then.
            ConfigError: If the agent was opened to decide only.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        self._buffer.add(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Makes so many gradient steps for every module, more while rows are few, and takes new rows into the heads.

        Returns:
            The modules' mean losses in standardised squared rewards (1 is no better than the mean reward), and the
            first module's reward scale.
        """
        rows = len(self._buffer)
        if rows == 0 or steps < 1:
            return {}
        steps = int(steps * min(max(self.config.warm_rows / rows, 1.0), WARM))
        losses = {
            f"loss/{module.name}": learner.learn(self._buffer, steps, self._batches)
            for module, learner in zip(self.modules, self._learners, strict=True)
        }
        return {"loss": losses[f"loss/{self.modules.names[0]}"], **losses, "reward_scale": self._learners[0].scale}

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, heads, observed rows and every random state, of all actions ever known.

        Raises:
            ConfigError: If the agent was opened to decide only.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        return {
            "known": self._known.to_dict(),
            "changes": self._changes,
            "learners": [learner.state_dict() for learner in self._learners],
            "buffer": self._buffer.state_dict(),
            "draws": generator_state(self._draws),
            "batches": generator_state(self._batches),
        }

    def policy_state_dict(self) -> dict[str, Any]:
        """Networks, heads and what they are fitted from, of all actions ever known; no rows and no random state."""
        return {
            "known": self._known.to_dict(),
            "changes": self._changes,
            "learners": [learner.policy_state_dict() for learner in self._learners],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, also where the set of actions has changed since: then all heads are fitted anew.

        From the state of a policy the agent decides, but cannot learn on.

        Raises:
            ConfigError: If the state belongs to an ensemble of another shape, or of other modules.
        """
        before = ActionSpace.from_dict(state["known"])
        known = known_actions(self.modules, before)
        self._known, self._changes = known, int(state["changes"]) + (known != before)
        self._learners = self._fresh()
        try:
            for m, (learner, saved) in enumerate(zip(self._learners, state["learners"], strict=True)):
                if known == before:
                    learner.load_state_dict(saved)
                else:
                    learner.carry(saved, places(before, known, m))
            self._learns = "buffer" in state
            if self._learns:
                self._buffer.load_state_dict(state["buffer"], before, known)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ConfigError(f"the state is of an ensemble of another shape: {reason}") from None
        if self._learns:
            restore_generator(self._draws, state["draws"])
            restore_generator(self._batches, state["batches"])


def _contexts(observations: Observations) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(observations.context, dtype=np.float32))


def _competing(modules: ActionSpace, m: int) -> list[IntArray]:
    """The cells of module m that compete with each other: its groups, in each row of its table."""
    return [
        start + group for start in range(0, modules.n_table_cells(m), modules.sizes[m]) for group in modules.groups(m)
    ]


def vote(values: Tensor, eligible: Tensor, groups: Sequence[IntArray], floor: float) -> Tensor:
    r"""Exact probabilities (N, A) of actions when one of C heads is drawn and obeyed, as `choice.vote_shares`.

    .. math:: \pi(a) = (1 - \epsilon) \frac{1}{C} \sum_c 1[a = \arg\max q_c] + \epsilon / n_{eligible}

    A search for the place of the largest value took 40 times as long as looking for all that equal it, so places are
    searched for only where two are equal: then the lowest code wins.

    Args:
        values: The heads' estimates (A, C, N).
        eligible: Eligible actions (N, A).
        groups: Codes of the actions that compete with each other.
        floor: The share :math:`\epsilon` of uniform draws.
    """
    actions, heads, _ = values.shape
    out = torch.empty(eligible.shape, dtype=torch.float64, device=values.device)
    for group in groups:
        codes = torch.from_numpy(group).to(values.device)
        allowed = eligible[:, codes].t()
        inside = values if len(group) == actions else values[codes]
        inside = inside.masked_fill(~allowed.unsqueeze(1), -torch.inf)
        votes = inside.eq(inside.amax(0)).sum(1)
        tied = (votes * allowed).sum(0) > heads
        if bool(tied.any()):
            first = inside[..., tied].argmax(0)
            votes[:, tied] = (first == torch.arange(len(group), device=values.device)[:, None, None]).sum(1)
        even = allowed / allowed.sum(0).clamp_min(1)
        out[:, codes] = (((1.0 - floor) / heads * votes.double() + floor * even.double()) * allowed).t()
    return out
