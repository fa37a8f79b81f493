"""Wrappers around both environments, for standard agents and for rewards with a delay or a price."""

from crosschannel.envs.wrappers.delayed import DelayedReward, DelayedRewardVector, LogDelay
from crosschannel.envs.wrappers.flat import FlatContext, FlatContextVector, flatten
from crosschannel.envs.wrappers.joint import JointAction, JointActionVector
from crosschannel.envs.wrappers.lagrangian import LagrangianCost, LagrangianCostVector
from crosschannel.envs.wrappers.outcomes import RecordOutcomes, RecordOutcomesVector

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
