"""Policies over arrays: Thompson ensembles and the baselines that they are compared with."""

from agents.base import Agent, Batch, Decisions, Observations
from agents.checkpoints import load_agent, restore_agent, save_agent
from agents.delay import Delay
from agents.ensemble import EnsembleConfig, EnsembleThompson
from agents.explain import as_markdown, as_scalars, as_text, explain
from agents.registry import AGENTS, make_agent, resolve_device

__all__ = [
    "AGENTS",
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
    "explain",
    "load_agent",
    "make_agent",
    "resolve_device",
    "restore_agent",
    "save_agent",
]
