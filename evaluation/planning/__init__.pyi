from .needs import ChosenWeights as ChosenWeights
from .needs import DataNeed as DataNeed
from .needs import LogSize as LogSize
from .needs import WeightMoments as WeightMoments
from .needs import advice as advice
from .needs import data_needs as data_needs
from .trials import users_per_arm_of_means as users_per_arm_of_means
from .trials import users_per_arm_of_rates as users_per_arm_of_rates

__all__ = [
    "ChosenWeights",
    "DataNeed",
    "LogSize",
    "WeightMoments",
    "advice",
    "data_needs",
    "users_per_arm_of_means",
    "users_per_arm_of_rates",
]
