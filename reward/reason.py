"""Why a decision has no reward, or lacks one of its components."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Why the log identifies no reward, or component, for a decision; `IDENTIFIED` where it does.

    Attributes:
        text: The reason in words, for reports and for the names of TensorBoard tags.
    """

    text: str

    IDENTIFIED = 0, "identified"
    OUTSIDE_OBSERVATION = 1, "window extends beyond the observation period"
    OVERLAPPING = 2, "window overlaps another message"
    FEW_CONTROLS = 3, "too few controls in the time bucket"
    TOO_SHORT = 4, "window cut too short by the next message"
    NO_SEASONALITY = 5, "no earlier time to learn the seasonality from"
    CHURNED = 6, "user had churned"
    USER_NOT_OBSERVED = 7, "window extends beyond the user's own observation"
    NOT_SENT = 8, "nothing was sent"
    NO_ENGAGEMENT_EVENT = 9, "no event tells engagement with the channel"
    HELD_OUT = 10, "user is held out or waits, and serves as a control"

    def __new__(cls, code: int, text: str) -> Reason:
        """Make a member that equals its code and carries its text."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.text = text
        return member


#: Why a decision has no reward; the others concern components alone.
REWARD_REASONS = tuple(reason for reason in Reason if reason not in (Reason.NOT_SENT, Reason.NO_ENGAGEMENT_EVENT))
