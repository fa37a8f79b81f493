"""A history as columns on disk: what was read and checked once is opened again without reading or checking it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import ObjectArray
from crosschannel.core.errors import ConfigError, OutputError
from crosschannel.histories.history import DecisionLog, EventLog, History

DESCRIPTION_FILE = "columns.json"
#: Columns of text, kept as codes and names.
NAMED = ("arm", "policy")


def write_columns(history: History, folder: Path, *, decides: bool) -> None:
    """Write a history into a folder that does not exist yet, as a whole or not at all.

    Args:
        history: The history.
        folder: The folder.
        decides: Whether ids of decisions and what was eligible are kept, which rewards and contexts do not need.

    Raises:
        OutputError: If the folder cannot be written.
    """
    draft = folder.with_name(folder.name + ".part")
    left_out = () if decides else ("id", "eligible")
    arrays: dict[str, npt.NDArray[Any]] = {
        "user_ids": _text(history.user_ids),
        "observed_from": history.observed_from,
        "observed_until": history.observed_until,
    }
    names: dict[str, list[str]] = {}
    for prefix, table in (("decisions", history.decisions), ("events", history.events)):
        for f in fields(table):
            column = getattr(table, f.name)
            if column is None or f.name in left_out:
                continue
            if f.name in NAMED:
                column, found = pd.factorize(column)
                names[f.name] = [str(name) for name in found]
            arrays[f"{prefix}.{f.name}"] = _text(column) if column.dtype == object else column
    content = {
        "columns": list(arrays),
        "names": names,
        "modules": history.modules.to_dict(),
        "event_names": list(history.event_names),
        "span": list(history.span),
        "name": history.name,
        "notes": list(history.notes),
        "churn_events": list(history.churn_events),
        "ties": history.ties,
        "attributes": history.users is not None,
    }
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(draft / f"{name}.npy", array, allow_pickle=False)
        if history.users is not None:
            history.users.to_parquet(draft / "users.parquet", index=False)
        (draft / DESCRIPTION_FILE).write_text(json.dumps(content))
        os.replace(draft, folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None


def read_columns(folder: Path) -> History:
    """Open a history that `write_columns` wrote; ids of decisions that were left out are empty.

    Raises:
        ConfigError: If the folder is not complete.
    """
    try:
        content = json.loads((folder / DESCRIPTION_FILE).read_text())
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in content["columns"]}
        users = pd.read_parquet(folder / "users.parquet") if content["attributes"] else None
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder} does not hold the columns of a history as they were written: {error}") from None
    tables: dict[str, dict[str, Any]] = {"decisions": {}, "events": {}}
    for name, array in arrays.items():
        table, _, column = name.partition(".")
        if column in NAMED:
            array = _named(array, content["names"][column])
        if column:
            tables[table][column] = array.astype(object) if array.dtype.kind == "U" else array
    decisions = tables["decisions"]
    decisions.setdefault("id", np.broadcast_to(np.array([""], dtype=object), len(decisions["time"])))
    ids = arrays["user_ids"]
    return History(
        decisions=DecisionLog(**decisions),
        events=EventLog(**tables["events"]),
        modules=ActionSpace.from_dict(content["modules"]),
        user_ids=ids.astype(object) if ids.dtype.kind == "U" else ids,
        event_names=tuple(content["event_names"]),
        span=(content["span"][0], content["span"][1]),
        observed_from=arrays["observed_from"],
        observed_until=arrays["observed_until"],
        users=users,
        name=content["name"],
        notes=tuple(content["notes"]),
        churn_events=tuple(content["churn_events"]),
        ties=content["ties"],
    )


def _text(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a column of texts with a fixed width; numbers stay as they are."""
    return column.astype(str) if column.dtype == object else column


def _named(codes: npt.NDArray[Any], names: list[str]) -> ObjectArray:
    """Return the names of codes (n,), None where a code is below 0."""
    table = np.array([*names, None], dtype=object)
    return np.asarray(table[codes])
