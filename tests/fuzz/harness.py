"""Read damaged inputs in a row, and collect what happens: tracebacks, hangs, executions and silent acceptance."""

from __future__ import annotations

import os
import random
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crosschannel.core.errors import CrosschannelError
from tests.fuzz.mutations import MARK, damaged
from tests.fuzz.targets import TARGETS, Target

MAX_CPU_SECONDS = 10


class HangError(Exception):
    """Reading took more than `MAX_CPU_SECONDS` of processor time."""


@dataclass
class Outcome:
    """What happened to n damaged inputs.

    Attributes:
        refused: How many the package refused, by target.
        equal: How many were read as the valid files are: the damage has no effect.
        accepted: What was read as something else: target, file, seed of the damage.
        failures: What should never happen: target, file, seed, what.
    """

    refused: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    accepted: list[tuple[str, str, int]] = field(default_factory=list)
    failures: list[tuple[str, str, int, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many inputs there were."""
        return self.refused.total() + self.equal.total() + len(self.accepted) + len(self.failures)


def fuzz(folder: Path, n: int, seed: int = 0, targets: Sequence[Target] = TARGETS) -> Outcome:
    """Damage one file of a target n times in all, and read the target each time."""
    out = Outcome()
    prepared, home = [], Path.cwd()
    for target in targets:
        place = folder / target.name / "files"
        place.mkdir(parents=True)
        os.chdir(place)
        target.make(place)
        contents = {name: (place / name).read_bytes() for name in target.files}
        prepared.append((target, place, contents, target.read(place)))
    signal.signal(signal.SIGVTALRM, _hang)
    try:
        for k in range(n):
            target, place, contents, expected = prepared[k % len(prepared)]
            os.chdir(place)
            number = seed * 10_000_000 + k
            rng = random.Random(number)
            name = rng.choice(target.files)
            _read_one(out, target, place, name, damaged(rng, contents[name]), number, expected)
            _restore(place, contents)
    finally:
        os.chdir(home)
    return out


def _read_one(
    out: Outcome, target: Target, place: Path, name: str, content: bytes, number: int, expected: object
) -> None:
    (place / name).write_bytes(content)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_SECONDS)
    try:
        found = target.read(place)
    except CrosschannelError:
        out.refused[target.name] += 1
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} at {Path(frame.filename).name}:{frame.lineno}"
        out.failures.append((target.name, name, number, what[:300]))
    else:
        if found == expected:
            out.equal[target.name] += 1
        else:
            out.accepted.append((target.name, name, number))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if (place / MARK).exists():
        out.failures.append((target.name, name, number, "something was executed"))
        (place / MARK).unlink()


def _restore(place: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        path = place / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.write_bytes(content)


def _hang(number: int, frame: object) -> None:
    raise HangError(f"more than {MAX_CPU_SECONDS} s of processor time")
