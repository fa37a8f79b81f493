from .cross_fitting import CrossFittedOutcomes as CrossFittedOutcomes
from .outcome_model import OutcomeModel as OutcomeModel
from .outcome_model import QValues as QValues
from .regressors import RegressorOutcomes as RegressorOutcomes

__all__ = ["CrossFittedOutcomes", "OutcomeModel", "QValues", "RegressorOutcomes"]
