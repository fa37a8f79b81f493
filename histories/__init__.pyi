from .buckets import bucket_of, bucket_paths, write_buckets
from .eligibility import last_eligible, read_eligible, without_churned
from .features import ContextFeatures, ContextSpec
from .goals import Goal
from .guardrails import Guardrails, allowed_actions, guarded_mask
from .history import DEFAULT_CHURN_EVENTS, DecisionLog, EventLog, History
from .propensities.estimate import PropensityReport, estimate_propensities
from .readers.datasets import DATASETS, read_dataset
from .readers.datasets.starbucks import read_starbucks_rewards
from .readers.folder import read_history, write_history
from .readers.slots import SlotGrid
from .readers.stream.mapping import Sends, StreamMapping
from .readers.stream.reader import read_stream
from .readers.tables import TableMapping, TableSource, read_tables
from .splits import split_time, split_users
from .validation import check_rewards

__all__ = [
    "DATASETS",
    "DEFAULT_CHURN_EVENTS",
    "ContextFeatures",
    "ContextSpec",
    "DecisionLog",
    "EventLog",
    "Goal",
    "Guardrails",
    "History",
    "PropensityReport",
    "Sends",
    "SlotGrid",
    "StreamMapping",
    "TableMapping",
    "TableSource",
    "allowed_actions",
    "bucket_of",
    "bucket_paths",
    "check_rewards",
    "estimate_propensities",
    "guarded_mask",
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
