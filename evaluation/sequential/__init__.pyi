from .estimators import FQE as FQE
from .estimators import TRAJECTORY_ESTIMATORS as TRAJECTORY_ESTIMATORS
from .estimators import PerDecisionIPS as PerDecisionIPS
from .estimators import PerDecisionSNIPS as PerDecisionSNIPS
from .estimators import SequentialDR as SequentialDR
from .estimators import TrajectoryEstimator as TrajectoryEstimator
from .estimators import TrajectoryIPS as TrajectoryIPS
from .estimators import WeightedDR as WeightedDR
from .fitted_q import fit_q_values as fit_q_values
from .results import TrajectoryEstimate as TrajectoryEstimate
from .results import TrajectoryEvaluation as TrajectoryEvaluation
from .settings import TrajectorySettings as TrajectorySettings
from .trajectories import Trajectories as Trajectories
from .trajectories import TrajectoryIndex as TrajectoryIndex
from .trajectories import blocks as blocks
from .trajectories import first_slots as first_slots
from .value import evaluate_trajectories as evaluate_trajectories
from .value import value_trajectories as value_trajectories

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
    "TrajectorySettings",
    "WeightedDR",
    "blocks",
    "evaluate_trajectories",
    "first_slots",
    "fit_q_values",
    "value_trajectories",
]
