from .building import Prepared as Prepared
from .building import build_history as build_history
from .building import prepare as prepare
from .building import recipe_of as recipe_of
from .command_line import Parser as Parser
from .command_line import UsageError as UsageError
from .command_line import logger as logger
from .command_line import program as program
from .configuration import Config as Config
from .configuration import read_config as read_config
from .configuration import write_config as write_config
from .flags import parse_settings as parse_settings
from .followers import Followers as Followers
from .judging import Validation as Validation
from .judging import assess as assess
from .judging import explained as explained
from .judging import fit_outcome_model as fit_outcome_model
from .monitoring import Monitor as Monitor
from .run_folder import Run as Run
from .summary import about as about
from .summary import metrics_of as metrics_of
from .summary import next_steps as next_steps
from .summary import summary_text as summary_text

__all__ = [
    "Config",
    "Followers",
    "Monitor",
    "Parser",
    "Prepared",
    "Run",
    "UsageError",
    "Validation",
    "about",
    "assess",
    "build_history",
    "explained",
    "fit_outcome_model",
    "logger",
    "metrics_of",
    "next_steps",
    "parse_settings",
    "prepare",
    "program",
    "read_config",
    "recipe_of",
    "summary_text",
    "write_config",
]
