"""Outcome models: the reward expected of an action in a context, fitted to users other than those it is used for."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
