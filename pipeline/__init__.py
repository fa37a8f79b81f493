"""What the programs share: the typed configuration, the run folder, and building each part from them."""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.pipeline` instead of `pipeline`: a second copy of its classes would not fit the first"
    )


import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
