"""What the programs' command lines share: which configuration, which run, and one clear line for every error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from crosschannel.core.errors import ConfigError, CrosschannelError
from crosschannel.pipeline.configuration import Config, override, read_config

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """What a command line asks for.

    Attributes:
        config: The resolved configuration of a new run.
        resume: The run to go on with instead, or None.
    """

    config: Config
    resume: Path | None


def settings_of(arguments: Sequence[str] | None, *, default: Path, description: str) -> Settings:
    """Reads `--config FILE` and `--resume RUN`; everything else is a dotted flag that overrides the file.

    Raises:
        ConfigError: If the file is wrong, or `--resume` stands beside other settings.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path, default=None)
    first.add_argument("--resume", type=Path, default=None)
    chosen, rest = first.parse_known_args(sys.argv[1:] if arguments is None else list(arguments))
    if chosen.resume is not None and (rest or chosen.config):
        raise ConfigError("--resume goes on with the run's own settings: leave out --config and every other flag")
    config = override(read_config(chosen.config or default), rest, description)
    return Settings(config, chosen.resume)


def say(text: str) -> None:
    """One line for the person at the terminal, beside the progress bars."""
    tqdm.write(f"\033[2m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr)


def program(main: Callable[[], int]) -> NoReturn:
    """Runs a program; its own errors become one clear message, without a traceback."""
    try:
        sys.exit(main())
    except CrosschannelError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted; a run goes on from its last checkpoint with: python train.py --resume RUN", file=sys.stderr)
        sys.exit(130)
