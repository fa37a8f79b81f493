from .calibration import Calibration as Calibration
from .calibration import CalibrationLine as CalibrationLine
from .calibration import calibration as calibration
from .components import components as components
from .components import with_components as with_components
from .effects import FunnelEffects as FunnelEffects
from .exclusion import ChannelExclusion as ChannelExclusion
from .exclusion import ExclusionTest as ExclusionTest
from .exclusion import exclusion_test as exclusion_test
from .record import Components as Components
from .spec import FunnelSpec as FunnelSpec
from .surrogacy import SurrogateTest as SurrogateTest
from .surrogacy import surrogate_tests as surrogate_tests
from .surrogates import SurrogateIndex as SurrogateIndex

__all__ = [
    "Calibration",
    "CalibrationLine",
    "ChannelExclusion",
    "Components",
    "ExclusionTest",
    "FunnelEffects",
    "FunnelSpec",
    "SurrogateIndex",
    "SurrogateTest",
    "calibration",
    "components",
    "exclusion_test",
    "surrogate_tests",
    "with_components",
]
