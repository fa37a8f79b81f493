from . import market as market
from . import replay as replay
from . import wrappers as wrappers

__all__ = ["market", "replay", "wrappers"]
