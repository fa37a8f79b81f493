from .base import Agent as Agent
from .base import Batch as Batch
from .base import Components as Components
from .base import Decisions as Decisions
from .base import ExtendableAgent as ExtendableAgent
from .base import Observations as Observations
from .baselines import Baseline as Baseline
from .baselines import Logging as Logging
from .baselines import NoSend as NoSend
from .baselines import Uniform as Uniform
from .beta import BetaThompson as BetaThompson
from .bootstrapped_q import BootstrappedQ as BootstrappedQ
from .buffers.delay import Delay as Delay
from .checkpoints import load_agent as load_agent
from .checkpoints import load_fit as load_fit
from .checkpoints import load_policy as load_policy
from .checkpoints import read_extra as read_extra
from .checkpoints import restore_agent as restore_agent
from .checkpoints import save_agent as save_agent
from .checkpoints import save_fit as save_fit
from .checkpoints import save_policy as save_policy
from .constraints.budgets import action_costs as action_costs
from .constraints.budgets import budgets_at as budgets_at
from .constraints.budgets import check_constraints as check_constraints
from .constraints.budgets import expected_use as expected_use
from .constraints.budgets import rate_per_week as rate_per_week
from .constraints.prices import InfeasibleBudget as InfeasibleBudget
from .constraints.prices import Prices as Prices
from .constraints.prices import priced_shares as priced_shares
from .constraints.prices import shadow_prices as shadow_prices
from .constraints.settings import Budget as Budget
from .constraints.settings import Constraints as Constraints
from .constraints.settings import CostLimit as CostLimit
from .ensemble.agent import EnsembleThompson as EnsembleThompson
from .explain import ALL_DECISIONS as ALL_DECISIONS
from .explain import policy_table as policy_table
from .linear.agent import BestFixed as BestFixed
from .linear.agent import EpsilonGreedy as EpsilonGreedy
from .linear.agent import LinearThompson as LinearThompson
from .linear.neural_linear import NeuralLinear as NeuralLinear
from .policy import Policy as Policy
from .policy import VotingPolicy as VotingPolicy
from .policy_views import as_markdown as as_markdown
from .policy_views import as_scalars as as_scalars
from .policy_views import as_text as as_text
from .policy_views import component_names as component_names
from .policy_views import plot_policy as plot_policy
from .registry import AGENTS as AGENTS
from .registry import agent_settings as agent_settings
from .registry import check_settings as check_settings
from .registry import make_agent as make_agent
from .registry import resolve_device as resolve_device
from .sampling import check_decisions as check_decisions
from .sampling import check_probabilities as check_probabilities
from .sampling import sample_actions as sample_actions
from .sampling import sample_keyed as sample_keyed
from .sampling import uniform_shares as uniform_shares
from .sampling import vote_shares as vote_shares
from .settings import BestFixedSettings as BestFixedSettings
from .settings import BetaThompsonSettings as BetaThompsonSettings
from .settings import BootstrappedQSettings as BootstrappedQSettings
from .settings import EnsembleThompsonSettings as EnsembleThompsonSettings
from .settings import EpsilonGreedySettings as EpsilonGreedySettings
from .settings import LinearThompsonSettings as LinearThompsonSettings
from .settings import NeuralLinearSettings as NeuralLinearSettings
from .settings import NoSettings as NoSettings

__all__ = [
    "AGENTS",
    "ALL_DECISIONS",
    "Agent",
    "Baseline",
    "Batch",
    "BestFixed",
    "BestFixedSettings",
    "BetaThompson",
    "BetaThompsonSettings",
    "BootstrappedQ",
    "BootstrappedQSettings",
    "Budget",
    "Components",
    "Constraints",
    "CostLimit",
    "Decisions",
    "Delay",
    "EnsembleThompson",
    "EnsembleThompsonSettings",
    "EpsilonGreedy",
    "EpsilonGreedySettings",
    "ExtendableAgent",
    "InfeasibleBudget",
    "LinearThompson",
    "LinearThompsonSettings",
    "Logging",
    "NeuralLinear",
    "NeuralLinearSettings",
    "NoSend",
    "NoSettings",
    "Observations",
    "Policy",
    "Prices",
    "Uniform",
    "VotingPolicy",
    "action_costs",
    "agent_settings",
    "as_markdown",
    "as_scalars",
    "as_text",
    "budgets_at",
    "check_constraints",
    "check_decisions",
    "check_probabilities",
    "check_settings",
    "component_names",
    "expected_use",
    "load_agent",
    "load_fit",
    "load_policy",
    "make_agent",
    "plot_policy",
    "policy_table",
    "priced_shares",
    "rate_per_week",
    "read_extra",
    "resolve_device",
    "restore_agent",
    "sample_actions",
    "sample_keyed",
    "save_agent",
    "save_fit",
    "save_policy",
    "shadow_prices",
    "uniform_shares",
    "vote_shares",
]
