"""Read a randomised trial of arms: intention to treat, with looks, adjustment and checks of the randomisation."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
