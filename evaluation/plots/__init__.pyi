from .bins import plot_calibration as plot_calibration
from .bins import plot_costs as plot_costs
from .bins import plot_weights as plot_weights
from .estimates import plot_comparisons as plot_comparisons
from .estimates import plot_estimates as plot_estimates
from .estimates import plot_ladder as plot_ladder
from .estimates import plot_modules as plot_modules
from .estimates import plot_waterfall as plot_waterfall
from .slots import plot_slots as plot_slots
from .slots import plot_trajectories as plot_trajectories

__all__ = [
    "plot_calibration",
    "plot_comparisons",
    "plot_costs",
    "plot_estimates",
    "plot_ladder",
    "plot_modules",
    "plot_slots",
    "plot_trajectories",
    "plot_waterfall",
    "plot_weights",
]
