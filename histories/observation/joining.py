"""Users who join the log with a message, in a log that counts the time before as observed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.times import DAY
from crosschannel.histories.history import History

#: So many events must be usual in the time before, and at most this share of them be there: chance leaves out no 20.
USUAL_EVENTS, MAX_SHARE_BEFORE = 20, 0.05
#: How much likelier (or less likely) a message must be at a user's first decision, by how many standard errors, of how
#: many users.
MIN_DIFFERENCE, ERRORS, MIN_USERS = 0.1, 4.0, 20
#: A frequency cap forgets a message after this time, or after the time that is between almost all messages of a user.
CAP, SHARE_OF_SHORTER_GAPS = 7 * DAY, 0.01


def joining_notes(history: History, counted: BoolArray) -> Iterator[str]:
    """Yield a note where users do nothing before their first decision, at which messages are unusually many or few.

    Whoever joins with a welcome message did nothing before, and would have begun to be active without it too. Where
    `observed_from` says that such users were there before, their start counts as an effect of the message. If the first
    decision sends as often as others do, this is alike on both sides.

    What messages cause, such as opens, cannot be before the first one, and with a frequency cap the first decision
    sends more than others: each first decision is compared with the same user's next one that no cap can bind.

    Args:
        history: The log. Only users whose first decision is a day or more after the log's are looked at, if they count
            as observed since then.
        counted: Which events (E,) goals count, without churn.
    """
    d, e = history.decisions, history.events
    first = history.decision_offsets[:-1][np.diff(history.decision_offsets) > 0]
    if len(first) == len(d):  # one decision a user: nothing to compare first ones with
        return
    begin = int(d.time.min())
    late = (d.time[first] - begin >= DAY) & (history.observed_from[d.user[first]] <= begin)
    rows = first[late]
    user, time = d.user[rows], d.time[rows]
    joined = np.full(history.n_users, np.iinfo(np.int64).max, dtype=np.int64)
    joined[user] = time
    of_joiner = counted & np.isin(e.user, user) & (e.time >= begin)
    before = of_joiner & (e.time < joined[e.user])
    after = np.bincount(e.user[of_joiner & ~before], minlength=history.n_users)[user]
    usual = float((after * (time - begin) / np.maximum(history.observed_until[user] - time, DAY)).sum())
    if usual < USUAL_EVENTS or before.sum() > MAX_SHARE_BEFORE * usual:
        return
    sent = history.modules.sends(d.actions)
    rows, others = _free_of_caps(history, sent, rows)
    if len(rows) < MIN_USERS:
        return
    difference = sent[rows].astype(np.float64) - sent[others]
    error = float(difference.std(ddof=1) / np.sqrt(len(rows)))
    if abs(difference.mean()) < max(MIN_DIFFERENCE, ERRORS * error):
        return
    yield (
        f"{len(user):,} users have {int(before.sum()):,} goal events before their first decision, where about "
        f"{usual:,.0f} are usual, and {sent[rows].mean():.0%} of these decisions sent a message, of later ones, long "
        f"after other messages, {sent[others].mean():.0%}: if they joined with it, that they began to be active counts "
        "as its effect. Their time before is not known: leave `history.observed_from` at `first_row`, or give "
        "`observed_from` of the users"
    )


def _free_of_caps(history: History, sent: BoolArray, first: IntArray) -> tuple[IntArray, IntArray]:
    """Return the first decisions of users who have a later one that no frequency cap binds, and the next such one.

    Users are compared with themselves, since those who get few messages have more such decisions.
    """
    d = history.decisions
    messages = np.flatnonzero(sent)
    gaps = np.diff(d.time[messages])[np.diff(d.user[messages]) == 0]
    if not len(gaps):  # perhaps nobody may get two
        return first[:0], first[:0]
    cap = max(CAP, int(np.quantile(gaps, SHARE_OF_SHORTER_GAPS, method="lower")))
    # The last message before each decision, or else the user's first decision.
    last = np.maximum.accumulate(np.where(sent, np.arange(len(d)), 0))
    last = np.maximum(np.concatenate([[0], last[:-1]]), history.decision_offsets[d.user])
    free = np.flatnonzero(d.time - d.time[last] >= cap)
    user, place = np.unique(d.user[free], return_index=True)
    _, of_first, of_next = np.intersect1d(d.user[first], user, assume_unique=True, return_indices=True)
    return first[of_first], free[place[of_next]]
