from .env import CrossChannelReplay
from .exports import to_bandit_feedback, to_minari
from .log import ReplayLog
from .rejection import Acceptance, largest_weight
from .vector import CrossChannelReplayVector

__all__ = [
    "Acceptance",
    "CrossChannelReplay",
    "CrossChannelReplayVector",
    "ReplayLog",
    "largest_weight",
    "to_bandit_feedback",
    "to_minari",
]
