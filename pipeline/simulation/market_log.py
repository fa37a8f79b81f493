"""Write a market's log under one policy into buckets, one bucket of users after the other."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from crosschannel.core.serialization import to_dict
from crosschannel.envs.market import Market, MarketConfig, market_user_ids, simulate_history
from crosschannel.histories.buckets import Buckets, check_division, leaf_of, open_buckets
from crosschannel.histories.buckets.making import WORK_FOLDER
from crosschannel.histories.buckets.manifest import FileRecord, one_writer
from crosschannel.histories.buckets.writing import manifest_of, remove_others, write_bucket, write_file
from crosschannel.pipeline.command_line import logger

#: Version of the notes about buckets that are written; buckets of another version are simulated again.
NOTE_VERSION = 1


def write_market_log(config: MarketConfig, folder: Path, n: int, leaves: int) -> Buckets:
    """Simulate a market under business as usual into n buckets, of which one is in memory at a time.

    No user's draws depend on another one: the folder has the bytes that `write_buckets` gives for the log of all users.
    A run that was killed is resumed after the last bucket that it wrote.

    Args:
        config: The market.
        folder: Where to write; it is made if it does not exist.
        n: Number of buckets; it divides that of the leaves.
        leaves: Number of leaves, a power of two.

    Raises:
        ConfigError: If n does not divide the number of leaves, or another process writes the folder.
        OutputError: If the folder cannot be written.
    """
    check_division(leaves, n)
    market = Market(config)
    bucket = leaf_of(market_user_ids(config.users), leaves) % n
    settings = {"market": to_dict(config), "buckets": n, "leaves": leaves}
    files: dict[str, FileRecord] = {}
    with one_writer(folder):
        history = None
        for b in np.unique(bucket).tolist():
            note = folder / WORK_FOLDER / f"bucket-{b}.json"
            known = _read_note(note, settings)
            if known is None:
                logger.info(f"simulating bucket {b} of {n}")
                history, _ = simulate_history(market, chosen=np.flatnonzero(bucket == b))
                known = write_bucket(history, folder, b)
                content = {"version": NOTE_VERSION, "settings": settings}
                content["files"] = {name: asdict(one) for name, one in known.items()}
                write_file(note, json.dumps(content).encode())
            files |= known
        if history is None:  # all was written before a stop: one user has what all share
            history, _ = simulate_history(market, chosen=np.arange(1))
        manifest_of(history, n, leaves, files=files).write(folder)
        remove_others(folder, files)
        shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
    return open_buckets(folder)


def _read_note(note: Path, settings: dict[str, object]) -> dict[str, FileRecord] | None:
    """Return the files of a bucket that an earlier run with the same settings wrote; None if it did not."""
    if not note.is_file():
        return None
    content = json.loads(note.read_text(encoding="utf-8"))
    if content.get("version") != NOTE_VERSION or content["settings"] != json.loads(json.dumps(settings)):
        return None
    files = {name: FileRecord(**one) for name, one in content["files"].items()}
    folder = note.parents[1]
    whole = all(
        (folder / name).is_file() and (folder / name).stat().st_size == one.bytes for name, one in files.items()
    )
    return files if whole else None
