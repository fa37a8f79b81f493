from .components import components as components
from .components import with_components as with_components
from .record import Components as Components
from .spec import FunnelSpec as FunnelSpec
from .surrogates import SurrogateIndex as SurrogateIndex

__all__ = [
    "Components",
    "FunnelSpec",
    "SurrogateIndex",
    "components",
    "with_components",
]
