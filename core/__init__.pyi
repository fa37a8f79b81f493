from .action_space import ActionSpace as ActionSpace
from .action_space import Module as Module
from .errors import ConfigError as ConfigError
from .errors import CrosschannelError as CrosschannelError
from .errors import Fault as Fault
from .errors import InputError as InputError
from .errors import NotIdentified as NotIdentified

__all__ = [
    "ActionSpace",
    "ConfigError",
    "CrosschannelError",
    "Fault",
    "InputError",
    "Module",
    "NotIdentified",
]
