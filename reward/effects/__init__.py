"""Average effects of the logged messages: estimates, influence functions, event study, diagnostics and the report.

Training does not need this package.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
