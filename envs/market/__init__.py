"""The market: simulated users of a multi-service app whose responses to messages are known exactly."""

from crosschannel.envs.market.config import MarketConfig
from crosschannel.envs.market.history import MarketTruth
from crosschannel.envs.market.market import Market, Outcome
from crosschannel.envs.market.policies.deployment import PolicyValue, evaluate_policy
from crosschannel.envs.market.policies.policies import (
    BusinessAsUsual,
    ContextPolicy,
    FarSighted,
    MarketPolicy,
    NoSend,
    Oracle,
    Uniform,
)
from crosschannel.envs.market.scenarios import SCENARIOS, Dynamics, Rules, Scenario
from crosschannel.envs.market.state import MarketState

__all__ = [
    "SCENARIOS",
    "BusinessAsUsual",
    "ContextPolicy",
    "Dynamics",
    "FarSighted",
    "Market",
    "MarketConfig",
    "MarketPolicy",
    "MarketState",
    "MarketTruth",
    "NoSend",
    "Oracle",
    "Outcome",
    "PolicyValue",
    "Rules",
    "Scenario",
    "Uniform",
    "evaluate_policy",
]
