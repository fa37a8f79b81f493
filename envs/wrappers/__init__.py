"""Wrappers around both environments: for standard agents, and for rewards with a delay or a price."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
