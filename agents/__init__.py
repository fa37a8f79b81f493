"""Policies over arrays: Thompson ensembles and the baselines that they are compared with."""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.agents` instead of `agents`: a second copy of its classes would not fit the first"
    )


from crosschannel.agents.base import Agent, Batch, Decisions, Observations
from crosschannel.agents.buffers.delay import Delay
from crosschannel.agents.checkpoints import load_agent, load_policy, restore_agent, save_agent, save_policy
from crosschannel.agents.ensemble.agent import EnsembleConfig, EnsembleThompson
from crosschannel.agents.explain import ALL, as_markdown, as_scalars, as_text, explain
from crosschannel.agents.registry import AGENTS, make_agent, resolve_device
from crosschannel.agents.sampling import draw

__all__ = [
    "AGENTS",
    "ALL",
    "Agent",
    "Batch",
    "Decisions",
    "Delay",
    "EnsembleConfig",
    "EnsembleThompson",
    "Observations",
    "as_markdown",
    "as_scalars",
    "as_text",
    "draw",
    "explain",
    "load_agent",
    "load_policy",
    "make_agent",
    "resolve_device",
    "restore_agent",
    "save_agent",
    "save_policy",
]
