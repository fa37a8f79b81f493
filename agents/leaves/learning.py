"""Which agents learn from leaves, and how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosschannel.agents.base import Agent
from crosschannel.agents.ensemble.agent import EnsembleThompson
from crosschannel.agents.funnel.funnel import Funnel
from crosschannel.agents.funnel.model import MIN_MESSAGES
from crosschannel.agents.leaves.funnel import add_leaves, fit_funnel
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
    return leaves.funnel and has_funnel(agent)


def has_funnel(agent: Agent) -> bool:
    """Return whether an agent has a model of the funnel, which learns from rows with components."""
    return isinstance(getattr(agent, "funnel", None), Funnel)


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
    schedule = schedule or Schedule()
    if _has_funnel(agent, leaves):
        if not fit_funnel_of(agent, leaves, run):
            raise _too_few(leaves)
        return _funnel_of(agent).calibration()
    if isinstance(agent, EnsembleThompson):
        return fit_ensemble(agent, leaves, run, schedule.rows_per_update, schedule.offline_updates, schedule.steps)
    if isinstance(agent, LinearAgent):
        return fit_linear(agent, leaves, run)
    check_learns(type(agent).__name__)
    return {}


def fit_funnel_of(agent: Agent, leaves: Leaves, run: RunOverTasks) -> bool:
    """Fit an agent's funnel to the rows of all leaves; return False, with nothing fitted, while messages are too few.

    Args:
        agent: The agent, which has a funnel.
        leaves: The rows, which have components.
        run: Runs a function over groups of leaves.
    """
    funnel = _funnel_of(agent)
    found = fit_funnel(funnel.design, leaves, run)
    if found is not None:
        funnel.adopt(found, leaves.costs)
    return found is not None


def extend_funnel_of(agent: Agent, leaves: Leaves, run: RunOverTasks) -> None:
    """Add the rows of leaves to the fit of an agent's funnel; all but the coefficients stays as it was fitted.

    Args:
        agent: The agent, whose funnel has a fit.
        leaves: The later rows, which have components.
        run: Runs a function over groups of leaves.

    Raises:
        ConfigError: If the funnel has no fit, or its cost events are not those of the rows.
    """
    funnel = _funnel_of(agent)
    if funnel.fit is None or funnel.cost_names != tuple(leaves.costs):
        raise ConfigError("the funnel has no fit with the cost events of these rows, to which they could be added")
    funnel.adopt(add_leaves(funnel.design, funnel.fit, leaves, run), leaves.costs)


def _funnel_of(agent: Agent) -> Funnel:
    funnel = getattr(agent, "funnel", None)
    assert isinstance(funnel, Funnel)  # callers ask first
    return funnel
