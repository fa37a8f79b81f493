from .pipeline import Config as Config
from .pipeline import EvaluationResult as EvaluationResult
from .pipeline import Run as Run
from .pipeline import compute_rewards as compute_rewards
from .pipeline import load_config as load_config
from .pipeline import load_history as load_history
from .programs.evaluate import evaluate as evaluate
from .programs.train import train as train
from .version import __version__ as __version__

__all__ = [
    "Config",
    "EvaluationResult",
    "Run",
    "__version__",
    "compute_rewards",
    "evaluate",
    "load_config",
    "load_history",
    "train",
]
