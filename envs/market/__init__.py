"""The market: simulated users of a multi-service app whose responses to messages are known exactly."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
