from .delayed import DelayedReward, DelayedRewardVector, LogDelay
from .flat import FlatContext, FlatContextVector, flatten
from .joint import JointAction, JointActionVector
from .lagrangian import LagrangianCost, LagrangianCostVector
from .outcomes import RecordOutcomes, RecordOutcomesVector
from .stable_baselines import StableBaselinesVec

__all__ = [
    "DelayedReward",
    "DelayedRewardVector",
    "FlatContext",
    "FlatContextVector",
    "JointAction",
    "JointActionVector",
    "LagrangianCost",
    "LagrangianCostVector",
    "LogDelay",
    "RecordOutcomes",
    "RecordOutcomesVector",
    "StableBaselinesVec",
    "flatten",
]
