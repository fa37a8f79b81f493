"""Gymnasium environments over logged histories and over a simulated market with known truth."""

import gymnasium

gymnasium.register(
    id="CrossChannelMarket-v0",
    entry_point="envs.market.env:MarketEnv",
    vector_entry_point="envs.market.vector:MarketVectorEnv",
)

gymnasium.register(
    id="CrossChannelReplay-v0",
    entry_point="envs.replay:CrossChannelReplay",
    vector_entry_point="envs.replay_vector:CrossChannelReplayVector",
)
