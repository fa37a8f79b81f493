"""Names of the market's actions and events, labels of the actions, and columns of the daily counts."""

from __future__ import annotations

from collections.abc import Mapping

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.times import DAY, HOUR

CHANNELS = ("none", "email", "push", "sms", "in_app")
BLOCKS = ("morning", "midday", "afternoon", "evening", "night")
SERVICES = ("food", "groceries", "rides", "payments")

Labels = Mapping[str, Mapping[str, float]]

#: Labels of offers, tones and greetings: users respond to labels, so that what one action teaches about a label holds
#: for every other action that has it. Action 0 of each module has labels of 0 only.
OFFERS: Labels = {
    "no_offer": {"discount": 0.0, "points": 0.0},
    "points": {"discount": 0.0, "points": 1.0},
    "free_delivery": {"discount": 0.5, "points": 0.0},
    "percent_10": {"discount": 0.7, "points": 0.5},
    "percent_20": {"discount": 1.0, "points": 0.0},
}
TONES: Labels = {
    "plain": {"warmth": 0.0, "emoji": 0.0},
    "friendly": {"warmth": 1.0, "emoji": 0.0},
    "playful": {"warmth": 1.0, "emoji": 1.0},
    "urgent": {"warmth": -1.0, "emoji": 0.5},
}
GREETINGS: Labels = {
    "no_greeting": {"personal": 0.0, "emoji": 0.0},
    "by_name": {"personal": 1.0, "emoji": 0.0},
    "wave": {"personal": 0.5, "emoji": 1.0},
}

MODULES = ActionSpace(
    [
        Module("channel", CHANNELS),
        Module("send_time", BLOCKS),
        Module("service", SERVICES),
        *(
            Module(name, tuple(labels), labels=labels)
            for name, labels in (("offer", OFFERS), ("tone", TONES), ("greeting", GREETINGS))
        ),
    ]
)

EMAIL, IN_APP = CHANNELS.index("email"), CHANNELS.index("in_app")
DAY_SECONDS = 86_400

#: Seconds after the slot at which each block begins, and the day ends: 06-10, 10-14, 14-18, 18-22 and 22-06 UTC.
BLOCK_BOUNDS = (0, 14_400, 28_800, 43_200, 57_600, DAY_SECONDS)

#: Cells of the day by which the state counts events: the blocks, with the night cut at midnight. Hours (UTC) at which
#: they begin, and seconds after the slot; from `MIDNIGHT` on it is the next day of the week.
CELL_HOURS = (6, 10, 14, 18, 22, 0)
CELL_BOUNDS = (*BLOCK_BOUNDS[:-1], 64_800)
MIDNIGHT = CELL_HOURS.index(0)

#: Market day 0 begins on Monday 2024-01-01 at 06:00 UTC; the slot of day d is at `START + d * DAY`.
START = 19_723 * DAY + 6 * HOUR

EVENTS = (
    *(f"visit:{service}" for service in SERVICES),
    *(f"order:{service}" for service in SERVICES),
    "delivered",
    *(f"opened:{channel}" for channel in CHANNELS[1:]),
    "clicked",
    "unsubscribed",
)
VISIT, ORDER = EVENTS.index("visit:food"), EVENTS.index("order:food")
DELIVERED, OPENED = EVENTS.index("delivered"), EVENTS.index("opened:email")
CLICKED, UNSUBSCRIBED = EVENTS.index("clicked"), EVENTS.index("unsubscribed")

#: Columns of daily counts: each event, the orders' values (`BASKET + s`), and messages by channel (`SENT + c - 1`).
BASKET = len(EVENTS)
SENT = BASKET + len(SERVICES)
N_COLUMNS = SENT + len(CHANNELS) - 1
