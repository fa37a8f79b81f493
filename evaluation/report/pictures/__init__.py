"""Pictures of an evaluation: charts that fit every width, each with its text and its numbers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
