"""What runs need of their folder: JSON with a checksum, what was learned with, the lock, and a place that is free."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from crosschannel.core.errors import ConfigError, OutputError
from crosschannel.core.files import check_version, lock, replacing
from crosschannel.core.serialization import from_dict, shortened, to_dict
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.pricing import LogPace

LOCK_FILE = ".lock"
#: Beginning of the names of scratch folders, and the ending of all that is not finished.
SCRATCH, PART = ".scratch-", ".part"
#: Folder of the agents of a learning procedure, below that of the run.
PROCEDURE = "procedure"
#: Settings that say only where a run is, and what computes it.
PLACES = ("name", "run_dir", "device")
#: Settings of `history` that say only where a log is and how it is read.
SOURCES_OF_A_LOG = ("source", "path", "market", "tables", "stream", "decided")
#: Settings that an ended run may change: they say what is judged and sent.
AFTER_TRAINING = ("guardrails", "arms", "evaluation", "constraints", "alerts", "trial", "update", "loop")
#: Those of them that do not change what an agent learns from a log.
AFTER_LEARNING = tuple(section for section in AFTER_TRAINING if section != "guardrails")
_SEAL = re.compile(r',\n  "checksum": "([0-9a-f]{64})"\n}\n\Z')


def write_json(data: Mapping[str, Any], path: Path) -> None:
    """Write strict JSON, without NaN, whose last entry is the checksum of the text before it.

    Raises:
        OutputError: If the file cannot be written.
    """
    text = json.dumps(data, indent=2, allow_nan=False).removesuffix("\n}")
    with replacing(path) as draft:
        draft.write_text(f'{text},\n  "checksum": "{_digest(text)}"\n}}\n', encoding="utf-8")


def read_json(path: Path, remedy: str, newest: int) -> dict[str, Any]:
    """Return what `write_json` wrote, without the checksum.

    Args:
        path: The file.
        remedy: What to do where the file is not as it was written.
        newest: The newest version of its content that can be read; a file without one has version 1.

    Raises:
        ConfigError: If the file is not as it was written, with the remedy, or has a newer version.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        seal = _SEAL.search(text)
        if seal is None or seal[1] != _digest(text[: seal.start()]):
            raise ConfigError(f"{path} is damaged or was edited: its checksum is absent or does not fit. {remedy}")
        data = json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}. {remedy}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON in UTF-8: {error}. {remedy}") from None
    del data["checksum"]
    check_version(data.get("version"), newest, path)
    return dict(data)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TrainedWith:
    """What a run has learned with, as its checkpoint and its policy hold it: an edit of config.yaml does not change it.

    Attributes:
        config: The configuration.
        history: The fingerprint of the history.
        features: How context is built.
        pace: How often the log decides, and how often cost events follow.
    """

    config: Config
    history: str
    features: ContextFeatures
    pace: LogPace

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, without what says only where the run and its log are, and what computed it.

        So a log that stands in another folder each day does not make another version of a policy.
        """
        history = self.config.history.anywhere()
        config = replace(self.config, history=history, **{name: getattr(Config(), name) for name in PLACES})
        return {
            "config": to_dict(config),
            "history": self.history,
            "features": self.features.state_dict(),
            "pace": self.pace.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], path: Path) -> TrainedWith:
        """Return what `to_dict` turned into plain values.

        Raises:
            ConfigError: If the values are not such; the message names the file that they are from.
        """
        try:
            config = from_dict(Config, data["config"])
            if not re.fullmatch(r"[0-9a-f]{32}", str(data["history"])):
                raise ValueError(f"{data['history']!r:.40} is not the fingerprint of a history")
            features, pace = ContextFeatures.from_state_dict(data["features"]), LogPace.from_dict(data["pace"])
            return cls(config, str(data["history"]), features, pace)
        except ConfigError as error:
            raise ConfigError(f"{path} holds a configuration that this program refuses: {error}") from None
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise ConfigError(
                f"{path} does not hold what a run has learned with ({type(error).__name__}: {error}): train again"
            ) from None

    def check(self, config: Config, path: Path, *, ended: bool) -> None:
        """Check that a configuration is the one of the training: see `check_same_settings`."""
        check_same_settings(self.config, config, path, ended=ended)


def check_same_settings(trained: Config, config: Config, path: Path, *, ended: bool) -> None:
    """Check that a configuration is the one of a training, but for where things are and the device.

    Once a run has `ended`, its guardrails, its arms, its constraints, its alerts and the settings of its evaluation may
    change too: nothing was learned with them, and what has been found with others is not taken for what would be found
    with these.

    Args:
        trained: The configuration of the training.
        config: The configuration as it is now.
        path: The file that holds it.
        ended: Whether the run has ended.

    Raises:
        ConfigError: With a line for each setting that differs.
    """
    lines = [
        f"{path}: {key} is {shortened(found)}, but the run was trained with {shortened(stored)}. {_remedy(key)}"
        for key, stored, found in _differences(to_dict(trained), to_dict(config))
        if not (_may_change(key) or (ended and key.partition(".")[0] in AFTER_TRAINING))
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def learns_alike(one: Config, other: Config) -> bool:
    """Return whether agents that learn from the same log with two configurations learn the same.

    Guardrails count: an agent learns from what they leave eligible; and so does the discount of later slots, from which
    the price of a message is learned.
    """
    return all(
        _may_change(key) or (key.partition(".")[0] in AFTER_LEARNING and key != "constraints.discount")
        for key, _, _ in _differences(to_dict(one), to_dict(other))
    )


def _differences(stored: Any, found: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted names of the settings that differ, with both values."""
    if isinstance(stored, Mapping) and isinstance(found, Mapping):
        for name in dict.fromkeys((*stored, *found)):
            yield from _differences(stored.get(name), found.get(name), f"{key}.{name}" if key else str(name))
    elif isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        for k, (one, other) in enumerate(zip(stored, found, strict=True)):
            yield from _differences(one, other, f"{key}[{k}]")
    elif type(stored) is not type(found) or stored != found:
        yield key, stored, found


def _may_change(key: str) -> bool:
    """Return whether a setting says only where something is: the log itself is compared by its fingerprint."""
    section, _, setting = key.partition(".")
    return key in PLACES or (section == "history" and setting.partition(".")[0] in SOURCES_OF_A_LOG)


def _remedy(key: str) -> str:
    section = key.partition(".")[0]
    flags = {
        "evaluation": "evaluate takes other settings as flags",
        "guardrails": "decide takes other guardrails as flags",
        "arms": "decide takes other arms as flags",
        "constraints": "decide takes other constraints as flags",
        "history": "evaluate and decide read another log by --history.path",
    }
    also = f"; {flags[section]}" if section in flags else ""
    return f"Restore it there, or train a new run{also}"


class RunLock:
    """The right to write into a run's folder, for one process at a time; the system releases it if the process ends.

    Args:
        folder: The folder.

    Raises:
        ConfigError: If another program has it.
        OutputError: If the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_FILE
        try:
            # A link in a folder that somebody else has made is not followed.
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None
        self._file: IO[str] = os.fdopen(handle, "r+")
        if not lock(self._file):
            owner = self._file.read(100).strip() or "another program"
            self._file.close()
            raise ConfigError(f"{folder} is in use by {owner}: wait until it has ended, or stop it")
        self._file.truncate()
        self._file.write(f"process {os.getpid()}\n")
        self._file.flush()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the right back."""
        self._file.close()


def take_numbered(folder: Path, name: str, locks: ExitStack) -> Path:
    """Take and lock a folder of a name that holds nothing yet, with a number added where the name is taken."""
    for number in range(1, 10_000):
        path = folder / (name if number == 1 else f"{name}-{number}")
        if path.exists() and not is_free(path):
            continue
        make_folder(path)
        lock = ExitStack()
        try:
            lock.enter_context(RunLock(path))
        except ConfigError:
            continue  # a run that begins at the same time
        if is_free(path):
            locks.push(lock)
            return path
        lock.close()
    raise ConfigError(f"{folder} has ten thousand runs called {name!r}: choose another name")


def make_folder(path: Path) -> None:
    """Make a folder, with those above it.

    Raises:
        OutputError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be made: {error.strerror or error}") from None


def is_free(path: Path) -> bool:
    """Return whether a folder holds nothing but what a process that was killed before its run began has left."""
    return path.is_dir() and all(item.name == LOCK_FILE or item.name.endswith(PART) for item in path.iterdir())


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder of this process alone below another one, and remove it at the end.

    Its name is one that nobody has: processes that work below one folder at a time do not meet. It is locked, so that
    nobody replaces or forgets what is around it meanwhile, and what a killed process leaves is told from what is in
    use: `remove_left_scratch`. A parent that is missing is made, and removed again if nothing else was written into it.

    Raises:
        OutputError: If the folder cannot be made.
    """
    made = not parent.exists()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder, lock = _locked_scratch(parent)
    except OSError as error:
        raise OutputError(f"{parent} cannot be written: {error.strerror or error}") from None
    try:
        with lock:
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made:
            with suppress(OSError):  # it holds what was written meanwhile
                parent.rmdir()


def _locked_scratch(parent: Path) -> tuple[Path, RunLock]:
    """Make a scratch folder and lock it; another one where a process has taken it for a left one before it was locked.

    Raises:
        OSError: If it cannot be made.
        OutputError: If it cannot be locked.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH, suffix=PART, dir=parent))
        try:
            lock = RunLock(folder)
        except ConfigError:
            continue
        except OutputError:
            if folder.exists():
                raise
            continue
        if folder.exists():
            return folder, lock
        lock.close()


def check_scratch(folder: Path) -> None:
    """Refuse to remove the scratch folders in a folder while a process works in one of them.

    Raises:
        ConfigError: If one does.
    """
    for inside in sorted(folder.glob(f"{SCRATCH}*{PART}/{LOCK_FILE}")):
        RunLock(inside.parent).close()


def remove_left_scratch(folder: Path) -> None:
    """Remove the scratch folders that killed processes have left in a folder, and no other ones."""
    for inside in sorted(folder.glob(f"{SCRATCH}*{PART}")):
        with suppress(ConfigError), RunLock(inside):
            shutil.rmtree(inside, ignore_errors=True)


def clear(path: Path, keep: str = "") -> None:
    """Remove the files of an earlier run, first what marks it as finished; config.yaml is replaced later.

    Args:
        path: The run's folder.
        keep: Name of a scratch folder in it, which stays.

    Raises:
        ConfigError: If another program writes a folder in it, such as the log of a simulation.
        OutputError: If a file cannot be removed.
    """
    names = {"config.yaml", LOCK_FILE, keep}
    for inside in sorted(path.glob(f"*/{LOCK_FILE}")):
        if inside.parent.name != keep:
            RunLock(inside.parent).close()
    try:
        (path / "metrics.json").unlink(missing_ok=True)
        for item in path.iterdir():
            if item.name in names:
                continue
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be replaced: {error.strerror or error}") from None
