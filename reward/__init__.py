"""From goal events to incremental rewards: windows, difference in differences, errors and diagnostics."""

from reward.adjusted import DidDoublyRobustReward, DidRegressionReward
from reward.effects import Effect, Study, average_effect, difference_in_means, effects_of, effects_table, tidy
from reward.frame import REASONS, RewardFrame
from reward.goals import Goal
from reward.kinds import REWARDS, make_reward, refit
from reward.models import ChangeReward, DidReward, FittedReward, RawReward, RewardModel
from reward.outcomes import Outcomes, RewardSpec, measure
from reward.spec import Matching

__all__ = [
    "REASONS",
    "REWARDS",
    "ChangeReward",
    "DidDoublyRobustReward",
    "DidRegressionReward",
    "DidReward",
    "Effect",
    "FittedReward",
    "Goal",
    "Matching",
    "Outcomes",
    "RawReward",
    "RewardFrame",
    "RewardModel",
    "RewardSpec",
    "Study",
    "average_effect",
    "difference_in_means",
    "effects_of",
    "effects_table",
    "make_reward",
    "measure",
    "refit",
    "tidy",
]
