"""Thompson sampling with one ensemble per module: K heads on a shared network, whose mixtures vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.base import DECIDES_ONLY, Batch, Decisions, Observations
from crosschannel.agents.buffers.buffer import Buffer
from crosschannel.agents.ensemble.learner import Learner
from crosschannel.agents.ensemble.mixtures import competing_cells, mix, mixing_matrix, vote_shares_on_device
from crosschannel.agents.ensemble.vote_sampling import VoteSampler
from crosschannel.agents.funnel.funnel import Funnel
from crosschannel.agents.sampling import expand_mask, floor_by_module, sample_actions
from crosschannel.agents.settings import MAX_WARM_FACTOR, EnsembleThompsonSettings
from crosschannel.agents.votes import ChannelVotes, votes_beyond_nothing
from crosschannel.core.action_changes import design_matrix, known_actions, previous_cells, select_present
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import Float32Array, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import generator_state, restore_generator

ROWS_PER_CHUNK = 512


class EnsembleThompson:
    """Thompson sampling: each module samples one of L mixtures of its K members for every decision and acts on it.

    The probability of an action is therefore its share of the mixtures' votes, mixed with a floor; the modules sample
    independently. Osband & Van Roy (2015), "Bootstrapped Thompson sampling and deep exploration". The mixtures are
    fixed linear combinations with the members' mean and covariance (`agents.ensemble.mixtures`), so that there are
    more votes than members.

    The members of a module are K heads on a shared network, solved in closed form from all observed rows
    (`agents.ensemble.learner`), so that the votes of all of them cost little more than one. Modules after the first
    learn from the rows in which something was sent. A module with a condition has a head for each cell of its table;
    cells share what depends on the action alone or on the condition alone.

    Actions with equal labels share coefficients, so that the estimate of an action without rows starts from the rewards
    of actions with its labels.

    Args:
        modules: The action space.
        context_dim: Number of context features, which are standardised.
        settings: Settings.
        seed: Seed of the initial weights, the prior draws, the hashed signs and the sampled actions.
        device: Where the networks compute. The same seed gives the same bits on the CPU.
    """

    def __init__(
        self,
        modules: ActionSpace,
        context_dim: int,
        settings: EnsembleThompsonSettings | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.modules = modules
        self.settings = settings or EnsembleThompsonSettings()
        self._floors = floor_by_module(modules, self.settings.floor)
        self._mixing = self._mixing_matrix(seed, device)
        self._width, self._seed, self._device = context_dim, seed, torch.device(device)
        self._known, self._changes = modules, 0
        self._learners, self._as_built = self._build_learners(), True
        self._buffer = Buffer(context_dim, modules, self.settings.capacity)
        self._funnel = Funnel(modules, context_dim, self.settings.members, seed)
        self._draws = np.random.default_rng([seed, 1])
        self._batches = np.random.default_rng([seed, 2])
        self._learns = True

    def _mixing_matrix(self, seed: int, device: str) -> Tensor:
        """Return the matrix (L, K) of the mixtures that vote, their deviations from the mean scaled for exploration."""
        matrix = mixing_matrix(self.settings.members, self.settings.mixtures, seed)
        return torch.from_numpy(self.settings.exploration_scale * matrix).to(device, torch.float32)

    def _build_learners(self) -> list[Learner]:
        """Build untrained learners of all known actions; every change of the actions gives them other prior draws."""
        seed = self._seed
        if self._changes:
            seed = int(np.random.SeedSequence([self._seed, self._changes]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        learners = []
        for m in range(len(self._known)):
            shared = design_matrix(self._known, m)[:, 1:]
            learners.append(
                Learner(self._width, self._known, m, shared, self.settings, generator, self._seed, self._device)
            )
        return learners

    def _heads(self, m: int) -> Tensor:
        """Return the heads (cells, 1 + K, F) of module m's present cells."""
        present = select_present(np.arange(self._known.n_table_cells(m)), self._known, self.modules, m)
        return self._learners[m].heads[torch.from_numpy(present.reshape(-1))]

    def act(self, observations: Observations, *, explore: bool = True) -> Decisions:
        """Sample from the exploring policy, or take the best action by the members' mean."""
        probabilities = self.action_probabilities(observations) if explore else self._greedy_probabilities(observations)
        return sample_actions(self.modules, probabilities, self._draws)

    def sample(self, observations: Observations) -> IntArray:
        """Sample canonical actions (N, M) from the same distribution as `act`, faster and without probabilities.

        Use `act` wherever decisions are logged: without propensities a log cannot evaluate another policy.
        """
        if self._funnel.heads is not None:
            return self.act(observations).actions
        modules = self.modules
        found = [mix(self._heads(m), self._mixing) for m in range(len(modules))]
        heads = [
            each.view(-1, size, *each.shape[1:]).transpose(1, 2).contiguous()
            for each, size in zip(found, modules.sizes, strict=True)
        ]
        sampler = VoteSampler(
            modules=modules,
            learners=self._learners,
            heads=heads,
            floors=self._floors,
            hidden=self.settings.hidden[-1],
            device=self._device,
        )
        mask, context = modules.feasible_mask(observations.action_mask), _contexts(observations).numpy()
        return sampler.sample(context, mask, self._draws)

    @property
    def learners(self) -> Sequence[Learner]:
        """The ensemble of each module."""
        return self._learners

    @property
    def funnel(self) -> Funnel:
        """The model of the rewards' components; without heads until rows with components were learned."""
        return self._funnel

    def votes(self, observations: Observations, *, explore: bool = True) -> ChannelVotes:
        """Return what the mixtures, or the best estimate, vote on the first module's actions, before shadow prices."""
        floors = self._floors if explore else (0.0,) * len(self.modules)
        if self._funnel.heads is not None:
            return self._funnel.votes(self.modules, observations, self._mixing.cpu() if explore else None, floors)
        learner, heads, x = self._learners[0], self._heads(0), _contexts(observations)
        found = [learner.values(part, heads) for part in torch.split(x, ROWS_PER_CHUNK)]
        parts = [mix(part, self._mixing) if explore else part[:, :1] for part in found]
        values = torch.cat(parts, 2).permute(1, 2, 0).cpu().numpy() * learner.units.scale
        policy = self.action_probabilities(observations) if explore else self._greedy_probabilities(observations)
        return votes_beyond_nothing(self.modules, values, observations.action_mask, policy[1:], floors[0])

    def _greedy_probabilities(self, observations: Observations) -> list[FloatArray]:
        if self._funnel.heads is not None:
            return self.votes(observations, explore=False).probabilities()
        heads = [self._heads(m)[:, :1] for m in range(len(self.modules))]
        return self._vote_shares(observations, heads, [0.0] * len(heads))

    def action_probabilities(self, observations: Observations) -> list[FloatArray]:
        """Return the exact probabilities, one array (N, *modules.shape(m)) per module, given the earlier choice."""
        if self._funnel.heads is not None:
            return self.votes(observations).probabilities()
        heads = [self._heads(m) for m in range(len(self.modules))]
        return self._vote_shares(observations, heads, self._floors)

    def _vote_shares(
        self, observations: Observations, heads: Sequence[Tensor], floors: Sequence[float]
    ) -> list[FloatArray]:
        """Return the vote shares in chunks of rows that fit in the cache.

        Args:
            observations: Contexts and masks of N rows.
            heads: Each module's heads (cells, 1 + K, F), whose mixtures vote; or (cells, 1, F), the one that votes.
            floors: Each module's probability of a uniform draw.
        """
        modules, n = self.modules, len(observations)
        parts = modules.split(modules.feasible_mask(observations.action_mask))
        masks = [
            torch.from_numpy(expand_mask(modules, m, part).reshape(n, modules.n_table_cells(m)))
            for m, part in enumerate(parts)
        ]
        groups = [competing_cells(modules, m) for m in range(len(modules))]
        context = _contexts(observations)
        out = [np.empty((n, modules.n_table_cells(m))) for m in range(len(modules))]
        for start in range(0, len(context), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            x = context[rows].to(self._device)
            for m, learner in enumerate(self._learners):
                values = learner.values(x, heads[m])
                voting = values if values.shape[1] == 1 else mix(values, self._mixing)
                found = vote_shares_on_device(voting, masks[m][rows].to(self._device), groups[m], floors[m])
                out[m][rows] = found.cpu().numpy()
        return [each.reshape(n, *modules.shape(m)) for m, each in enumerate(out)]

    def expected_rewards(self, observations: Observations) -> list[Float32Array]:
        """Return the members' estimates of each module's actions, (K, N, *modules.shape(m)), in reward units.

        An estimate is the expected reward of the action with the other modules as logged. The members' mean is the best
        estimate, and their standard deviation its uncertainty. With a funnel they are values at the policy's mean over
        the other modules.
        """
        if self._funnel.heads is not None:
            return self._funnel.expected_rewards(self.modules, observations, self._floors)
        x = _contexts(observations)
        out = []
        for m, learner in enumerate(self._learners):
            heads = self._heads(m)[:, 1:]
            parts = [learner.values(part, heads).permute(1, 2, 0).cpu() for part in torch.split(x, ROWS_PER_CHUNK)]
            values = np.asarray((torch.cat(parts, 1) * learner.units.scale + learner.units.mean).numpy())
            out.append(values.reshape(len(values), len(x), *self.modules.shape(m)))
        return out

    def components(self, observations: Observations) -> dict[str, list[Float32Array]]:
        """Return the members' engagement, gain, direct effect and hazards of each module's actions.

        Each is (K, N, *modules.shape(m)) per module, at the policy's mean over the other modules. It is empty without a
        funnel.
        """
        if self._funnel.heads is None:
            return {}
        return self._funnel.components(self.modules, observations, self._floors)

    def observe(self, batch: Batch) -> None:
        """Add executed actions and rewards to the buffer.

        Raises:
            InputError: If a row cannot be learned from; then no row is added.
            ConfigError: If the agent was loaded from a policy file.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        self._buffer.add(batch)

    def update(self, steps: int = 1) -> dict[str, float]:
        """Make gradient steps for every module, more of them while rows are few, and add new rows to the heads.

        Returns:
            The modules' mean losses in standardised squared rewards (1 is as good as the mean reward), and the first
            module's reward scale.
        """
        rows = len(self._buffer)
        if rows == 0 or steps < 1:
            return {}
        calibration = self._funnel.learn(self._buffer)
        if self._funnel.heads is not None:
            return calibration
        self._as_built = False
        steps = int(steps * min(max(self.settings.warm_rows / rows, 1.0), MAX_WARM_FACTOR))
        losses = {
            f"loss/{module.name}": learner.learn(self._buffer, steps, self._batches)
            for module, learner in zip(self.modules, self._learners, strict=True)
        }
        return {
            "loss": losses[f"loss/{self.modules.names[0]}"],
            **losses,
            "reward_scale": self._learners[0].units.scale,
        }

    def extend(self, batch: Batch) -> None:
        """Learn later rows in one pass over them: all but the coefficients stays as the last `update` fitted it.

        Rows are added to the funnel's sums and not to the buffer, so that a day costs the same however many came
        before it. The result is that of the rows' order up to rounding.

        Raises:
            InputError: If a row cannot be learned from.
            ConfigError: If the agent has no funnel that was fitted, or the rows have other components.
        """
        rows = Buffer(self._width, self.modules, max(len(batch), 1))
        rows.add(batch)
        self._funnel.extend(rows)

    @property
    def extendable(self) -> bool:
        """Whether there is a fit of the funnel to which rows can be added."""
        return self._funnel.fit is not None

    def fit_state_dict(self) -> dict[str, Any]:
        """Return the sums of the funnel's last fit.

        Raises:
            ConfigError: If there is none.
        """
        return self._funnel.fit_state_dict()

    def load_fit_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `fit_state_dict` returned."""
        self._funnel.load_fit_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the networks, optimisers and heads of all known actions, the rows, and every random state.

        Raises:
            ConfigError: If the agent was loaded from a policy file.
        """
        if not self._learns:
            raise ConfigError(DECIDES_ONLY)
        return {
            "known": self._known.to_dict(),
            "changes": self._changes,
            "learners": [learner.state_dict() for learner in self._learners],
            "funnel": self._funnel.state_dict(),
            "buffer": self._buffer.state_dict(),
            "draws": generator_state(self._draws),
            "batches": generator_state(self._batches),
        }

    def policy_state_dict(self) -> dict[str, Any]:
        """Return the networks, heads and statistics of all known actions, without rows and random states."""
        return {
            "known": self._known.to_dict(),
            "changes": self._changes,
            "learners": [learner.policy_state_dict() for learner in self._learners],
            "funnel": self._funnel.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` or `policy_state_dict` returned; if the actions have changed, refit all heads.

        With the state of a policy the agent can make decisions, but cannot learn.

        Raises:
            ConfigError: If the state belongs to an ensemble of another shape or with other modules.
        """
        before = ActionSpace.from_dict(state["known"])
        known = known_actions(self.modules, before)
        as_built = self._as_built and known == before == self._known and state["changes"] == self._changes
        self._known, self._changes = known, int(state["changes"]) + (known != before)
        self._learners, self._as_built = self._learners if as_built else self._build_learners(), False
        self._funnel = Funnel(known, self._width, self.settings.members, self._seed)
        try:
            self._funnel.load_state_dict(state["funnel"], before)
            for m, (learner, saved) in enumerate(zip(self._learners, state["learners"], strict=True)):
                if known == before:
                    learner.load_state_dict(saved)
                else:
                    learner.load_moved_state_dict(saved, previous_cells(before, known, m))
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
