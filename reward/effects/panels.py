"""From a history to a panel: the period of each user's first message, and goal values by period."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError, NotIdentified, nearest
from crosschannel.core.hashing import keys
from crosschannel.core.times import duration
from crosschannel.histories.goals import GOALS_SETTING
from crosschannel.histories.history import DecisionLog, History
from crosschannel.reward.effects.staggered import NEVER, Panel
from crosschannel.reward.measurement.outcomes import measure
from crosschannel.reward.spec import Matching, RewardSpec

Others = Literal["censor", "leave_out", "keep"]


@dataclass(frozen=True)
class HistoryPanel:
    """A panel of users, and the number of those left out.

    Attributes:
        panel: Goal value of each user in each period; periods are numbered from 1.
        user: User codes of its rows (U',).
        starts: Start of each period, microseconds (T,).
        n_treated: Users whose first message lies within the panel.
        n_censored: Of these, how many are not observed to the end, because another message came.
        n_never: Users who got no message at all.
        n_until: Controls until another message came, from which on they are not observed.
        n_already: Users left out because no whole period before their first message was observed.
        n_others: Users left out because of other messages: too early, or (`leave_out`) at any time.
        n_unseen: Users without a message who are left out because fewer than two whole periods of theirs were observed.
        n_churned: Users of the panel who are observed only until they churn.
        goals_left_out: Goals that are churn events: they end a user's observation, so that no period has them.
    """

    panel: Panel
    user: IntArray
    starts: IntArray
    n_treated: int
    n_censored: int
    n_never: int
    n_until: int
    n_already: int
    n_others: int
    n_unseen: int
    n_churned: int
    goals_left_out: tuple[str, ...]

    def summary(self) -> str:
        """Describe who is in the panel and who is not, one line each."""
        text = (
            f"{len(self.starts)} periods; {self.n_treated:,} users treated within them, {self.n_censored:,} of them "
            f"observed only until another message; controls: {self.n_never:,} without any message, {self.n_until:,} "
            f"until another message\nleft out: {self.n_already:,} treated before a whole period of theirs was "
            f"observed, {self.n_others:,} because of other messages, {self.n_unseen:,} observed for less than two "
            "periods"
        )
        if self.n_churned:
            text += f"\n{self.n_churned:,} users observed until they churn: right if messages do not make them leave"
        if self.goals_left_out:
            text += f"\nnot part of the result, since they end a user's observation: {', '.join(self.goals_left_out)}"
        return text


def chosen_decisions(history: History, choice: str | None) -> BoolArray:
    """Return the sent decisions (n,) of an action written `MODULE=ACTION`; of any action without it.

    Raises:
        ConfigError: If there is no such module or action.
    """
    d, modules = history.decisions, history.modules
    sent = modules.sends(d.actions)
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
    others: Others = "censor",
) -> HistoryPanel:
    """Build a panel: the period of each user's first message of a chosen action, and goal values by period.

    Only whole periods within each user's own observation are used: what lies outside is missing, and not 0. A user
    whose period before the first message was not observed is left out and counted. Users who churn are not observed
    from that period on: who left is not comparable with who was there to be sent a message. So the result is the effect
    among those who stay, right if messages do not make users leave, and a churn event cannot be a goal of a panel.

    Other messages act on the goals too. With `others: censor` no user, treated or control, is observed from the period
    of a first other message on; users who then have fewer than two periods are left out and counted. What remains is
    the effect while no other message has come, on the users who have not had one: right if other messages do not depend
    on what users were about to do. It is not the effect of the plan as a whole; for that, `keep` them.

    Args:
        history: The log.
        spec: Its goals are summed, each with its weight and clip; windows and time buckets are not used.
        choice: `MODULE=ACTION`; None for a message of any kind.
        period: Length of a period.
        start: When the first period begins, microseconds; by default when the observation period does.
        others: How other messages are handled: `censor` their users from then on, `leave_out` their users, which
            selects users by what happened later, or `keep` them, so that the result includes their effects.

    Raises:
        ConfigError: If there is no such module or action.
        NotIdentified: If the observation period holds fewer than two periods.
    """
    length = duration(period)
    begin = history.span[0] if start is None else start
    count = (history.span[1] + 1 - begin) // length
    if count < 2:
        raise NotIdentified(f"{history.name} has fewer than two whole periods of {period}: choose shorter ones")
    starts = begin + length * np.arange(count, dtype=np.int64)

    sent, wanted = history.modules.sends(history.decisions.actions), chosen_decisions(history, choice)
    number, other = (_first_period(history, rows, starts, length) for rows in (wanted, sent & ~wanted))
    if others == "keep":
        other = np.full(history.n_users, NEVER)
    end = np.minimum(history.observed_until, history.churned_at - 1)
    observed = (starts >= history.observed_from[:, None]) & (starts + length - 1 <= end[:, None])
    before = observed[np.arange(history.n_users), np.clip(number - 2, 0, count - 1)]
    already = (number != NEVER) & ((number < 2) | ~before)
    too_early = other <= (2 if others == "censor" else NEVER - 1)
    unseen = (number == NEVER) & (observed.sum(1) < 2)
    user = np.flatnonzero(~already & ~too_early & ~unseen)

    # Whoever got another message first is untreated for as long as they are observed.
    first, until = np.where(number < other, number, NEVER)[user], other[user]
    periods = np.arange(1, count + 1)
    values = _period_values(history, spec, user, starts, period)
    seen = observed[user] & (periods[None, :] < until[:, None])
    return HistoryPanel(
        panel=Panel(np.where(seen, values, np.nan), periods, first),
        user=user,
        starts=starts,
        n_treated=int((first != NEVER).sum()),
        n_censored=int(((first != NEVER) & (until != NEVER)).sum()),
        n_never=int(((first == NEVER) & (until == NEVER)).sum()),
        n_until=int(((first == NEVER) & (until != NEVER)).sum()),
        n_already=int(already.sum()),
        n_others=int((~already & too_early).sum()),
        n_unseen=int((~already & ~too_early & unseen).sum()),
        n_churned=int((history.churned_at[user] <= history.span[1]).sum()),
        goals_left_out=tuple(
            goal.event
            for goal in spec.goals
            if np.isin(history.event_codes([goal.event], GOALS_SETTING), history.churn_codes).all()
        ),
    )


def _first_period(history: History, rows: BoolArray, starts: IntArray, length: int) -> IntArray:
    """Return the period of each user's first decision among `rows` (U,): below 1 if earlier, `NEVER` if later."""
    d = history.decisions
    first = np.full(history.n_users, NEVER, dtype=np.int64)
    np.minimum.at(first, d.user[rows], d.time[rows])
    late = first >= starts[-1] + length
    return np.where(late, NEVER, (np.where(late, starts[0], first) - starts[0]) // length + 1)


def _period_values(
    history: History, spec: RewardSpec, user: IntArray, starts: IntArray, period: str
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Sum goal values (U', T): the window after a slot a microsecond before each period's start, so `[start, end)`."""
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
    period_spec = replace(
        spec,
        pre=period,
        post=period,
        overlap="shared",
        controls="not_sent",
        holdout_arms=(),
        matching=Matching(),
        seasonality=None,
        funnel=None,
    )
    # Ties before: the window after a slot is `(t, t + period]`.
    events = replace(history.events, message=None)  # they name decisions that these slots are not
    slotted = replace(history, decisions=slots, events=events, churn_events=(), ties="before")
    post = measure(slotted, period_spec).post
    return post.reshape(len(user), len(starts))
