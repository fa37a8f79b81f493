"""Policies over arrays: Thompson ensembles and the baselines that they are compared with."""

from agents.base import Agent, Batch, Decisions, Observations
from agents.checkpoints import load_agent, restore_agent, save_agent
from agents.ensemble import EnsembleConfig, EnsembleThompson
from agents.registry import AGENTS, make_agent, resolve_device

__all__ = [
    "AGENTS",
    "Agent",
    "Batch",
    "Decisions",
    "EnsembleConfig",
    "EnsembleThompson",
    "Observations",
    "load_agent",
    "make_agent",
    "resolve_device",
    "restore_agent",
    "save_agent",
]
