from .config import MarketConfig
from .deployment import FreshUsers, PolicyValue, evaluate_policy
from .dynamics.parameters import ActionDates, ContentParts, DayKind, Dynamics, Rules, Scenario
from .env import MarketEnv
from .history import MarketTruth, market_user_ids, simulate_history
from .live import LiveMarket, Population
from .market import Market, StepResult
from .policies import (
    POLICIES,
    BusinessAsUsual,
    Choice,
    ContextPolicy,
    FarSighted,
    MarketPolicy,
    NoSend,
    Oracle,
    PolicyChoice,
    Uniform,
    make_policy,
    sample_choice,
    shares_of_eligible,
)
from .scenarios import SCENARIOS
from .state import MarketState
from .vector import MarketVectorEnv

__all__ = [
    "POLICIES",
    "SCENARIOS",
    "ActionDates",
    "BusinessAsUsual",
    "Choice",
    "ContentParts",
    "ContextPolicy",
    "DayKind",
    "Dynamics",
    "FarSighted",
    "FreshUsers",
    "LiveMarket",
    "Market",
    "MarketConfig",
    "MarketEnv",
    "MarketPolicy",
    "MarketState",
    "MarketTruth",
    "MarketVectorEnv",
    "NoSend",
    "Oracle",
    "PolicyChoice",
    "PolicyValue",
    "Population",
    "Rules",
    "Scenario",
    "StepResult",
    "Uniform",
    "evaluate_policy",
    "make_policy",
    "market_user_ids",
    "sample_choice",
    "shares_of_eligible",
    "simulate_history",
]
