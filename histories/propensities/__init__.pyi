from .checks import PropensityCheck as PropensityCheck
from .checks import check_propensities as check_propensities
from .estimate import PropensityReport as PropensityReport
from .estimate import estimate_propensities as estimate_propensities

__all__ = ["PropensityCheck", "PropensityReport", "check_propensities", "estimate_propensities"]
