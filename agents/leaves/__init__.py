"""Learn agents from sums over leaves of users, so that no computation holds the rows of all users."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
