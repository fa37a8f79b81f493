"""Gymnasium environments over logged histories and over a simulated market with known truth.

Importing this package registers `CrossChannelReplay-v0` and `CrossChannelMarket-v0` with Gymnasium. The packages
`replay`, `market` and `wrappers` are loaded when they are first used.
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.envs` instead of `envs`: a second copy of its classes would not fit the first"
    )


import gymnasium
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

gymnasium.register(
    id="CrossChannelMarket-v0",
    entry_point="crosschannel.envs.market.env:MarketEnv",
    vector_entry_point="crosschannel.envs.market.vector:MarketVectorEnv",
)

gymnasium.register(
    id="CrossChannelReplay-v0",
    entry_point="crosschannel.envs.replay.env:CrossChannelReplay",
    vector_entry_point="crosschannel.envs.replay.vector:CrossChannelReplayVector",
)
