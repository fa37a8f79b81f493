"""What all plots share: their colours, axes that leave Matplotlib's global state alone, and three kinds of charts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
