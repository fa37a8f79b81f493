"""Explain one decision of a policy: what could be sent, what each action was worth, and how probable it was.

  crosschannel explain RUN --decision ID --history.path LOG --decisions decisions
  crosschannel explain RUN --decision ID --history.path LOG --decisions decisions.csv

ID is the decision_id in what `decide` wrote: a folder by date, or one file. The explanation is by the policy that made
the decision (RUN holds all its versions), in the context that the log gives for the user before it: expected value and
components of each action, what each costs at the prices of the run's constraints, and its probability. Of a log in
buckets the user's own bucket is read, and no other one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crosschannel.histories.readers.decided.days import is_by_date
from crosschannel.pipeline.buckets.reading import reads_buckets
from crosschannel.pipeline.buckets.users import history_of_user
from crosschannel.pipeline.command_line import Parser, UsageError, program
from crosschannel.pipeline.configuration import WITH_DECISIONS
from crosschannel.pipeline.reading import build_history
from crosschannel.pipeline.run_folder import Run


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for.

    Raises:
        UsageError: If a flag or its value is wrong.
    """
    parser = Parser("explain", __doc__, "RUN --decision ID --decisions PATH [--history.path PATH] [...]")
    parser.add_shared("run", "--history.path", "--history.decided")
    parser.add_argument("--decision", metavar="ID", help="the decision's id (required)")
    where = "folder of decisions by date, or a file of decide (default: the run's folder of decisions)"
    parser.add_argument("--decisions", metavar="PATH", type=Path, help=where)
    parser.add_shared("--device", "--allow-class")
    chosen = parser.parse(arguments)
    if chosen.decision is None:
        raise UsageError("--decision is missing: give the decision_id of one decision")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Find the decision, read the log, and print the explanation; return the exit code."""
    chosen = parse(arguments)
    # PyTorch is imported here, so that help and wrong flags do not wait for it.
    from crosschannel.pipeline.loop.decisions.explaining import explain_decision, find_decision

    run = Run.open_in_use(chosen.run, chosen.history_path, chosen.allow_class)
    source = run.config.history
    folder = chosen.history_decided or source.decided
    path = chosen.decisions or folder
    if path is None:
        raise UsageError("--decisions is missing: give the folder, or the file, that decide wrote")
    row = find_decision(path, chosen.decision)
    if folder is None and is_by_date(path) and source.source in WITH_DECISIONS:
        folder = path
    if folder is not None:
        run = replace(run, config=replace(run.config, history=replace(source, decided=folder)))
    if reads_buckets(run.config):
        history = history_of_user(run.config, str(row["user_id"]))
    else:
        history = build_history(run.config)[0]
    print(explain_decision(run, history, row, chosen.device))
    return 0


if __name__ == "__main__":
    program(main)
