from .bins import CalibrationBin as CalibrationBin
from .bins import WeightBin as WeightBin
from .bins import calibration_bins as calibration_bins
from .bins import weight_bins as weight_bins
from .bootstrap import Interval as Interval
from .bootstrap import t_interval as t_interval
from .bootstrap import user_bootstrap as user_bootstrap
from .estimates import Estimate as Estimate
from .estimates import EvaluationSettings as EvaluationSettings
from .estimators import DM as DM
from .estimators import DR as DR
from .estimators import ESTIMATORS as ESTIMATORS
from .estimators import IPS as IPS
from .estimators import SNIPS as SNIPS
from .estimators import BetaIPS as BetaIPS
from .estimators import Estimator as Estimator
from .estimators import Sample as Sample
from .estimators import SwitchDR as SwitchDR
from .gate import CostEvent as CostEvent
from .gate import ExpectedUse as ExpectedUse
from .gate import GateRule as GateRule
from .gate import GateVerdict as GateVerdict
from .gate import Selection as Selection
from .gate import gate_verdict as gate_verdict
from .gate import select_best as select_best
from .ladder import Comparison as Comparison
from .ladder import Ladder as Ladder
from .ladder import compare_policies as compare_policies
from .logged_decisions import LoggedDecisions as LoggedDecisions
from .observed_decisions import Refit as Refit
from .off_policy import evaluate as evaluate
from .outcomes import CrossFittedOutcomes as CrossFittedOutcomes
from .outcomes import OutcomeModel as OutcomeModel
from .outcomes import QValues as QValues
from .planning import ChosenWeights as ChosenWeights
from .planning import DataNeed as DataNeed
from .planning import LogSize as LogSize
from .planning import WeightMoments as WeightMoments
from .planning import advice as advice
from .planning import data_needs as data_needs
from .planning import users_per_arm_of_means as users_per_arm_of_means
from .planning import users_per_arm_of_rates as users_per_arm_of_rates
from .plots import plot_calibration as plot_calibration
from .plots import plot_comparisons as plot_comparisons
from .plots import plot_costs as plot_costs
from .plots import plot_estimates as plot_estimates
from .plots import plot_ladder as plot_ladder
from .plots import plot_modules as plot_modules
from .plots import plot_slots as plot_slots
from .plots import plot_trajectories as plot_trajectories
from .plots import plot_waterfall as plot_waterfall
from .plots import plot_weights as plot_weights
from .report import Card as Card
from .report import Picture as Picture
from .report import ReportSection as ReportSection
from .report import ReportTable as ReportTable
from .report import caveats as caveats
from .report import from_dict as from_dict
from .report import headline as headline
from .report import headline_text as headline_text
from .report import module_effects as module_effects
from .report import render_html as render_html
from .report import text_table as text_table
from .report import to_dict as to_dict
from .report import verdict as verdict
from .report import write_html as write_html
from .results import Evaluation as Evaluation
from .sequential import FQE as FQE
from .sequential import TRAJECTORY_ESTIMATORS as TRAJECTORY_ESTIMATORS
from .sequential import PerDecisionIPS as PerDecisionIPS
from .sequential import PerDecisionSNIPS as PerDecisionSNIPS
from .sequential import SequentialDR as SequentialDR
from .sequential import Trajectories as Trajectories
from .sequential import TrajectoryEstimate as TrajectoryEstimate
from .sequential import TrajectoryEstimator as TrajectoryEstimator
from .sequential import TrajectoryEvaluation as TrajectoryEvaluation
from .sequential import TrajectoryIndex as TrajectoryIndex
from .sequential import TrajectoryIPS as TrajectoryIPS
from .sequential import TrajectorySettings as TrajectorySettings
from .sequential import WeightedDR as WeightedDR
from .sequential import blocks as blocks
from .sequential import evaluate_trajectories as evaluate_trajectories
from .sequential import first_slots as first_slots
from .sequential import fit_q_values as fit_q_values
from .sequential import value_trajectories as value_trajectories
from .support import Support as Support
from .support import kurtosis as kurtosis
from .support import required_ess as required_ess
from .support import unsupported_mass as unsupported_mass
from .trials import ArmComparison as ArmComparison
from .trials import ArmMeans as ArmMeans
from .trials import ArmTable as ArmTable
from .trials import Contrast as Contrast
from .trials import OutcomeLift as OutcomeLift
from .trials import PastLooks as PastLooks
from .trials import Trial as Trial
from .trials import TrialCheck as TrialCheck
from .trials import TrialConfig as TrialConfig
from .trials import arm_means as arm_means
from .trials import contrast as contrast
from .trials import critical_values as critical_values
from .trials import plot_arm_costs as plot_arm_costs
from .trials import plot_lifts as plot_lifts
from .trials import plot_looks as plot_looks
from .trials import plot_segments as plot_segments
from .trials import plot_time_course as plot_time_course
from .trials import read_arms as read_arms
from .trials import read_past_looks as read_past_looks
from .trials import read_trial as read_trial
from .trials import sample_ratio_p_value as sample_ratio_p_value
from .trials import significant_outcomes as significant_outcomes
from .trials import spent_alpha as spent_alpha
from .trials import stopping_boundaries as stopping_boundaries
from .trials import trial_text as trial_text
from .trials import write_trial_html as write_trial_html
from .weights import effective_sample_size as effective_sample_size
from .weights import importance_weights as importance_weights

__all__ = [
    "DM",
    "DR",
    "ESTIMATORS",
    "FQE",
    "IPS",
    "SNIPS",
    "TRAJECTORY_ESTIMATORS",
    "ArmComparison",
    "ArmMeans",
    "ArmTable",
    "BetaIPS",
    "CalibrationBin",
    "Card",
    "ChosenWeights",
    "Comparison",
    "Contrast",
    "CostEvent",
    "CrossFittedOutcomes",
    "DataNeed",
    "Estimate",
    "Estimator",
    "Evaluation",
    "EvaluationSettings",
    "ExpectedUse",
    "GateRule",
    "GateVerdict",
    "Interval",
    "Ladder",
    "LogSize",
    "LoggedDecisions",
    "OutcomeLift",
    "OutcomeModel",
    "PastLooks",
    "PerDecisionIPS",
    "PerDecisionSNIPS",
    "Picture",
    "QValues",
    "Refit",
    "ReportSection",
    "ReportTable",
    "Sample",
    "Selection",
    "SequentialDR",
    "Support",
    "SwitchDR",
    "Trajectories",
    "TrajectoryEstimate",
    "TrajectoryEstimator",
    "TrajectoryEvaluation",
    "TrajectoryIPS",
    "TrajectoryIndex",
    "TrajectorySettings",
    "Trial",
    "TrialCheck",
    "TrialConfig",
    "WeightBin",
    "WeightMoments",
    "WeightedDR",
    "advice",
    "arm_means",
    "blocks",
    "calibration_bins",
    "caveats",
    "compare_policies",
    "contrast",
    "critical_values",
    "data_needs",
    "effective_sample_size",
    "evaluate",
    "evaluate_trajectories",
    "first_slots",
    "fit_q_values",
    "from_dict",
    "gate_verdict",
    "headline",
    "headline_text",
    "importance_weights",
    "kurtosis",
    "module_effects",
    "plot_arm_costs",
    "plot_calibration",
    "plot_comparisons",
    "plot_costs",
    "plot_estimates",
    "plot_ladder",
    "plot_lifts",
    "plot_looks",
    "plot_modules",
    "plot_segments",
    "plot_slots",
    "plot_time_course",
    "plot_trajectories",
    "plot_waterfall",
    "plot_weights",
    "read_arms",
    "read_past_looks",
    "read_trial",
    "render_html",
    "required_ess",
    "sample_ratio_p_value",
    "select_best",
    "significant_outcomes",
    "spent_alpha",
    "stopping_boundaries",
    "t_interval",
    "text_table",
    "to_dict",
    "trial_text",
    "unsupported_mass",
    "user_bootstrap",
    "users_per_arm_of_means",
    "users_per_arm_of_rates",
    "value_trajectories",
    "verdict",
    "weight_bins",
    "write_html",
    "write_trial_html",
]
