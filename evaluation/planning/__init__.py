"""Plan before a campaign: how much data a value needs, and how large a randomised trial must be."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
