"""Agents: policies over arrays of contexts and action masks that state exact probabilities and learn from rewards.

The names of `__all__` are imported on first use, so that listing agents and their settings does not import torch.
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.agents` instead of `agents`: a second copy of its classes would not fit the first"
    )


import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
