from .action_space import ActionSpace, Module
from .arrays import BoolArray, FloatArray, IntArray, ObjectArray, UIntArray
from .errors import ConfigError, CrosschannelError, Fault, InputError, NotIdentified
from .files import replacing
from .hashing import keys
from .times import DAY, HOUR, SECOND, WEEK, duration, timestamps

__all__ = [
    "DAY",
    "HOUR",
    "SECOND",
    "WEEK",
    "ActionSpace",
    "BoolArray",
    "ConfigError",
    "CrosschannelError",
    "Fault",
    "FloatArray",
    "InputError",
    "IntArray",
    "Module",
    "NotIdentified",
    "ObjectArray",
    "UIntArray",
    "duration",
    "keys",
    "replacing",
    "timestamps",
]
