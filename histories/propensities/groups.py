"""Groups of decisions that are chosen by what was known before them, within which propensities are tested."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.times import DAY, WEEK
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import PROPENSITY_SOURCES
from crosschannel.histories.windows import Timeline

#: Decisions below which a group is not tested by itself.
MIN_GROUP_ROWS = 100
#: Into how many groups past events and messages divide decisions.
LEVELS_OF_THE_PAST = 3
#: Share of users who never change their action, and by how much decisions in a row agree more often, where draws last.
MOST_USERS, LONGER = 0.5, 0.1
MONDAY = 4 * DAY  # 1970-01-05


@dataclass(frozen=True)
class PastGroups:
    """Groups of decisions by what the user did in the week before.

    Attributes:
        code: Group of each decision (n,).
        labels: The groups in words.
    """

    code: IntArray
    labels: tuple[str, ...]


def past_groups(history: History) -> PastGroups:
    """Divide all decisions by the number of events of their user in the week before.

    Overall rates of a policy that sends to the active hold over all decisions, and not within such groups. There are
    no groups where a draw lasts over several decisions: then past events may be effects of the same draw, and depend on
    the action however right the propensity of the draw is.
    """
    d = history.decisions
    if draws_last(d.user, d.actions[:, 0]):
        return PastGroups(np.zeros(len(d), dtype=np.int64), ())
    events = Timeline(history.events.time, history.event_offsets)
    count = events.before(d.user, d.time) - events.before(d.user, d.time - WEEK)
    inner = np.quantile(count, np.arange(1, LEVELS_OF_THE_PAST) / LEVELS_OF_THE_PAST)
    _, code = np.unique(np.searchsorted(np.unique(inner), count, side="left"), return_inverse=True)
    parts = (count[code == k] for k in range(int(code.max()) + 1))
    labels = (f"with {part.min()} to {part.max()} events of the user in the week before" for part in parts)
    return PastGroups(code, tuple(labels))


def draws_last(user: IntArray, action: IntArray) -> bool:
    """Return whether actions (n,) of users (n,), sorted by user and time, last longer than one decision.

    They do if most users with several decisions never change theirs, or if two decisions in a row agree more often than
    any two of the same user.
    """
    same_user = user[1:] == user[:-1]
    if not same_user.any():
        return True
    in_a_row = float((action[1:] == action[:-1])[same_user].mean())
    size = int(action.max()) + 1
    cells, of = np.unique(user * size + action, return_counts=True)
    of_user, owner = np.bincount(user), cells // size
    several = of_user > 1
    kinds = np.bincount(owner, minlength=len(of_user))
    pairs = np.bincount(owner, of * (of - 1.0), len(of_user))
    agree = pairs[several] / (of_user[several] * (of_user[several] - 1.0))
    any_two = float(np.average(agree, weights=of_user[several] - 1.0))
    return bool((kinds[several] == 1).mean() > MOST_USERS or in_a_row > any_two + LONGER)


def groups_of(history: History, rows: IntArray, past: PastGroups) -> Iterator[tuple[str, BoolArray, bool]]:
    """Yield a label, the chosen ones of the rows (r,) and whether they are all those of a source."""
    d = history.decisions
    source = d.propensity_source[rows]
    for code in np.unique(source):
        label = "" if (source == code).all() else f"whose propensities are {PROPENSITY_SOURCES[code]}"
        yield label, source == code, True
    for label, part in _parts(history, rows, past):
        if MIN_GROUP_ROWS <= np.count_nonzero(part) < len(rows):
            yield label, part, False


def _parts(history: History, rows: IntArray, past: PastGroups) -> Iterator[tuple[str, BoolArray]]:
    """Yield a label and the chosen ones of the rows (r,) for each week, arm, policy and level of past activity."""
    d = history.decisions
    weeks = (d.time[rows] - MONDAY) // WEEK
    for week in np.unique(weeks):
        yield f"in the week of {pd.Timestamp(int(week) * WEEK + MONDAY, unit='us'):%Y-%m-%d}", weeks == week
    for name, column in (("arm", d.arm), ("policy", d.policy)):
        if column is not None:
            code, values = pd.factorize(column[rows], sort=True, use_na_sentinel=True)
            for place, value in enumerate(np.asarray(values)):
                yield f"of the {name} {value!r}", code == place
    for place, label in enumerate(past.labels):
        yield label, past.code[rows] == place
