from .adjusted import DidDoublyRobustReward as DidDoublyRobustReward
from .adjusted import DidRegressionReward as DidRegressionReward
from .frame import RewardFrame as RewardFrame
from .funnel import Components as Components
from .funnel import FunnelSpec as FunnelSpec
from .kinds import REWARDS as REWARDS
from .kinds import make_reward as make_reward
from .kinds import refit as refit
from .losses import LostRewards as LostRewards
from .losses import RewardLosses as RewardLosses
from .measurement import FittedPreprocessing as FittedPreprocessing
from .measurement import Outcomes as Outcomes
from .measurement import measure as measure
from .measurement import measure_with as measure_with
from .models import ChangeReward as ChangeReward
from .models import DidReward as DidReward
from .models import FittedReward as FittedReward
from .models import RawReward as RawReward
from .models import RewardModel as RewardModel
from .reason import Reason as Reason
from .spec import CovariateSpec as CovariateSpec
from .spec import Goal as Goal
from .spec import Matching as Matching
from .spec import RewardSpec as RewardSpec

__all__ = [
    "REWARDS",
    "ChangeReward",
    "Components",
    "CovariateSpec",
    "DidDoublyRobustReward",
    "DidRegressionReward",
    "DidReward",
    "FittedPreprocessing",
    "FittedReward",
    "FunnelSpec",
    "Goal",
    "LostRewards",
    "Matching",
    "Outcomes",
    "RawReward",
    "Reason",
    "RewardFrame",
    "RewardLosses",
    "RewardModel",
    "RewardSpec",
    "make_reward",
    "measure",
    "measure_with",
    "refit",
]
