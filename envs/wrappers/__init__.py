"""Wrappers around both environments, for standard agents and for rewards with a delay or a price."""

from envs.wrappers.delayed import DelayedReward, DelayedRewardVector, LogDelay
from envs.wrappers.flat import FlatContext, FlatContextVector, flatten
from envs.wrappers.joint import JointAction, JointActionVector
from envs.wrappers.lagrangian import LagrangianCost, LagrangianCostVector
from envs.wrappers.outcomes import RecordOutcomes, RecordOutcomesVector

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
    "flatten",
]
