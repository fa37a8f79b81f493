"""Learn which message, when, on which channel, or none at all, from logged cross-channel histories.

    config = crosschannel.load_config("market")
    history = crosschannel.load_history(config)
    rewards = crosschannel.compute_rewards(history, config)
    run = crosschannel.train(config)
    print(crosschannel.evaluate(run))

Importing the package registers `CrossChannelReplay-v0` and `CrossChannelMarket-v0` with Gymnasium; everything else is
imported on first use.
"""

import crosschannel.working_directory  # first, since it decides from where all else is imported

# isort: split
from pathlib import Path as _Path

import lazy_loader as _lazy_loader

if (_Path(__file__).parent / "core").is_file():
    raise ImportError(
        "the links in crosschannel/ were checked out as text files: run `git config core.symlinks true` and "
        "`git checkout -- crosschannel` (on Windows in developer mode), or install a wheel"
    )

import crosschannel.envs  # noqa: F401 - registers the environments with Gymnasium
from crosschannel.version import __version__ as __version__

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
