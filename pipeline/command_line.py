"""What the command lines of all programs share: flag names, help, errors of one line, and how a run is resumed."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from crosschannel.core.errors import ConfigError, CrosschannelError, OutputError, nearest
from crosschannel.core.files import output_fault
from crosschannel.engines.base import ENGINES
from crosschannel.pipeline.configuration import CONFIG_FOLDER, check_device, check_seed

logger = logging.getLogger("crosschannel")

#: The configuration of a run that names none; it is installed with the package.
DEFAULT_CONFIG = CONFIG_FOLDER / "market.yaml"

WIDTH = 100  # columns of the help texts, where the terminal is not narrower
FLAG_WIDTH = 42  # columns that a flag and its value may take before the explanation begins on a line of its own


class UsageError(ConfigError):
    """A command line that a program cannot run; its exit code is 2, where other errors have 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what to run in order to resume."""


class Terminated(Interrupted):
    """SIGTERM, such as of a scheduler that needs the machine; it ends a program as Ctrl-C does."""


class Parser(argparse.ArgumentParser):
    """A program's parser: wrong usage is a `UsageError`, and flags may have underscores for their hyphens.

    Args:
        command: The command, such as `train`.
        description: The program's docstring, shown by `--help`.
        usage: What follows the command in the line of usage; by default what argparse makes of the flags.
    """

    def __init__(self, command: str, description: str | None, usage: str | None = None) -> None:
        prog = invocation(command)
        super().__init__(
            prog=prog,
            usage=None if usage is None else f"{prog} {usage}",
            description=description,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )

    def add_shared(self, *names: str, **explanations: str) -> None:
        """Add flags that mean the same in all programs.

        Args:
            names: Names out of `SHARED`.
            explanations: What else stands in the help than there, by the name without its leading hyphens.
        """
        for name in names:
            options = SHARED[name]
            help_text = explanations.get(name.lstrip("-").replace(".", "_"), options["help"])
            self.add_argument(name, **{**options, "help": help_text})

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Return what a command line asks for.

        Args:
            arguments: What follows the program's name; by default that of this process.

        Raises:
            UsageError: If a flag is unknown or lacks its value; the nearest known one is named.
        """
        chosen, rest = self.parse_known_args(hyphenated(arguments))
        if rest:
            flag = rest[0].partition("=")[0]
            if not flag.startswith("-"):
                raise UsageError(f"{flag!r} is not expected here: see {self.prog} --help")
            known = [name for action in self._actions for name in action.option_strings]
            close = nearest(flag, known)
            hint = f" {close}" if close.startswith("Did you mean") else ""
            raise UsageError(f"there is no flag {flag}.{hint} See {self.prog} --help")
        if getattr(chosen, "force", False) and chosen.out is None:
            raise UsageError("--force overwrites what --out names: give --out as well")
        return chosen

    def first_positional(self, arguments: Sequence[str] | None) -> Path | None:
        """Return the first argument that is neither a flag nor a flag's value, before settings are added as flags."""
        given = hyphenated(arguments)
        switches = {name for action in self._actions if action.nargs == 0 for name in action.option_strings}
        for before, text in zip(["", *given], given, strict=False):
            is_value = before.startswith("--") and "=" not in before and before not in switches
            if not text.startswith("-") and not is_value:
                return Path(text)
        return None

    def error(self, message: str) -> NoReturn:
        """Raise a `UsageError`, where argparse would print the usage and exit."""
        raise UsageError(f"{message}. See {self.prog} --help")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        columns = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
        super().__init__(prog, max_help_position=FLAG_WIDTH, width=columns)


def hyphenated(arguments: Sequence[str] | None) -> list[str]:
    """Return a command line whose flags are written with hyphens, `--train.num-envs` for `--train.num_envs`."""
    given = sys.argv[1:] if arguments is None else arguments
    found = []
    for text in given:
        flag, equals, value = text.partition("=")
        found.append(f"{flag.replace('_', '-')}{equals}{value}" if text.startswith("--") else text)
    return found


def _checked(convert: Callable[[str], Any], check: Callable[[Any], None]) -> Callable[[str], Any]:
    """Return a type for argparse that shows why a value is refused."""

    def converted(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text[:80]!r}") from None
        try:
            check(value)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    return converted


#: Flags that mean the same in every program that has them.
SHARED: Mapping[str, Mapping[str, Any]] = {
    "run": {"metavar": "RUN", "type": Path, "help": "folder of a finished run, such as runs/market"},
    "--history.path": {
        "metavar": "PATH",
        "type": Path,
        "dest": "history_path",
        "help": "folder or file of another log in the layout of the run's own (default: the run's log)",
    },
    "--history.decided": {
        "metavar": "FOLDER",
        "type": Path,
        "dest": "history_decided",
        "help": "folder of decisions by date, which join the log (default: the run's)",
    },
    "--engine": {
        "metavar": "NAME",
        "choices": ENGINES,
        "default": ENGINES[0],
        "help": f"what runs the passes over a log in buckets, with one result: {', '.join(ENGINES)} (default: local)",
    },
    "--engine-address": {
        "metavar": "ADDRESS",
        "default": None,
        "help": "cluster of ray or master of spark (default: the one that runs, or a local one)",
    },
    "--workers": {
        "metavar": "INT",
        "type": int,
        "default": 2,
        "help": "processes of the engine (default: 2)",
    },
    "--at": {"metavar": "TIME", "help": "time of the decisions in UTC (default: the end of the log)"},
    "--allow-class": {
        "metavar": "CLASS",
        "nargs": "+",
        "default": (),
        "help": "package.module:Class of your own that the run names and that may be imported",
    },
    "--out": {"metavar": "PATH", "type": Path, "help": "where to write"},
    "--seed": {"metavar": "INT", "type": _checked(int, check_seed), "default": 0, "help": "seed of the random draws"},
    "--device": {
        "metavar": "TEXT",
        "type": _checked(str, check_device),
        "default": "cpu",
        "help": "where the agent computes: cpu, cuda, cuda:1, mps or auto (default: cpu)",
    },
    "--force": {"action": "store_true", "help": "overwrite what --out names"},
}


def invocation(command: str, *arguments: str | Path) -> str:
    """Return how to run a command as this process was run: `python train.py ...`, or `crosschannel train ...`."""
    script = Path(sys.argv[0])
    words = ["crosschannel", command]
    if script.suffix == ".py" and script.stem != "__main__" and (script.parent / f"{command}.py").is_file():
        words = ["python", str(script.parent / f"{command}.py")]
    return shlex.join([*words, *map(str, arguments)])


class _TerminalHandler(logging.Handler):
    """Prints messages beside the progress bars, dimmed on a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        from tqdm import tqdm

        text = self.format(record)
        tqdm.write(f"\033[2m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch and BLAS compute on one thread meanwhile, unless the environment sets `OMP_NUM_THREADS`.

    More threads are slower with networks as small as these, and round otherwise: results would depend on the machine.
    """
    import torch
    from threadpoolctl import threadpool_limits

    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def output_file(path: Path, force: bool) -> Path:
    """Return where to write a file that a flag names: the path itself, or what it leads to if it is a link.

    Raises:
        UsageError: If it exists and `force` is False, or cannot be written.
    """
    try:
        target = path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{path} cannot be written: {error}") from None
    check_output(target, force)
    return target


def check_output(path: Path, force: bool) -> None:
    """Check that a file can be written to a path, where a link would be replaced.

    Raises:
        UsageError: If it exists and `force` is False, or cannot be written.
    """
    refuse_existing(path, force or path.is_dir())
    if fault := output_fault(path):
        raise UsageError(f"{path} cannot be written: {fault}")


def refuse_existing(path: Path, force: bool) -> None:
    """Refuse to overwrite a file or a folder that is not empty, unless that is asked for.

    Raises:
        UsageError: If it exists and `force` is False.
    """
    if not force and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
        raise UsageError(f"{path} exists already: give another --out, or overwrite it with --force")


@contextmanager
def resumable(run: Path, command: str = "train", remedy: str = "") -> Iterator[None]:
    """Add the command that resumes the run to Ctrl-C, to SIGTERM, and to the error of a file that cannot be written.

    Args:
        run: Folder of the run.
        command: The command that resumes it.
        remedy: What to do instead, where no command does.
    """
    remedy = remedy or f"resume the run from its last checkpoint with: {invocation(command, '--resume', run)}"
    try:
        yield
    except Terminated:
        raise Terminated(f"terminated; {remedy}") from None
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {remedy}") from None
    except (OSError, OutputError) as error:
        what = error if isinstance(error, OutputError) else f"a file cannot be written: {error}"
        raise OutputError(f"{what}. Correct that, and {remedy}") from None


def program(main: Callable[[], int]) -> NoReturn:
    """Run a program, show its messages, and exit; the project's own errors become one line, without a traceback."""
    if not logger.handlers:
        logger.addHandler(_TerminalHandler())
    logger.setLevel(logging.INFO)
    threading.excepthook = _report_thread
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = main()
        sys.stdout.flush()  # so that a reader who has left shows here
        sys.exit(code)
    except BrokenPipeError:  # `| head`: who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + 13)  # as if SIGPIPE had ended the program
    except CrosschannelError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except Terminated as error:
        print(str(error) or "terminated", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt as error:
        print(str(error) or "interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _report_thread(arguments: threading.ExceptHookArgs) -> None:
    """Leave errors of TensorBoard's writing thread to the main thread, which raises them as well."""
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)
