"""From goal events to incremental rewards: windows, difference in differences, errors and diagnostics."""

from reward.adjusted import DidDoublyRobustReward, DidRegressionReward
from reward.diagnostics import Diagnostics, diagnose
from reward.effects import Effect, Study, average_effect, effects_of, tidy
from reward.event_time import EventStudy, EventTimes, event_study
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
    "Diagnostics",
    "DidDoublyRobustReward",
    "DidRegressionReward",
    "DidReward",
    "Effect",
    "EventStudy",
    "EventTimes",
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
    "diagnose",
    "effects_of",
    "event_study",
    "make_reward",
    "measure",
    "refit",
    "tidy",
]
