"""A replayed user's timeline as text: one line a slot, on one screen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crosschannel.core.arrays import IntArray
from crosschannel.core.times import timestamps
from crosschannel.envs.replay.log import ReplayLog

LINES = 18
BAR = 8
NAME = 32


def timeline(
    log: ReplayLog, user: int, rows: Sequence[int], answers: Sequence[str], chosen: Sequence[IntArray | None], head: str
) -> str:
    """What has been replayed of a user, at most `LINES` slots up to the one where the replay stands.

    Args:
        log: What is replayed.
        user: The user's code.
        rows: Rows of the slots that were replayed, and last the one that comes next, if there is one.
        answers: For each replayed slot, how the agent's action compares with the logged one.
        chosen: For each replayed slot, the agent's action (M,), or None where it gave none.
        head: What else the first line says.
    """
    n = int((log.user == user).sum())
    lines = [f"{log.name} | user {log.user_ids[user]} | {head} | {len(answers)} of {n} slots replayed"]
    names = [_name(log, log.actions[row]) for row in rows[: len(answers)]]
    wished = ["(no action given)" if action is None else _name(log, action) for action in chosen]
    width = [max([len(title), *map(len, column)]) for title, column in (("logged", names), ("agent", wished))]
    lines.append(
        f"  {'slot':>4} {'time (UTC)':<16} {'logged':<{width[0]}} {'agent':<{width[1]}} {'':<8} {'reward':>8} {'+-':>7}"
    )
    shown = range(max(0, len(rows) - LINES), len(rows))
    if shown.start:
        lines.append(f"       {shown.start} earlier slots, rewards {log.rewards[list(rows[: shown.start])].sum():+.3f}")
    largest = np.abs(log.rewards[list(rows[: len(answers)])]).max(initial=1e-12)
    for k in shown:
        row = rows[k]
        time = f"{timestamps(log.time[row : row + 1])[0]:%a %d %b %H:%M}"
        if k == len(answers):
            first, mask = log.modules[0], log.action_mask[row, log.modules.slices[0]]
            eligible = ", ".join(np.asarray(first.actions, dtype=object)[mask])
            lines.append(f"> {k + 1:>4} {time:<16} next; {first.name} may be {eligible}")
            continue
        bar = ("#" if log.rewards[row] > 0 else "-") * round(BAR * abs(float(log.rewards[row])) / largest)
        lines.append(
            f"  {k + 1:>4} {time:<16} {names[k]:<{width[0]}} {wished[k]:<{width[1]}} {answers[k]:<8} "
            f"{log.rewards[row]:>+8.3f} {log.se[row]:>7.3f} {bar}".rstrip()
        )
    lines.append(f"  rewards are those of the logged actions; propensities {log.propensity_source}")
    return "\n".join(lines)


def _name(log: ReplayLog, action: IntArray) -> str:
    name = "/".join(log.modules.names_of(log.modules.canonical(action[None]))[0])
    return name if len(name) <= NAME else name[: NAME - 2] + ".."
