"""Braze: the events of Currents, in a folder for each type of event."""

from crosschannel.histories.readers.presets.preset import Preset

BRAZE = Preset(
    layout="Currents events in folders such as event_type=users.messages.email.Open/date=2024-01-15-06",
    columns={
        # Braze's own `user_id` is in every event; `external_user_id` is the id of the company, once it is known.
        "user_id": "external_user_id",
        "anonymous_id": "user_id",
        "time": "time",
        "event": "event_type",
        "message_id": "id",
    },
    time_unit="s",
)
