"""Gymnasium environments over logged histories and over a simulated market with known truth."""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.envs` instead of `envs`: a second copy of its classes would not fit the first"
    )


import gymnasium

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
