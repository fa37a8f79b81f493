"""What the programs share: the typed configuration, the run folder, and building each part from them."""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.pipeline` instead of `pipeline`: a second copy of its classes would not fit the first"
    )
