from .action_space import ActionSpace as ActionSpace
from .action_space import Module as Module
from .arrays import BoolArray as BoolArray
from .arrays import FloatArray as FloatArray
from .arrays import IntArray as IntArray
from .arrays import ObjectArray as ObjectArray
from .arrays import UIntArray as UIntArray
from .errors import ConfigError as ConfigError
from .errors import CrosschannelError as CrosschannelError
from .errors import Fault as Fault
from .errors import InputError as InputError
from .errors import NotIdentified as NotIdentified
from .errors import OutputError as OutputError
from .files import replacing as replacing
from .files import write_csv as write_csv
from .hashing import derive as derive
from .hashing import keys as keys
from .hashing import pseudonyms as pseudonyms
from .hashing import row_fingerprints as row_fingerprints
from .times import DAY as DAY
from .times import HOUR as HOUR
from .times import SECOND as SECOND
from .times import WEEK as WEEK
from .times import duration as duration
from .times import parse_moment as parse_moment
from .times import timestamps as timestamps

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
    "OutputError",
    "UIntArray",
    "derive",
    "duration",
    "keys",
    "parse_moment",
    "pseudonyms",
    "replacing",
    "row_fingerprints",
    "timestamps",
    "write_csv",
]
