"""Ready-made mappings of the exports of vendors: `history.stream.preset`."""

from crosschannel.histories.readers.presets.amplitude import AMPLITUDE
from crosschannel.histories.readers.presets.braze import BRAZE
from crosschannel.histories.readers.presets.ga4 import GA4
from crosschannel.histories.readers.presets.mixpanel import MIXPANEL
from crosschannel.histories.readers.presets.preset import OPTIONAL, Preset
from crosschannel.histories.readers.presets.rudderstack import RUDDERSTACK
from crosschannel.histories.readers.presets.segment import SEGMENT

__all__ = ["OPTIONAL", "PRESETS", "Preset"]

#: The presets by their names in the configuration.
PRESETS: dict[str, Preset] = {
    "segment": SEGMENT,
    "braze": BRAZE,
    "amplitude": AMPLITUDE,
    "mixpanel": MIXPANEL,
    "rudderstack": RUDDERSTACK,
    "ga4": GA4,
}
