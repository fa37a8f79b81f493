"""Plots of evaluations with Matplotlib, from the records that the package returns."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
