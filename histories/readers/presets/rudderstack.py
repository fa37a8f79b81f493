"""RudderStack: the JSON lines of an object storage, one call a line."""

from crosschannel.histories.readers.presets.preset import Preset

RUDDERSTACK = Preset(
    layout="JSON lines of calls (track, identify, page, screen), as an object storage receives them",
    columns={
        "user_id": "userId",
        "anonymous_id": "anonymousId",
        "time": "timestamp",
        "event": "event",
        "message_id": "messageId",
    },
    # `timestamp` is `originalTimestamp` corrected for the clock of the device; older sources do not have it.
    fallbacks={"event": "type", "time": "originalTimestamp"},
)
