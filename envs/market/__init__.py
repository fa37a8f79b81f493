"""The market: simulated users of a multi-service app whose responses to messages are known exactly."""

from envs.market.config import MarketConfig
from envs.market.deploy import PolicyValue, evaluate_policy
from envs.market.history import MarketTruth
from envs.market.market import Market, Outcome
from envs.market.policies import BusinessAsUsual, ContextPolicy, FarSighted, MarketPolicy, NoSend, Oracle, Uniform
from envs.market.scenarios import SCENARIOS, Dynamics, Rules, Scenario
from envs.market.state import MarketState

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
