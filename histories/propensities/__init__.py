"""Check propensities, estimate those that were not logged, and keep where each one comes from.

The names of `__all__` are imported on first use: `sources` is part of every history, the estimation is not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
