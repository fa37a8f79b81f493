"""The command `crosschannel`, also as `python -m crosschannel`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from crosschannel.pipeline.command_line import program

COMMANDS = {
    "train": "learn a policy from a logged history",
    "evaluate": "judge the policy of a run on users it has not learned from",
    "decide": "decide for every user what to send now",
    "effects": "estimate what a log's messages did",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0
    command, rest = given[0], given[1:]
    if command not in COMMANDS:
        print(f"error: there is no command {command!r}\n\n{usage()}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"crosschannel.programs.{command}").main(rest))


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: crosschannel COMMAND ...", "", *lines, "", "crosschannel COMMAND --help explains each."])


def run() -> NoReturn:
    """Run the command as the console script does: errors of the project become one line, without a traceback."""
    program(main)


if __name__ == "__main__":
    run()
