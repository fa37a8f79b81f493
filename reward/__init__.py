"""From goal events to incremental rewards: windows, controls and difference in differences.

Average effects with intervals and diagnostics are in `crosschannel.reward.effects`.
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.reward` instead of `reward`: a second copy of its classes would not fit the first"
    )


import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
