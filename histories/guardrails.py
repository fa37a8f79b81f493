"""Guardrails: limits on messages that hold for every policy, such as caps, gaps and quiet hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.times import DAY, HOUR, WEEK, duration, find_time_zone, to_utc, wall_clock
from crosschannel.histories.history import History
from crosschannel.histories.windows import Timeline, running_totals

#: Labels of an action that is sent after its slot: the earliest and the latest hour after it.
SEND_FROM, SEND_TO = "send_from", "send_to"


@dataclass(frozen=True)
class Guardrails:
    """Limits on what is sent. Without any setting every action is eligible.

    Attributes:
        weekly_cap: Most messages in any 7 days, this one included. None for no limit.
        weekly_caps: Most messages in any 7 days by channel, `{push: 2}`. Channels are actions of the first module.
        min_gap: Least time between two messages, such as `24h`. None for no limit.
        quiet_hours: From when to when nothing is sent, `21:00 08:00`. They are in the user's time zone, and apply to
            the slot's time. An action with the labels `send_from` and `send_to` (hours after the slot) is sent in that
            interval instead, and must not overlap with quiet hours. None for no quiet hours.
        time_zone: User attribute with the time zone (`Europe/Berlin`). None if all are in `default_time_zone`.
        default_time_zone: Time zone of users without one.
        reachable: User attribute (true or false) of who may be sent messages, by channel. `{email: [consent, ok]}`
            needs both, `*` is every channel. Attributes do not change over time; a missing value counts as false.
        opted_out: User attribute (true or false) of who must not be sent messages, by channel, as for `reachable`. A
            missing value counts as true.
        starts: First day of actions, `{offer: {bonus: 2026-11-24}}`. It begins at midnight UTC.
        ends: Last day of actions, inclusive. It ends at midnight UTC.
    """

    weekly_cap: int | None = None
    weekly_caps: Mapping[str, int] = field(default_factory=dict)
    min_gap: str | None = None
    quiet_hours: tuple[str, str] | None = None
    time_zone: str | None = None
    default_time_zone: str = "UTC"
    reachable: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    opted_out: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    starts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ends: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def consent_attributes(self) -> tuple[str, ...]:
        """The user attributes that say who may be sent messages."""
        mapped = (*self.reachable.values(), *self.opted_out.values())
        return tuple(name for attributes in mapped for name in _listed(attributes))

    def __post_init__(self) -> None:
        caps = {"weekly_cap": self.weekly_cap} | {f"weekly_caps.{name}": cap for name, cap in self.weekly_caps.items()}
        for name, cap in caps.items():
            if cap is not None and cap < 0:
                raise ConfigError(f"{name} is {cap}: it must be at least 0 (nothing is sent)")
        if self.min_gap is not None:
            duration(self.min_gap)
        if self.quiet_hours is not None:
            begin, end = (clock(text) for text in self.quiet_hours)
            if begin == end:
                raise ConfigError(f"quiet_hours {list(self.quiet_hours)} are empty: give two different times, or none")
        find_time_zone(self.default_time_zone)
        for side, dates in (("starts", self.starts), ("ends", self.ends)):
            for module, days in dates.items():
                for action, text in days.items():
                    midnight(text, f"{side}.{module}.{action}")


def allowed_actions(guardrails: Guardrails, history: History, user: IntArray, time: IntArray) -> BoolArray:
    """Return the actions that the guardrails allow users (N,) at times (N,), as a flat mask (N, sum of actions).

    Messages count from their decision's time, and only if it is strictly before the given time, so that the mask at a
    slot does not depend on the decision there. To include messages of the same time, pass a time one microsecond later.
    Sending nothing is always eligible. The log's own eligibility is ignored: see `guarded_mask`.

    Args:
        guardrails: The limits.
        history: Earlier decisions, and the users' attributes.
        user: Codes into `History.user_ids`.
        time: Microseconds since 1970 UTC.

    Raises:
        ConfigError: If the guardrails name an unknown channel, module, action, attribute or time zone.
    """
    modules = history.modules
    mask = np.ones((len(user), modules.total), dtype=bool)
    channels = modules.split(mask)[0]
    channels[:, 1:] &= _below_limits(guardrails, history, user, time)[:, None]
    for name, cap in guardrails.weekly_caps.items():
        code = _code(modules, modules.names[0], name, "weekly_caps")
        sent = history.decisions.actions[:, 0] == code
        channels[:, code] &= _sent_since(history, sent, user, time, WEEK) < cap
    for setting, missing in (("reachable", False), ("opted_out", True)):
        for name, attributes in getattr(guardrails, setting).items():
            first = 0 if name == "*" else _code(modules, modules.names[0], name, setting)
            chosen = slice(first, None if name == "*" else first + 1)
            for attribute in _listed(attributes):
                channels[:, chosen] &= (_flags(history, attribute, missing)[user] ^ missing)[:, None]
    for side, dates in (("starts", guardrails.starts), ("ends", guardrails.ends)):
        for module, days in dates.items():
            for action, text in days.items():
                code = _code(modules, module, action, side)
                day = midnight(text, action)
                running_then = time >= day if side == "starts" else time < day + DAY
                modules.split(mask)[modules.names.index(module)][:, code] &= running_then
    if guardrails.quiet_hours is not None:
        mask &= _outside_quiet_hours(guardrails, history, user, time)
    channels[:, 0] = True
    return mask


def guarded_mask(guardrails: Guardrails, history: History) -> BoolArray:
    """Return the mask (n, sum of actions) of actions that are eligible in the log, allowed and feasible.

    The mask may exclude a logged action, if the log did what the guardrails forbid; a policy that respects them has no
    support there.
    """
    d = history.decisions
    return history.modules.feasible_mask(history.eligible & allowed_actions(guardrails, history, d.user, d.time))


def clock(text: str) -> int:
    """Return the microseconds after midnight of a time of day such as `21:00`.

    Raises:
        ConfigError: If the text is not a time of day.
    """
    hours, _, minutes = str(text).partition(":")
    if hours.isdigit() and minutes.isdigit() and len(minutes) == 2 and int(hours) < 24 and int(minutes) < 60:
        return int(hours) * HOUR + int(minutes) * HOUR // 60
    raise ConfigError(f'{text!r} is not a time of day: write it as "21:00", in quotes')


def midnight(text: str, place: str) -> int:
    """Return the microseconds since 1970 UTC at which a day such as `2026-11-24` begins.

    Raises:
        ConfigError: If the text is not a day; the message begins with `place`.
    """
    day = to_utc(pd.Series([str(text)], dtype=object), "%Y-%m-%d").dt.tz_localize(None)
    if day.isna().any():
        raise ConfigError(f'{place}: {text!r} is not a day: write it as "2026-11-24", in quotes')
    return int(day.to_numpy(dtype="datetime64[us]").astype(np.int64)[0])


def _code(modules: ActionSpace, module: str, action: str, place: str) -> int:
    if module not in modules.names:
        raise ConfigError(f"guardrails {place}: there is no module {module!r}. {nearest(module, modules.names)}")
    actions = modules[module].actions
    if action not in actions:
        raise ConfigError(f"guardrails {place}: {module!r} has no action {action!r}. {nearest(action, actions)}")
    return int(actions.index(action))


def _column(history: History, attribute: str) -> pd.Series[Any]:
    known = () if history.users is None else tuple(history.users.columns)
    if history.users is None or attribute not in known:
        raise ConfigError(f"guardrails: the users have no attribute {attribute!r}. {nearest(attribute, known)}")
    return history.users[attribute]


def _listed(attributes: str | tuple[str, ...]) -> tuple[str, ...]:
    return (attributes,) if isinstance(attributes, str) else tuple(attributes)


def _flags(history: History, attribute: str, missing: bool) -> BoolArray:
    """Return an attribute that is true or false, (U,), with a value for where it is missing."""
    column = _column(history, attribute)
    truth = column.astype(object).where(column.notna(), None).astype(str).str.strip().str.lower().map(_TRUTH)
    if (invalid := truth.isna() & column.notna()).any():
        raise ConfigError(
            f"guardrails: attribute {attribute!r} of user {history.user_ids[int(invalid.to_numpy().argmax())]!r} is "
            f"{column[invalid].iloc[0]!r} ({int(invalid.sum()):,} users in all): it must be true or false; make "
            "such a column of it"
        )
    return np.asarray(truth.where(column.notna(), missing).to_numpy(dtype=bool))


_TRUTH = {
    **dict.fromkeys(("true", "1", "1.0", "yes", "y"), True),
    **dict.fromkeys(("false", "0", "0.0", "no", "n"), False),
}


def _sent_since(history: History, sent: BoolArray, user: IntArray, time: IntArray, length: int) -> IntArray:
    """Return how many of the chosen decisions (n,) each user had in `(time - length, time)`, (N,)."""
    timeline = Timeline(history.decisions.time, history.decision_offsets)
    total = running_totals(sent.astype(np.int64))
    after = timeline.before(user, time - length, inclusive=True)
    return np.asarray(total[timeline.before(user, time)] - total[after])


def _below_limits(guardrails: Guardrails, history: History, user: IntArray, time: IntArray) -> BoolArray:
    """Return which users (N,) may get a message: the gap is over and the weekly cap is not reached."""
    sent = history.modules.sends(history.decisions.actions)
    out = np.ones(len(user), dtype=bool)
    if guardrails.min_gap is not None:
        out &= _sent_since(history, sent, user, time, duration(guardrails.min_gap)) == 0
    if guardrails.weekly_cap is not None:
        out &= _sent_since(history, sent, user, time, WEEK) < guardrails.weekly_cap
    return out


def _local_time_of_day(guardrails: Guardrails, history: History, user: IntArray, time: IntArray) -> IntArray:
    """Return microseconds after local midnight (N,)."""
    names = np.full(history.n_users, guardrails.default_time_zone, dtype=object)
    if guardrails.time_zone is not None:
        column = _column(history, guardrails.time_zone)
        names = column.where(column.notna(), guardrails.default_time_zone).to_numpy(dtype=object)
    codes, zones = pd.factorize(names)
    out = np.empty(len(user), dtype=np.int64)
    for k, name in enumerate(zones):  # few zones, however many users
        rows = codes[user] == k
        try:
            out[rows] = wall_clock(time[rows], name) % DAY
        except ConfigError as error:
            whose = history.user_ids[int((codes == k).argmax())]
            raise ConfigError(f"guardrails: attribute {guardrails.time_zone!r} of user {whose!r}: {error}") from None
    return out


def _outside_quiet_hours(guardrails: Guardrails, history: History, user: IntArray, time: IntArray) -> BoolArray:
    """Return the actions (N, sum of actions) that are not sent in quiet hours."""
    assert guardrails.quiet_hours is not None
    begin, end = (clock(text) for text in guardrails.quiet_hours)
    quiet = (end - begin) % DAY
    modules = history.modules
    out = np.ones((len(user), modules.total), dtype=bool)
    intervals = _send_intervals(modules)
    # Actions without these labels are sent at the slot.
    for m, code, first, length in intervals or [(0, c, 0, 0) for c in range(1, modules.sizes[0])]:
        local = _local_time_of_day(guardrails, history, user, time + first)
        begins_quiet, reaches_quiet = (local - begin) % DAY < quiet, (begin - local) % DAY < length
        modules.split(out)[m][:, code] = ~(begins_quiet | reaches_quiet)
    return out


def _send_intervals(modules: ActionSpace) -> list[tuple[int, int, int, int]]:
    """Return actions with send times: module, code, microseconds from the slot to the first time, and length."""
    out = []
    for m, module in enumerate(modules):
        for code, action in enumerate(module.actions):
            labels: Mapping[str, npt.ArrayLike] = module.labels.get(action, {})
            if SEND_FROM in labels:
                first, last = (float(str(labels.get(name, labels[SEND_FROM]))) for name in (SEND_FROM, SEND_TO))
                out.append((m, code, round(first * HOUR), round((last - first) * HOUR)))
    return out
