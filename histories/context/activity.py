"""When users are active: shares of their events by block of the day and at weekends, shrunk to what is usual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, HOUR, WEEK, wall_clock
from crosschannel.histories.history import History
from crosschannel.histories.logs import have_codes
from crosschannel.histories.windows import Timeline, exact_mean, running_totals

#: Monday first, as `weekday` counts.
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
#: Weight of what is usual, in events, where users never leave their own part of the day: shares of no event need one.
MIN_PRIOR_EVENTS = 0.1
#: Events that follow a message within this time may be its effect, and do not show when a user is active.
CAUSED_WITHIN = DAY
#: Standard errors by which users have to differ, so that there are columns.
MIN_STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class BlockHabits:
    """How users' events are spread over the blocks of the day.

    Attributes:
        hours: Hours of the day at which the B blocks begin, ascending; the last lasts until the first begins.
        share: Mean over users of the share of their events in each block (B,).
        prior: Weight of these shares in a user's own, in events.
    """

    hours: tuple[int, ...]
    share: tuple[float, ...]
    prior: float

    def __post_init__(self) -> None:
        if list(self.hours) != sorted(set(self.hours) & set(range(24))) or len(self.hours) != len(self.share):
            raise ConfigError(f"the blocks that begin at the hours {list(self.hours)} do not have a share each")
        if not all(0 <= share <= 1 for share in self.share) or not 0 < self.prior < float("inf"):
            raise ConfigError("the usual activity by block of the day has no shares and no positive weight")


@dataclass(frozen=True)
class WeekendHabits:
    """How users' events are spread over the week.

    Attributes:
        days: Days of the weekend, 0 for Monday.
        ratio: Usual number of events in an hour of the weekend, relative to an hour of another day.
        prior: Weight of the usual share in a user's own, in events.
    """

    days: tuple[int, ...]
    ratio: float
    prior: float

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < float("inf") or not 0 < self.prior < float("inf"):
            raise ConfigError("the usual activity at weekends has no ratio and no positive weight")


@dataclass(frozen=True)
class Activity:
    """Which events show when users are active, and what is usual: learned from one history and applied to others.

    Attributes:
        events: Names of the events.
        time_zone: Zone of the hours and days.
        blocks: Habits by block of the day; None if there are no such columns.
        weekend: Habits by part of the week; None if there is no such column.
    """

    events: tuple[str, ...]
    time_zone: str
    blocks: BlockHabits | None
    weekend: WeekendHabits | None

    @classmethod
    def fit(
        cls, history: History, codes: Sequence[int], hours: tuple[int, ...], days: tuple[int, ...], time_zone: str
    ) -> Activity | None:
        """Learn from the events of the given codes what is usual; None if they do not tell users apart.

        Args:
            history: The history.
            codes: Codes of the events.
            hours: Hours at which blocks of the day begin; empty for no blocks.
            days: Days of the weekend; empty for no weekend.
            time_zone: Zone of the hours and days.
        """
        table = history.events
        rows = have_codes(table.event, codes, len(history.event_names)) & unprompted(history)
        rows &= (table.time >= history.observed_from[table.user]) & (table.time < history.observed_until[table.user])
        user, time = table.user[rows], table.time[rows]
        local = wall_clock(time, time_zone)
        blocks = weekend = None
        if hours and (found := _fit_shares(history.span, user, time, DAY, block_of_day(local, hours), len(hours))):
            blocks = BlockHabits(hours, tuple(found[0].tolist()), found[1])
        if days and (
            found := _fit_shares(history.span, user, time, WEEK, np.isin(weekday(local), days).astype(np.int64), 2)
        ):
            other, share = found[0].tolist()
            weekend = WeekendHabits(days, share / other * (7 - len(days)) / len(days), found[1])
        names = tuple(history.event_names[code] for code in codes)
        return cls(names, time_zone, blocks, weekend) if blocks or weekend else None

    def columns(
        self, by_block: Sequence[IntArray], at_weekend: IntArray, total: IntArray, start: IntArray, time: IntArray
    ) -> Iterator[tuple[str, FloatArray]]:
        r"""Yield raw columns (N,), given numbers of each user's events from the user's start up to a time.

        With n events in all, `share` of a block is :math:`(n_b + k p_b) / (n + k)`. All blocks have a column, though
        their sum is 1: a penalty on coefficients then treats them alike. `share weekend` is
        :math:`(n_w - n q) / (n + k)`, the same estimate minus q, the usual share of a user who was observed for so many
        hours of weekends and other days; it is 0 where nothing is known.

        Args:
            by_block: Events in each block, B arrays (N,); not used without `blocks`.
            at_weekend: Events at weekends (N,); not used without `weekend`.
            total: All events (N,).
            start: Start of the observation, microseconds (N,).
            time: Microseconds (N,).
        """
        if self.blocks is not None:
            hours, k = self.blocks.hours, self.blocks.prior
            for b, (counted, share) in enumerate(zip(by_block, self.blocks.share, strict=True)):
                yield f"share {hours[b]:02d}-{hours[(b + 1) % len(hours)]:02d}", (counted + k * share) / (total + k)
        if self.weekend is not None:
            until = np.maximum(time, start)
            first, last = wall_clock(start, self.time_zone), wall_clock(until, self.time_zone)
            free = (weekend_time(last, self.weekend.days) - weekend_time(first, self.weekend.days)).astype(np.float64)
            usual = self.weekend.ratio * free
            # The smallest time there is keeps the share of no time at 0.
            usual /= np.maximum(usual + (last - first - free), 1.0)
            yield "share weekend", (at_weekend - total * usual) / (total + self.weekend.prior)


def activity_columns(
    activity: Activity, history: History, user: IntArray, time: IntArray, now: IntArray
) -> Iterator[tuple[str, FloatArray]]:
    """Yield the columns (N,) of users from their events since the start of their observation and before a time.

    Args:
        activity: What is usual.
        history: The history.
        user: Codes of the users (N,).
        time: Microseconds (N,).
        now: The event row behind each user's last one before the time (N,).
    """
    events = history.events
    codes = [code for code, name in enumerate(history.event_names) if name in activity.events]
    chosen = have_codes(events.event, codes, len(history.event_names)) & unprompted(history)
    before = running_totals(chosen.astype(np.int64))
    start = Timeline(events.time, history.event_offsets).before(np.arange(history.n_users), history.observed_from)
    begin = before[start]
    first = begin[user]
    end = np.maximum(before[now], first)
    earlier = history.earlier
    so_far = None if earlier is None else earlier.by_hour.sum(1)[user]
    total = end - first if so_far is None else end - first + so_far
    local = wall_clock(events.time[chosen], activity.time_zone)

    def since_start(counted: BoolArray, before: IntArray | None) -> IntArray:
        running = running_totals(counted.astype(np.int64))
        found = running[end] - running[begin][user]
        return np.asarray(found if before is None else found + before[user])

    by_block: list[IntArray] = []
    if activity.blocks is not None:
        hours = activity.blocks.hours
        block, of_hour = block_of_day(local, hours), block_of_day(np.arange(24) * HOUR, hours)
        counts = [None if earlier is None else earlier.count_by_hour(of_hour == b) for b in range(len(hours))]
        by_block = [since_start(block == b, counts[b]) for b in range(len(hours) - 1)]
        by_block.append(total - np.sum(by_block, axis=0))
    at_weekend = total
    if activity.weekend is not None:
        days = activity.weekend.days
        on_weekends = None if earlier is None else earlier.count_by_weekday(days)
        at_weekend = since_start(np.isin(weekday(local), days), on_weekends)
    yield from activity.columns(by_block, at_weekend, total, history.observed_from[user], time)


def unprompted(history: History) -> BoolArray:
    """Return which events (e,) do not follow a message of their user within `CAUSED_WITHIN`.

    Otherwise a policy that sends in the morning makes its users visit in the morning, and takes that for their habit.
    """
    d, events = history.decisions, history.events
    sent = history.modules.sends(d.actions)
    messages = Timeline(d.time[sent], np.searchsorted(d.user[sent], np.arange(history.n_users + 1)))
    recent = messages.before(events.user, events.time) - messages.before(events.user, events.time - CAUSED_WITHIN)
    if history.earlier is None:
        return np.asarray(recent == 0)
    since = events.time - CAUSED_WITHIN
    return np.asarray((recent == 0) & (history.earlier.last_message[events.user] < since))


def block_of_day(local: IntArray, hours: Sequence[int]) -> IntArray:
    """Return the block of the day (n,) of times on the wall clock (n,), given the hours at which blocks begin."""
    of_hour = (np.searchsorted(hours, np.arange(24), side="right") - 1) % len(hours)
    return np.asarray(of_hour[local % DAY // HOUR], dtype=np.int64)


def weekday(local: IntArray) -> IntArray:
    """Return the day of the week (n,) of times on the wall clock (n,), 0 for Monday."""
    return np.asarray((local // DAY + 3) % 7)  # 1970 began on a Thursday


def weekend_time(local: IntArray, days: Sequence[int]) -> IntArray:
    """Return the time of weekends (n,) from a fixed Monday up to times on the wall clock (n,), microseconds."""
    week, rest = np.divmod(local + 3 * DAY, WEEK)
    return np.asarray(sum((np.clip(rest - day * DAY, 0, DAY) for day in days), week * (len(days) * DAY)))


def _fit_shares(
    span: tuple[int, int], user: IntArray, time: IntArray, period: int, part: IntArray, n_parts: int
) -> tuple[FloatArray, float] | None:
    r"""Return the usual share of each part of a period (P,), and its weight in a user's own, in events.

    The counts of a user in a Dirichlet-multinomial model have shares :math:`\pi` of their own, drawn from
    :math:`\mathrm{Dirichlet}(k p)`; given n events the posterior mean of :math:`\pi_b` is
    :math:`(n_b + k p_b) / (n + k)`. The moments are p, S and A, the probabilities that two events of one user, and of
    two users, are in the same part:

    .. math:: S = \frac{1 + k A}{1 + k}, \qquad A = \sum_b p_b^2, \qquad k = \frac{1 - S}{S - A}

    after Mosimann (1962), "On the compound multinomial distribution", Biometrika. Every user counts alike, however many
    events there are of one. S is over events in different periods, since those of one visit fall into the same part
    whatever the user's habits.

    Args:
        span: Start and end of the log. Only whole periods since its start are used, which have all parts.
        user: Users of the events (e,), ascending.
        time: Microseconds (e,), ascending within a user.
        period: Length of a period, microseconds.
        part: The part of the period in which each event is (e,).
        n_parts: Number of parts P.

    Returns:
        None if there are no two users with events in two periods, or S - A is not above `MIN_STANDARD_ERRORS` of its
        standard errors: then users do not evidently differ, and all shares would be noise.
    """
    number = (time - span[0]) // period
    whole = (number >= 0) & (number < (span[1] - span[0]) // period)
    user, number, part = user[whole], number[whole], part[whole]
    new_user = np.diff(user, prepend=-1) != 0
    run = np.cumsum(new_user | (np.diff(number, prepend=-1) != 0)) - 1
    if not len(run):
        return None
    counts = np.bincount(run * n_parts + part, minlength=(run[-1] + 1) * n_parts).reshape(-1, n_parts)
    first = run[new_user]
    own = np.add.reduceat(counts, first)
    total = own.sum(1)
    pairs = total**2 - np.add.reduceat(counts.sum(1) ** 2, first)
    alike = (own**2).sum(1) - np.add.reduceat((counts**2).sum(1), first)
    several = pairs > 0
    if (n := int(several.sum())) < 2:
        return None
    share = own / total[:, None]
    usual = np.array([exact_mean(one) for one in share.T])
    share, same_part = share[several], alike[several] / pairs[several]
    mean = np.array([exact_mean(one) for one in share.T])
    squares = np.array([exact_mean(one**2) for one in share.T])
    two_users = float((n * mean**2 - squares).sum()) / (n - 1)
    difference = exact_mean(same_part) - two_users
    influence = same_part - 2 * share @ mean
    variance = exact_mean((influence - exact_mean(influence)) ** 2)
    if difference <= MIN_STANDARD_ERRORS * (variance / n) ** 0.5:
        return None
    return usual, max((1 - two_users - difference) / difference, MIN_PRIOR_EVENTS)
