"""Braze: the events of Currents, in a folder for each type of event."""

from crosschannel.histories.readers.presets.preset import Preset

BRAZE = Preset(
    layout="Currents events in folders such as event_type=users.messages.email.Open/date=2024-01-15-06",
    columns={
        # Braze's own `user_id` is in every event; `external_user_id` is the id of the company, once it is known.
        "user_id": "external_user_id",
        "anonymous_id": "user_id",
        "time": "time",
        "event": "name",
        "message_id": "id",
    },
    # Only a custom event has a name of its own; the folder of a file names the type of any other.
    fallbacks={"event": "event_type"},
    time_unit="s",
)
