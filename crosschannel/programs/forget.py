"""Remove users from all that a run and its decisions hold, and prove that nothing is left.

  crosschannel forget RUN --users users.csv                the run's own folder of decisions
  crosschannel forget RUN --users users.csv --history.decided decisions
  crosschannel forget RUN --users users.csv --policies     also remove all policies but the one in use
  crosschannel forget RUN --users users.csv --check        only search, and change nothing

The file has the column user_id. Removed are: rows of the decisions and arms of every day, each day replaced as a
whole; the sums that updates extend (RUN/learning), so that the next `crosschannel update` learns again; the
checkpoint of the finished run; and rows of the log that `simulate` wrote. Your own log is yours to edit: remove
the users there first, or tomorrow's `decide` and `update` read them again. Killed at any moment, the command can be
run again.

What stays: parameters of policies and figures of evaluations. They are sums over all users, and hold nothing by user,
but they have learned from those who are forgotten. --policies removes the earlier versions; the one in use stays until
an update has written the next one, after which the command is run again. RUN/policy.pt of a training stays as well:
train again, where that is required.

At the end all files of RUN and of the decisions are searched for the ids, hashes of them, and the ids of their
decisions. The exit code is 0 if nothing is found, and else 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from crosschannel.core.wording import counted
from crosschannel.pipeline.command_line import Parser, UsageError, invocation, program
from crosschannel.pipeline.reading import build_history
from crosschannel.pipeline.run_folder import Run
from crosschannel.pipeline.watch.forgetting import (
    Forgotten,
    Places,
    check_forgotten,
    decision_ids_in,
    forget,
    read_users,
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for.

    Raises:
        UsageError: If a flag or its value is wrong.
    """
    parser = Parser("forget", __doc__, "RUN --users FILE [--history.decided FOLDER] [--policies] [--check] [...]")
    days = "folder of decisions by date (default: the run's)"
    log = "a log that still has the users: the ids of its decisions are searched for as well"
    parser.add_shared("run", "--history.path", "--history.decided", history_path=log, history_decided=days)
    parser.add_argument("--users", metavar="FILE", type=Path, help="table with the column user_id (required)")
    parser.add_argument("--policies", action="store_true", help="also remove all policies but the one in use")
    parser.add_argument("--check", action="store_true", help="search only, and change nothing")
    parser.add_shared("--allow-class")
    chosen = parser.parse(arguments)
    if chosen.users is None:
        raise UsageError("--users is missing: give a table with the column user_id")
    if chosen.check and chosen.policies:
        raise UsageError("--check changes nothing: leave out --policies")
    return chosen


def text(done: Forgotten, run: Path, *, check: bool) -> str:
    """Return what was removed, what stays, and what the search found, in sentences."""
    lines = []
    if not check:
        rows = ", ".join(f"{name} {n:,}" for name, n in done.rows.items())
        lines.append(f"{counted(done.users, 'user')}; rows removed: {rows or 'none'}")
        lines += [f"removed: {file}" for file in done.removed]
        if any(file.parent.name == "learning" for file in done.removed):
            lines.append(
                f"the next `{invocation('update', run)}` learns again from the log: remove the users there too"
            )
    if done.policies:
        lines.append(
            f"policies that have learned from forgotten users, in parameters that are sums over all users: "
            f"{', '.join(done.policies)}. Once an update has written a later one, `forget --policies` removes them"
        )
    lines += [f"found: {one}" for one in done.found]
    left = "users are left" if done.found else "nothing is left of the users"
    lines.append(f"{counted(done.searched, 'file')} searched: {left}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Remove the users, search for them, and print both; return the exit code."""
    chosen = parse(arguments)
    run = Run.open(chosen.run, chosen.allow_class)
    places = Places.of_run(run, chosen.history_decided)
    if chosen.history_path is None:
        users, ids = read_users(chosen.users, places.user_ids()), frozenset[str]()
    else:
        config = replace(run.config, history=replace(run.config.history.with_path(chosen.history_path), decided=None))
        history = build_history(config)[0]
        users = read_users(chosen.users, np.append(places.user_ids(), history.user_ids.astype(str)))
        ids = decision_ids_in(history, users)
    if chosen.check:
        done = check_forgotten(places, users, decision_ids=ids)
    else:
        done = forget(places, users, decision_ids=ids, policies=chosen.policies)
    print(text(done, chosen.run, check=chosen.check))
    if places.decided is None:
        print("no folder of decisions was searched: the run names none; give --history.decided FOLDER if there is one")
    return 1 if done.found else 0


if __name__ == "__main__":
    program(main)
