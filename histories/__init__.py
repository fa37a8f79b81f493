"""Logged histories: their schema, reading, validation, action modules and context features.

A `History` holds the decisions and events of many users as arrays. It comes from the native folder
(`read_history`), from CSV or Parquet files of any layout (`read_tables`), from one event stream (`read_stream`), from a
named public data set (`read_dataset`), from pandas tables (`History.from_tables`) or from a simulator
(`History.from_arrays`). Input that cannot be read as it stands raises an `InputError` with every fault that was found.
"""

from histories.context import ContextFeatures, ContextSpec
from histories.datasets import DATASETS, read_dataset
from histories.errors import ConfigError, CrosschannelError, Fault, InputError, NotIdentified
from histories.event_stream import read_stream
from histories.folder import read_history, write_history
from histories.history import DecisionLog, EventLog, History
from histories.modules import Module, Modules
from histories.slots import SlotGrid
from histories.splits import split_time, split_users
from histories.starbucks import read_starbucks_rewards
from histories.stream_mapping import Sends, StreamMapping
from histories.tables import TableMapping, TableSource, read_tables
from histories.validation import check_rewards

__all__ = [
    "DATASETS",
    "ConfigError",
    "ContextFeatures",
    "ContextSpec",
    "CrosschannelError",
    "DecisionLog",
    "EventLog",
    "Fault",
    "History",
    "InputError",
    "Module",
    "Modules",
    "NotIdentified",
    "Sends",
    "SlotGrid",
    "StreamMapping",
    "TableMapping",
    "TableSource",
    "check_rewards",
    "read_dataset",
    "read_history",
    "read_starbucks_rewards",
    "read_stream",
    "read_tables",
    "split_time",
    "split_users",
    "write_history",
]
