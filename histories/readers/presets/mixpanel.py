"""Mixpanel: the lines of the raw event export, whose ids are in the properties."""

from crosschannel.histories.readers.presets.preset import Preset

MIXPANEL = Preset(
    layout="JSON lines of the raw event export; `distinct_id` is the user, merged by Mixpanel",
    columns={
        "user_id": "properties.distinct_id",
        "time": "properties.time",
        "event": "event",
        "message_id": "properties.$insert_id",
    },
    time_unit="s",
)
