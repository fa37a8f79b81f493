"""Read damaged inputs in a row, and collect what happens: tracebacks, hangs, executions and silent acceptance."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from crosschannel.core.errors import CrosschannelError
from tests.fuzz.malicious import MARK
from tests.fuzz.mutations import damaged
from tests.fuzz.target import Target

MAX_CPU_SECONDS = 10
MAX_SECONDS = 120


class HangError(BaseException):
    """Reading took more than `MAX_CPU_SECONDS` of processor time, or waited for `MAX_SECONDS`."""


@dataclass(frozen=True)
class Input:
    """A damaged file: its target, its name and the seed of the damage."""

    target: str
    file: str
    seed: int


@dataclass
class Outcome:
    """What happened to n damaged inputs.

    Attributes:
        refused: How many the package refused, by target.
        equal: How many were read as the valid files are, by target: the damage has no effect.
        accepted: What was read as something else.
        failures: What should never happen, and what it was.
    """

    refused: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    accepted: list[Input] = field(default_factory=list)
    failures: list[tuple[Input, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Return how many inputs there were."""
        return self.refused.total() + self.equal.total() + len(self.accepted) + len(self.failures)


class Prepared:
    """The valid files of a target in a folder, each of which can be damaged and is restored after it was read.

    Args:
        target: The target.
        place: A folder that does not exist yet.
    """

    def __init__(self, target: Target, place: Path) -> None:
        place.mkdir(parents=True)
        self.target, self.place = target, place
        with self._quietly("ignore"):
            target.make(place)
        with self._quietly("error"):
            self.contents = {name: (place / name).read_bytes() for name in target.files}
            self.expected = {name: target.read(place, name) for name in target.files}

    def input(self, seed: int) -> Input:
        """Return the input of a seed, which chooses one of the files and damages it."""
        return Input(self.target.name, random.Random(seed).choice(self.target.files), seed)

    def content(self, one: Input) -> bytes:
        """Return the content of the damaged file."""
        rng = random.Random(one.seed)
        rng.choice(self.target.files)
        return damaged(rng, one.file, self.contents[one.file])

    def read(self, file: str) -> object:
        """Return what is read, given the name of the file that is damaged; nothing is printed."""
        with self._quietly("error"):
            return self.target.read(self.place, file)

    def restore(self) -> None:
        """Write the valid files again."""
        for name, content in self.contents.items():
            path = self.place / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.write_bytes(content)

    @contextlib.contextmanager
    def _quietly(self, on_warning: Literal["error", "ignore"]) -> Iterator[None]:
        """Work in the folder without output; Python's warnings are errors while reading: no user should see them."""
        with (
            contextlib.chdir(self.place),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter(on_warning)
            yield


def fuzz(folder: Path, n: int, targets: Sequence[Target], seed: int = 0) -> Outcome:
    """Damage a file n times, of one target after the other, and read the target each time."""
    prepared = [Prepared(target, folder / target.name / "files") for target in targets]
    out = Outcome()
    with _limited() as start:
        for k in range(n):
            _read_one(out, prepared[k % len(prepared)], seed * 10_000_000 + k, start)
    return out


def _read_one(out: Outcome, prepared: Prepared, seed: int, start: Callable[[float, float], None]) -> None:
    one = prepared.input(seed)
    start(MAX_CPU_SECONDS, MAX_SECONDS)
    try:
        (prepared.place / one.file).write_bytes(prepared.content(one))
        found = prepared.read(one.file)
    except CrosschannelError:
        out.refused[one.target] += 1
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        out.failures.append((one, _described(error)))
    else:
        if found == prepared.expected[one.file]:
            out.equal[one.target] += 1
        else:
            out.accepted.append(one)
    finally:
        start(0, 0)
        prepared.restore()
    if (mark := prepared.place / MARK).exists():
        out.failures.append((one, "something was executed"))
        mark.unlink()


def _described(error: BaseException) -> str:
    """Return an error with the place in the package from which it came."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    return f"{type(error).__name__} at {place}: {str(error).partition(chr(10))[0][:200]}"


@contextlib.contextmanager
def _limited() -> Iterator[Callable[[float, float], None]]:
    """Yield what starts the clocks of an input: seconds of processor time, and seconds; 0 stops them."""

    def start(cpu: float, real: float) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, cpu)
        signal.setitimer(signal.ITIMER_REAL, real)

    def stop(number: int, frame: object) -> None:
        raise HangError(f"more than {MAX_CPU_SECONDS} s of processor time, or {MAX_SECONDS} s")

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGVTALRM, signal.SIGALRM)]
    try:
        yield start
    finally:
        start(0, 0)
        for number, handler in before:
            signal.signal(number, handler)
