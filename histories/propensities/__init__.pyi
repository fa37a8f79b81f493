from .estimate import PropensityReport as PropensityReport
from .estimate import estimate_propensities as estimate_propensities

__all__ = ["PropensityReport", "estimate_propensities"]
