"""Logged histories: their schema, reading, validation, action modules and context features.

A `History` holds the decisions and events of many users as arrays. It comes from the native folder
(`read_history`), from CSV or Parquet files of any layout (`read_tables`), from one event stream (`read_stream`), from a
named public data set (`read_dataset`), from pandas tables (`History.from_tables`) or from a simulator
(`History.from_arrays`). Input that cannot be read as it stands raises an `InputError` with every fault that was found.
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.histories` instead of `histories`: a second copy of its classes would not fit the first"
    )


from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError, CrosschannelError, Fault, InputError, NotIdentified
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.histories.history import DecisionLog, EventLog, History
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
    "ActionSpace",
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
