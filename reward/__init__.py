"""From goal events to incremental rewards: windows, difference in differences, errors and diagnostics."""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.reward` instead of `reward`: a second copy of its classes would not fit the first"
    )


from crosschannel.histories.goals import Goal
from crosschannel.reward.adjusted import DidDoublyRobustReward, DidRegressionReward
from crosschannel.reward.effects.diagnostics import Diagnostics, diagnose
from crosschannel.reward.effects.estimates import Effect, Study, average_effect, effects_of, tidy
from crosschannel.reward.effects.event_study import EventStudy, EventTimes, event_study
from crosschannel.reward.frame import REASONS, RewardFrame
from crosschannel.reward.kinds import REWARDS, make_reward, refit
from crosschannel.reward.measurement.outcomes import Outcomes, RewardSpec, measure
from crosschannel.reward.models import ChangeReward, DidReward, FittedReward, RawReward, RewardModel
from crosschannel.reward.spec import Matching

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
