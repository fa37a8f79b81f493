"""The parts of a reward along a declared funnel: engagement, value, cost events, and the tests of what they assume."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
