from .outcome_model import OutcomeModel as OutcomeModel
from .outcome_model import QValues as QValues

__all__ = ["OutcomeModel", "QValues"]
