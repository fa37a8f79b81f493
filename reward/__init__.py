"""From goal events to incremental rewards: windows, controls and difference in differences.

Average effects with intervals and diagnostics are in `crosschannel.reward.effects`.
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.reward` instead of `reward`: a second copy of its classes would not fit the first"
    )

from crosschannel.histories.goals import Goal
from crosschannel.reward.adjusted import DidDoublyRobustReward, DidRegressionReward
from crosschannel.reward.frame import RewardFrame
from crosschannel.reward.kinds import REWARDS, make_reward, refit
from crosschannel.reward.measurement import FittedPreprocessing, Outcomes, measure, measure_with
from crosschannel.reward.models import ChangeReward, DidReward, FittedReward, RawReward, RewardModel
from crosschannel.reward.reason import Reason
from crosschannel.reward.spec import Matching, RewardSpec

__all__ = [
    "REWARDS",
    "ChangeReward",
    "DidDoublyRobustReward",
    "DidRegressionReward",
    "DidReward",
    "FittedPreprocessing",
    "FittedReward",
    "Goal",
    "Matching",
    "Outcomes",
    "RawReward",
    "Reason",
    "RewardFrame",
    "RewardModel",
    "RewardSpec",
    "make_reward",
    "measure",
    "measure_with",
    "refit",
]
