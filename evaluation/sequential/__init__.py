"""The value of a policy that chooses at several slots of a user in a row, where effects outlast a slot.

index = first_slots(decisions.user, decisions.time, horizon=12, churned=churned)
print(evaluate_trajectories(log, probabilities, rewards, index, rng=rng, context=context))
"""

from crosschannel.evaluation.sequential.estimators import (
    FQE,
    TRAJECTORY_ESTIMATORS,
    PerDecisionIPS,
    PerDecisionSNIPS,
    SequentialDR,
    TrajectoryEstimator,
    TrajectoryIPS,
    WeightedDR,
)
from crosschannel.evaluation.sequential.fitted_q import fit_q_values
from crosschannel.evaluation.sequential.results import TrajectoryEstimate, TrajectoryEvaluation
from crosschannel.evaluation.sequential.trajectories import Trajectories, TrajectoryIndex, blocks, first_slots
from crosschannel.evaluation.sequential.value import evaluate_trajectories, value_trajectories

__all__ = [
    "FQE",
    "TRAJECTORY_ESTIMATORS",
    "PerDecisionIPS",
    "PerDecisionSNIPS",
    "SequentialDR",
    "Trajectories",
    "TrajectoryEstimate",
    "TrajectoryEstimator",
    "TrajectoryEvaluation",
    "TrajectoryIPS",
    "TrajectoryIndex",
    "WeightedDR",
    "blocks",
    "evaluate_trajectories",
    "first_slots",
    "fit_q_values",
    "value_trajectories",
]
