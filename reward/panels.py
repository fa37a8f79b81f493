"""From a history to a panel: when each user first got a message, and goal values by period."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from histories.errors import ConfigError, NotIdentified, nearest
from histories.hashing import keys
from histories.history import DecisionLog, History
from histories.modules import BoolArray, IntArray
from histories.times import duration
from reward.outcomes import RewardSpec, measure
from reward.spec import Matching
from reward.staggered import NEVER, Panel

Others = Literal["leave_out", "keep"]


@dataclass(frozen=True)
class HistoryPanel:
    """A panel of users, and who is not in it.

    Attributes:
        panel: Goal value of each user in each period; periods are numbered from 1.
        user: User codes of its rows (U',).
        starts: Start of each period, microseconds (T,).
        n_treated: Users whose first message lies within the panel.
        n_never: Users who never got such a message, nor any other.
        n_already: Users left out because they were treated before the second period: nothing shows what they did
            before.
        n_others: Users left out because they got other messages, but not this one.
    """

    panel: Panel
    user: IntArray
    starts: IntArray
    n_treated: int
    n_never: int
    n_already: int
    n_others: int

    def summary(self) -> str:
        """Who is in the panel and who is not, in one line."""
        return (
            f"{len(self.starts)} periods; {self.n_treated:,} users treated within them, {self.n_never:,} never; left "
            f"out: {self.n_already:,} treated before the second period, {self.n_others:,} with other messages only"
        )


def chosen_decisions(history: History, choice: str | None) -> BoolArray:
    """The sent decisions (n,) of an action written `MODULE=ACTION`; of any action without it.

    Raises:
        ConfigError: If there is no such module or action.
    """
    d, modules = history.decisions, history.modules
    sent = modules.sent(d.actions)
    if choice is None:
        return sent
    name, _, action = choice.partition("=")
    if name not in modules.names:
        raise ConfigError(f"there is no module {name!r}. {nearest(name, modules.names)}")
    m = modules.names.index(name)
    if action not in modules[m].actions:
        raise ConfigError(f"module {name!r} has no action {action!r}. {nearest(action, modules[m].actions)}")
    return np.asarray(sent & (d.actions[:, m] == modules[m].actions.index(action)))


def panel_from_history(
    history: History,
    spec: RewardSpec,
    choice: str | None = None,
    period: str = "1w",
    *,
    start: int | None = None,
    others: Others = "leave_out",
) -> HistoryPanel:
    """Builds a panel: the period of each user's first message of a chosen action, and goal values by period.

    Only whole periods within the observed time are used. A user whose first message lies before the second period has
    no period before it, and is left out and counted.

    Args:
        history: The log.
        spec: Its goals are summed, each with its weight and clip; windows and cells are not used.
        choice: `MODULE=ACTION`; None for a message of any kind.
        period: Length of a period.
        start: When the first period begins, microseconds; by default when the observed time does.
        others: Users who got other messages but not this one are no clean controls: `leave_out` or `keep` them.

    Raises:
        ConfigError: If there is no such module or action.
        NotIdentified: If the observed time holds fewer than two periods.
    """
    length = duration(period)
    begin = history.span[0] if start is None else start
    count = (history.span[1] + 1 - begin) // length
    if count < 2:
        raise NotIdentified(f"{history.name} has fewer than two whole periods of {period}: choose shorter ones")
    starts = begin + length * np.arange(count, dtype=np.int64)

    d = history.decisions
    wanted = chosen_decisions(history, choice)
    first = np.full(history.n_users, NEVER, dtype=np.int64)
    np.minimum.at(first, d.user[wanted], d.time[wanted])
    messaged = np.zeros(history.n_users, dtype=bool)
    messaged[d.user[history.modules.sent(d.actions)]] = True

    # Periods from 1; a first message after the last whole period is not treatment within the panel.
    late = first >= starts[-1] + length
    number = np.where(late, NEVER, (first - begin) // length + 1)
    already = ~late & (number < 2)
    other = (first == NEVER) & messaged if others == "leave_out" else np.zeros(history.n_users, dtype=bool)
    user = np.flatnonzero(~already & ~other)
    return HistoryPanel(
        panel=Panel(_period_values(history, spec, user, starts, period), np.arange(1, count + 1), number[user]),
        user=user,
        starts=starts,
        n_treated=int((number[user] != NEVER).sum()),
        n_never=int((number[user] == NEVER).sum()),
        n_already=int(already.sum()),
        n_others=int(other.sum()),
    )


def _period_values(
    history: History, spec: RewardSpec, user: IntArray, starts: IntArray, period: str
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Goal values (U', T): the window after a slot a microsecond before each period's start, so `[start, end)`."""
    rows = len(user) * len(starts)
    ids = np.arange(rows).astype(str).astype(object)
    slots = DecisionLog(
        id=ids,
        key=keys(ids),
        user=np.repeat(user, len(starts)),
        time=np.tile(starts - 1, len(user)),
        actions=np.zeros((rows, len(history.modules)), dtype=np.int64),
        propensity=np.full((rows, len(history.modules)), np.nan),
        joint=np.full(rows, np.nan),
    )
    plain = replace(
        spec,
        pre=period,
        post=period,
        overlap="shared",
        controls="not_sent",
        holdout_arms=(),
        matching=Matching(),
        rhythm=None,
        gone_events=(),
    )
    post = measure(replace(history, decisions=slots), plain).post
    return post.reshape(len(user), len(starts))
