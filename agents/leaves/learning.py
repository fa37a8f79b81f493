"""Which agents learn from leaves, and how."""

from __future__ import annotations

from crosschannel.agents.base import Agent
from crosschannel.agents.funnel.funnel import Funnel
from crosschannel.agents.leaves.funnel import fit_funnel
from crosschannel.agents.leaves.leaves import Leaves, RunOverTasks
from crosschannel.core.errors import ConfigError, NotIdentified

#: The agents of this package that learn from leaves.
LEARN_FROM_LEAVES = ("ensemble_thompson", "linear_thompson")


def check_learns(name: str, funnel: bool) -> None:
    """Refuse an agent that does not learn from leaves, before any row is read.

    Args:
        name: Name of the agent.
        funnel: Whether rewards have components.

    Raises:
        ConfigError: If it does not.
    """
    if name not in LEARN_FROM_LEAVES or not funnel:
        rewards = "" if funnel else " without `reward.funnel`"
        raise ConfigError(
            f"the agent {name}{rewards} does not learn from buckets: choose one of {', '.join(LEARN_FROM_LEAVES)} with "
            "`reward.funnel`, or train on one folder with all users in memory"
        )


def learn_from_leaves(agent: Agent, leaves: Leaves, run: RunOverTasks) -> dict[str, float]:
    """Fit an agent to the rows of all leaves by a fixed number of passes over them; return scalars for the log.

    Args:
        agent: The agent, which has observed nothing.
        leaves: The rows.
        run: Runs a function over groups of leaves: see `Leaves.tasks`.

    Raises:
        ConfigError: If the agent does not learn from leaves.
        NotIdentified: If the log has too few messages.
    """
    funnel = getattr(agent, "funnel", None)
    if isinstance(funnel, Funnel) and leaves.funnel:
        found = fit_funnel(funnel.design, leaves, run)
        if found is None:
            raise NotIdentified(
                f"the training users have {leaves.messages:,} messages with a value: too few for a model of the funnel"
            )
        funnel.adopt(found, dict(leaves.costs))
        return funnel.calibration()
    check_learns(type(agent).__name__, leaves.funnel)
    return {}
