from .arms import ARMS as ARMS
from .arms import Arms as Arms
from .arms import assign_arms as assign_arms
from .arms import held_out as held_out
from .buckets import Buckets as Buckets
from .buckets import leaf_of as leaf_of
from .buckets import open_buckets as open_buckets
from .buckets import read_bucket as read_bucket
from .buckets import write_buckets as write_buckets
from .eligibility import consent_columns as consent_columns
from .eligibility import last_eligible as last_eligible
from .eligibility import read_eligible as read_eligible
from .eligibility import read_user_list as read_user_list
from .eligibility import without_churned as without_churned
from .features import ContextFeatures as ContextFeatures
from .features import ContextSpec as ContextSpec
from .goals import Goal as Goal
from .guardrails import Guardrails as Guardrails
from .guardrails import allowed_actions as allowed_actions
from .guardrails import guarded_mask as guarded_mask
from .history import DEFAULT_CHURN_EVENTS as DEFAULT_CHURN_EVENTS
from .history import DecisionLog as DecisionLog
from .history import EventLog as EventLog
from .history import History as History
from .propensities.checks import PropensityCheck as PropensityCheck
from .propensities.checks import check_propensities as check_propensities
from .propensities.estimate import PropensityReport as PropensityReport
from .propensities.estimate import estimate_propensities as estimate_propensities
from .readers.datasets import DATASETS as DATASETS
from .readers.datasets import read_dataset as read_dataset
from .readers.datasets.starbucks import read_starbucks_rewards as read_starbucks_rewards
from .readers.folder import read_history as read_history
from .readers.folder import write_history as write_history
from .readers.frames import from_frames as from_frames
from .readers.slots import SlotGrid as SlotGrid
from .readers.sources import TableSource as TableSource
from .readers.stream.mapping import Sends as Sends
from .readers.stream.mapping import StreamMapping as StreamMapping
from .readers.stream.reader import read_stream as read_stream
from .readers.tables import TableMapping as TableMapping
from .readers.tables import read_tables as read_tables
from .splits import split_time as split_time
from .splits import split_users as split_users

__all__ = [
    "ARMS",
    "DATASETS",
    "DEFAULT_CHURN_EVENTS",
    "Arms",
    "Buckets",
    "ContextFeatures",
    "ContextSpec",
    "DecisionLog",
    "EventLog",
    "Goal",
    "Guardrails",
    "History",
    "PropensityCheck",
    "PropensityReport",
    "Sends",
    "SlotGrid",
    "StreamMapping",
    "TableMapping",
    "TableSource",
    "allowed_actions",
    "assign_arms",
    "check_propensities",
    "consent_columns",
    "estimate_propensities",
    "from_frames",
    "guarded_mask",
    "held_out",
    "last_eligible",
    "leaf_of",
    "open_buckets",
    "read_bucket",
    "read_dataset",
    "read_eligible",
    "read_history",
    "read_starbucks_rewards",
    "read_stream",
    "read_tables",
    "read_user_list",
    "split_time",
    "split_users",
    "without_churned",
    "write_buckets",
    "write_history",
]
