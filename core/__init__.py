"""Shared by every package: action spaces, array types, errors, hashing, times, files and serialization.

This package imports none of the others. The names of `__all__` are imported on first use.
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.core` instead of `core`: a second copy of its classes would not fit the first"
    )


import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
