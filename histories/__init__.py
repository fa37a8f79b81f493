"""Logged histories: reading, validation, context features, propensities, eligibility, splits and buckets.

A `History` has the decisions and events of many users as arrays. It is read from the native folder (`read_history`),
from CSV or Parquet files of any layout (`read_tables`), from one event stream (`read_stream`) or from a named public
data set (`read_dataset`), or built from pandas tables (`History.from_tables`) or arrays (`History.from_arrays`). Input
that cannot be read raises an `InputError` with every fault that was found.
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.histories` instead of `histories`: a second copy of its classes would not fit the first"
    )


from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError, CrosschannelError, Fault, InputError, NotIdentified
from crosschannel.histories.buckets import bucket_of, bucket_paths, write_buckets
from crosschannel.histories.eligibility import last_eligible, read_eligible, without_churned
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.histories.goals import Goal
from crosschannel.histories.guardrails import Guardrails
from crosschannel.histories.history import DEFAULT_CHURN_EVENTS, DecisionLog, EventLog, History
from crosschannel.histories.propensities import PropensityReport, estimate_propensities
from crosschannel.histories.readers.datasets import DATASETS, read_dataset
from crosschannel.histories.readers.datasets.starbucks import read_starbucks_rewards
from crosschannel.histories.readers.folder import read_history, write_history
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.readers.tables import TableMapping, TableSource, read_tables
from crosschannel.histories.splits import split_time, split_users
from crosschannel.histories.validation import check_rewards

__all__ = [
    "DATASETS",
    "DEFAULT_CHURN_EVENTS",
    "ActionSpace",
    "ConfigError",
    "ContextFeatures",
    "ContextSpec",
    "CrosschannelError",
    "DecisionLog",
    "EventLog",
    "Fault",
    "Goal",
    "Guardrails",
    "History",
    "InputError",
    "Module",
    "NotIdentified",
    "PropensityReport",
    "Sends",
    "SlotGrid",
    "StreamMapping",
    "TableMapping",
    "TableSource",
    "bucket_of",
    "bucket_paths",
    "check_rewards",
    "estimate_propensities",
    "last_eligible",
    "read_dataset",
    "read_eligible",
    "read_history",
    "read_starbucks_rewards",
    "read_stream",
    "read_tables",
    "split_time",
    "split_users",
    "without_churned",
    "write_buckets",
    "write_history",
]
