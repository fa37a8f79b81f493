from .arms import ArmTable as ArmTable
from .arms import read_arms as read_arms
from .boundaries import critical_values as critical_values
from .boundaries import spent_alpha as spent_alpha
from .boundaries import stopping_boundaries as stopping_boundaries
from .checks import sample_ratio_p_value as sample_ratio_p_value
from .effects import ArmMeans as ArmMeans
from .effects import Contrast as Contrast
from .effects import arm_means as arm_means
from .effects import contrast as contrast
from .page import trial_text as trial_text
from .page import write_trial_html as write_trial_html
from .pictures.plots import plot_arm_costs as plot_arm_costs
from .pictures.plots import plot_lifts as plot_lifts
from .pictures.plots import plot_looks as plot_looks
from .pictures.plots import plot_segments as plot_segments
from .pictures.plots import plot_time_course as plot_time_course
from .readout import read_trial as read_trial
from .readout import significant_outcomes as significant_outcomes
from .results import ArmComparison as ArmComparison
from .results import OutcomeLift as OutcomeLift
from .results import PastLooks as PastLooks
from .results import Trial as Trial
from .results import TrialCheck as TrialCheck
from .results import read_past_looks as read_past_looks
from .settings import TrialConfig as TrialConfig

__all__ = [
    "ArmComparison",
    "ArmMeans",
    "ArmTable",
    "Contrast",
    "OutcomeLift",
    "PastLooks",
    "Trial",
    "TrialCheck",
    "TrialConfig",
    "arm_means",
    "contrast",
    "critical_values",
    "plot_arm_costs",
    "plot_lifts",
    "plot_looks",
    "plot_segments",
    "plot_time_course",
    "read_arms",
    "read_past_looks",
    "read_trial",
    "sample_ratio_p_value",
    "significant_outcomes",
    "spent_alpha",
    "stopping_boundaries",
    "trial_text",
    "write_trial_html",
]
