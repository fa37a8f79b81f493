from .batches import batch_at as batch_at
from .buckets.passes import Passes as Passes
from .buckets.reading import reads_buckets as reads_buckets
from .buckets.sampling import fingerprint_of_buckets as fingerprint_of_buckets
from .buckets.sampling import read_to_judge as read_to_judge
from .buckets.training import train_on_buckets as train_on_buckets
from .building import TrainingData as TrainingData
from .building import agent_spec as agent_spec
from .building import compute_rewards as compute_rewards
from .building import prepare as prepare
from .command_line import Parser as Parser
from .command_line import UsageError as UsageError
from .command_line import logger as logger
from .command_line import program as program
from .configuration import Config as Config
from .configuration import load_config as load_config
from .configuration import read_config as read_config
from .configuration import write_config as write_config
from .flags import parse_settings as parse_settings
from .judgement.comparing import compare_runs as compare_runs
from .judgement.comparing import comparison_to_dict as comparison_to_dict
from .judgement.judging import ExplainedPolicy as ExplainedPolicy
from .judgement.judging import deployable_policy as deployable_policy
from .judgement.judging import explain_policy as explain_policy
from .judgement.judging import fit_outcomes as fit_outcomes
from .judgement.judging import judge as judge
from .judgement.records import TrueValue as TrueValue
from .judgement.results import EvaluationResult as EvaluationResult
from .judgement.validation import Validation as Validation
from .loop.deciding import DecidedDay as DecidedDay
from .loop.deciding import decide_day as decide_day
from .loop.decisions.day_users import DayRequest as DayRequest
from .loop.decisions.delivery import delivered_share as delivered_share
from .loop.decisions.explaining import Explanation as Explanation
from .loop.decisions.explaining import explain_decision as explain_decision
from .loop.writing import write_day as write_day
from .planning import plan as plan
from .pricing import LogPace as LogPace
from .pricing import check_priceable as check_priceable
from .pricing import price_messages as price_messages
from .pricing import priced_policy as priced_policy
from .procedure.records import ProcedureValue as ProcedureValue
from .procedure.valuing import check_procedure as check_procedure
from .procedure.valuing import value_procedure as value_procedure
from .reading import build_history as build_history
from .reading import load_history as load_history
from .report.model_card import model_card as model_card
from .report.model_card import write_model_card as write_model_card
from .report.run_report import next_steps as next_steps
from .report.run_report import write_report as write_report
from .run_folder import Run as Run
from .training.callbacks import Callback as Callback
from .training.callbacks import Callbacks as Callbacks
from .training.callbacks import Training as Training
from .training.monitoring import Monitor as Monitor

__all__ = [
    "Callback",
    "Callbacks",
    "Config",
    "DayRequest",
    "DecidedDay",
    "EvaluationResult",
    "ExplainedPolicy",
    "Explanation",
    "LogPace",
    "Monitor",
    "Parser",
    "Passes",
    "ProcedureValue",
    "Run",
    "Training",
    "TrainingData",
    "TrueValue",
    "UsageError",
    "Validation",
    "agent_spec",
    "batch_at",
    "build_history",
    "check_priceable",
    "check_procedure",
    "compare_runs",
    "comparison_to_dict",
    "compute_rewards",
    "decide_day",
    "delivered_share",
    "deployable_policy",
    "explain_decision",
    "explain_policy",
    "fingerprint_of_buckets",
    "fit_outcomes",
    "judge",
    "load_config",
    "load_history",
    "logger",
    "model_card",
    "next_steps",
    "parse_settings",
    "plan",
    "prepare",
    "price_messages",
    "priced_policy",
    "program",
    "read_config",
    "read_to_judge",
    "reads_buckets",
    "train_on_buckets",
    "value_procedure",
    "write_config",
    "write_day",
    "write_model_card",
    "write_report",
]
