from .env import CrossChannelReplay as CrossChannelReplay
from .exports import to_bandit_feedback, to_minari
from .log import ReplayLog as ReplayLog
from .rejection import Acceptance, largest_weight
from .settings import default_log as default_log
from .transitions import TransitionIndex as TransitionIndex
from .vector import CrossChannelReplayVector as CrossChannelReplayVector

__all__ = [
    "Acceptance",
    "CrossChannelReplay",
    "CrossChannelReplayVector",
    "ReplayLog",
    "TransitionIndex",
    "default_log",
    "largest_weight",
    "to_bandit_feedback",
    "to_minari",
]
