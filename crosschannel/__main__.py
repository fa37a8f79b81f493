"""The command `crosschannel`, also as `python -m crosschannel`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from crosschannel.core.errors import nearest
from crosschannel.pipeline.command_line import program
from crosschannel.version import __version__

COMMANDS = {
    "train": "learn a policy from a logged history, and estimate its value",
    "start": "start a run without a log of decisions, at random",
    "evaluate": "evaluate the policy of a run on users that it has not learned from",
    "decide": "choose for every user what to send now",
    "update": "learn from what came since, and write the next policy of a run",
    "simulate": "simulate a deployment: decide and learn every day, with arms",
    "alerts": "check a deployment after each day: decisions, propensities, unsubscribes, rewards",
    "forget": "remove users from all that a run and its decisions hold, and prove it",
    "bucket": "divide a log into buckets of users, for logs that do not fit into memory",
    "explain": "explain one decision: what was possible, what it was worth, and how probable",
    "effects": "estimate the effects of the logged messages",
    "trial": "read a randomised trial of arms: lifts that hold at all looks, checks, a verdict",
    "plan": "how many users, weeks or how much exploration a value needs, and how large a trial must be",
}
USAGE = "\n".join(
    [
        "usage: crosschannel COMMAND ...",
        "",
        *(f"  {name:{max(map(len, COMMANDS))}}  {what}" for name, what in COMMANDS.items()),
        "",
        "crosschannel COMMAND --help explains each command, crosschannel --version prints the version.",
    ]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    command, rest = given[0], given[1:]
    if command == "--version":
        print(f"crosschannel {__version__}")
        return 0
    if command not in COMMANDS:
        print(f"error: there is no command {command!r}. {nearest(command, COMMANDS)}\n\n{USAGE}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"crosschannel.programs.{command}").main(rest))


def run() -> NoReturn:
    """Run the command as the console script does: errors of the project become one line, without a traceback."""
    program(main)


if __name__ == "__main__":
    run()
