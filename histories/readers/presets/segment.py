"""Segment: the JSON lines of a destination such as Amazon S3, one call a line."""

from crosschannel.histories.readers.presets.preset import Preset

SEGMENT = Preset(
    layout="JSON lines of calls (track, identify, page, screen), as the S3 destination writes them",
    columns={
        "user_id": "userId",
        "anonymous_id": "anonymousId",
        "time": "timestamp",
        "event": "event",
        "message_id": "messageId",
    },
    # Only `track` names an event; another call is an event of its type: `identify`, `page`, `screen`.
    fallbacks={"event": "type"},
)
