"""Which agents learn from leaves, and how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.agents.base import Agent
from crosschannel.agents.ensemble.agent import EnsembleThompson
from crosschannel.agents.funnel.funnel import Funnel
from crosschannel.agents.funnel.model import MIN_MESSAGES
from crosschannel.agents.leaves.funnel import fit_funnel
from crosschannel.agents.leaves.leaves import Leaves, RunOverTasks
from crosschannel.agents.leaves.regressions import fit_ensemble, fit_linear
from crosschannel.agents.linear.agent import LinearAgent
from crosschannel.core.errors import ConfigError, NotIdentified

#: The agents of this package that learn from leaves.
LEARN_FROM_LEAVES = ("ensemble_thompson", "linear_thompson", "epsilon_greedy", "best_fixed")


@dataclass(frozen=True)
class Schedule:
    """How long networks are trained on the sample: `TrainConfig` in an agent's words.

    Attributes:
        rows_per_update: Sampled rows for which an update is made, as in a replay.
        offline_updates: Further updates.
        steps: Gradient steps of an update.
    """

    rows_per_update: int = 1024
    offline_updates: int = 200
    steps: int = 4


def check_learns(name: str) -> None:
    """Refuse an agent that does not learn from leaves, before any row is read.

    Raises:
        ConfigError: If it does not.
    """
    if name not in LEARN_FROM_LEAVES:
        raise ConfigError(
            f"the agent {name} does not learn from buckets: choose one of {', '.join(LEARN_FROM_LEAVES)}, or train on "
            "one folder with all users in memory"
        )


def check_learns_from(agent: Agent, leaves: Leaves) -> None:
    """Refuse an agent that cannot learn from leaves as they are, before a pass over their rows.

    Raises:
        ConfigError: If it is another one than those that learn from leaves, or discounts rows by their age, which
            leaves do not tell.
        NotIdentified: If there are too few messages.
    """
    if _has_funnel(agent, leaves):
        if leaves.messages < MIN_MESSAGES:
            raise _too_few(leaves)
        return
    if not isinstance(agent, EnsembleThompson | LinearAgent):
        check_learns(type(agent).__name__)
        return
    # An ensemble does not discount rows at 0, a linear agent at infinity; None lets an ensemble look for drift.
    if np.isfinite(agent.settings.half_life or np.inf):
        raise ConfigError("agent.settings.half_life: rows in leaves have no age: leave it out with a log in buckets")


def _has_funnel(agent: Agent, leaves: Leaves) -> bool:
    return leaves.funnel and isinstance(getattr(agent, "funnel", None), Funnel)


def _too_few(leaves: Leaves) -> NotIdentified:
    return NotIdentified(
        f"the training users have {leaves.messages:,} messages with a value: too few for a model of the funnel"
    )


def learn_from_leaves(
    agent: Agent, leaves: Leaves, run: RunOverTasks, schedule: Schedule | None = None
) -> dict[str, float]:
    """Fit an agent to the rows of all leaves by a fixed number of passes over them; return scalars for the log.

    Args:
        agent: The agent, which has observed nothing.
        leaves: The rows.
        run: Runs a function over groups of leaves: see `Leaves.tasks`.
        schedule: How long networks are trained.

    Raises:
        ConfigError: If the agent does not learn from leaves.
        NotIdentified: If the log has too few messages.
    """
    check_learns_from(agent, leaves)
    funnel, schedule = getattr(agent, "funnel", None), schedule or Schedule()
    if isinstance(funnel, Funnel) and leaves.funnel:
        found = fit_funnel(funnel.design, leaves, run)
        if found is None:
            raise _too_few(leaves)
        funnel.adopt(found, dict(leaves.costs))
        return funnel.calibration()
    if isinstance(agent, EnsembleThompson):
        return fit_ensemble(agent, leaves, run, schedule.rows_per_update, schedule.offline_updates, schedule.steps)
    if isinstance(agent, LinearAgent):
        return fit_linear(agent, leaves, run)
    check_learns(type(agent).__name__)
    return {}
