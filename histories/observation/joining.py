"""Users who join the log with a message, in a log that counts the time before as observed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from crosschannel.core.times import DAY
from crosschannel.histories.history import History

#: So many events must be usual in the time before, and at most this share of them be there: chance leaves out no 20.
USUAL_EVENTS, MAX_SHARE_BEFORE = 20, 0.05
#: How much likelier (or less likely) a message must be at a user's first decision, and by how many standard errors.
MIN_DIFFERENCE, ERRORS = 0.1, 4.0


def joining_notes(history: History) -> Iterator[str]:
    """Yield a note where users have no event before their first decision, at which messages are unusually many or few.

    Whoever joins with a welcome message did nothing before, and would have begun to be active without it too. Where
    `observed_from` says that such users were there before, their start counts as an effect of the message. If the first
    decision sends as often as others do, this is alike on both sides.

    Args:
        history: The log. Only users whose first decision is a day or more after the log's are looked at, if they count
            as observed since then.
    """
    d, e = history.decisions, history.events
    first = history.decision_offsets[:-1][np.diff(history.decision_offsets) > 0]
    if len(first) == len(d):  # one decision a user: nothing to compare first ones with
        return
    begin = int(d.time.min())
    user, time = d.user[first], d.time[first]
    late = (time - begin >= DAY) & (history.observed_from[user] <= begin)
    user, time, rows = user[late], time[late], first[late]
    joined = np.full(history.n_users, np.iinfo(np.int64).max, dtype=np.int64)
    joined[user] = time
    of_joiner = np.isin(e.user, user) & (e.time >= begin)
    before = of_joiner & (e.time < joined[e.user])
    after = np.bincount(e.user[of_joiner & ~before], minlength=history.n_users)[user]
    usual = float((after * (time - begin) / np.maximum(history.observed_until[user] - time, DAY)).sum())
    if usual < USUAL_EVENTS or before.sum() > MAX_SHARE_BEFORE * usual:
        return
    sent = history.modules.sends(d.actions)
    at_first, later = float(sent[rows].mean()), float(np.delete(sent, rows).mean())
    error = float(np.sqrt(later * (1 - later) * (1 / len(rows) + 1 / (len(d) - len(rows)))))
    if abs(at_first - later) < max(MIN_DIFFERENCE, ERRORS * error):
        return
    yield (
        f"{len(rows):,} users have {int(before.sum()):,} events before their first decision, where about {usual:,.0f} "
        f"are usual, and {at_first:.0%} of these decisions sent a message, of the others {later:.0%}: if they joined "
        "with it, that they began to be active counts as its effect. Their time before is not known: leave "
        "`history.observed_from` at `first_row`, or give `observed_from` of the users"
    )
