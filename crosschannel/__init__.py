"""Learn which message, when, on which channel, or none at all, from logged cross-channel histories."""

import crosschannel.envs  # noqa: F401 - registers the environments with Gymnasium
from crosschannel.version import __version__

__all__ = ["__version__"]
