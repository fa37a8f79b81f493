"""Amplitude: the files of the Export API, JSON lines by hour."""

from crosschannel.histories.readers.presets.preset import Preset

AMPLITUDE = Preset(
    layout="JSON lines of the Export API, unpacked from its archive; `event_time` is in UTC",
    columns={
        "user_id": "user_id",
        "anonymous_id": "device_id",
        "time": "event_time",
        "event": "event_type",
        "message_id": "uuid",
    },
)
