"""Timeline of a replayed user as text: one line per slot, on one screen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crosschannel.core.arrays import IntArray
from crosschannel.core.times import timestamps
from crosschannel.envs.replay.log import ReplayLog

MAX_SLOTS = 18
BAR_WIDTH = 8
MAX_NAME_LENGTH = 32


def timeline(
    log: ReplayLog, user: int, rows: Sequence[int], answers: Sequence[str], chosen: Sequence[IntArray | None], head: str
) -> str:
    """Return the replayed slots of a user as text, at most the last `MAX_SLOTS`.

    Args:
        log: The replayed log.
        user: The user's code.
        rows: Rows of the replayed slots, and last that of the next slot, if there is one.
        answers: For each replayed slot, the result of the comparison of the agent's action with the logged one.
        chosen: For each replayed slot, the agent's action (M,), or None if it gave none.
        head: Text for the first line.
    """
    n = int((log.user == user).sum())
    lines = [f"{log.name} | user {log.user_ids[user]} | {head} | {len(answers)} of {n} slots replayed"]
    names = [_name(log, log.actions[row]) for row in rows[: len(answers)]]
    agent = ["(no action given)" if action is None else _name(log, action) for action in chosen]
    width = [max([len(title), *map(len, column)]) for title, column in (("logged", names), ("agent", agent))]
    lines.append(
        f"  {'slot':>4} {'time (UTC)':<16} {'logged':<{width[0]}} {'agent':<{width[1]}} {'':<8} {'reward':>8} {'+-':>7}"
    )
    shown = range(max(0, len(rows) - MAX_SLOTS), len(rows))
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
        bar = ("#" if log.rewards[row] > 0 else "-") * round(BAR_WIDTH * abs(float(log.rewards[row])) / largest)
        lines.append(
            f"  {k + 1:>4} {time:<16} {names[k]:<{width[0]}} {agent[k]:<{width[1]}} {answers[k]:<8} "
            f"{log.rewards[row]:>+8.3f} {log.se[row]:>7.3f} {bar}".rstrip()
        )
    lines.append(f"  rewards are those of the logged actions; propensities {log.propensities}")
    return "\n".join(lines)


def _name(log: ReplayLog, action: IntArray) -> str:
    name = "/".join(log.modules.names_of(log.modules.canonical(action[None]))[0])
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 2] + ".."
