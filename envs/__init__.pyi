from . import market, replay, wrappers

__all__ = ["market", "replay", "wrappers"]
