"""Remove users from all that a run and its decisions hold; killed at any moment, it is run again to the same end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, ObjectArray
from crosschannel.core.errors import ConfigError, Fault, raise_faults
from crosschannel.core.files import check_version, read_yaml, replacing
from crosschannel.core.table_validator import TableValidator
from crosschannel.histories.arms import ARMS
from crosschannel.histories.history import History
from crosschannel.histories.readers.daily import DESCRIPTION_FILE, USERS_FILE, DailyLog, is_daily
from crosschannel.histories.readers.decided.days import (
    ARMS_FILE,
    DECISIONS_FILE,
    SUMMARY_FILE,
    draft_of,
    replaced_of,
)
from crosschannel.histories.readers.source_files import read_file, read_parquet
from crosschannel.histories.values.identifiers import flag_other_spellings
from crosschannel.pipeline.loop.day_summaries import read_summary
from crosschannel.pipeline.loop.deciding import DecidedDay
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.loop.recent import DAYS_FOLDER
from crosschannel.pipeline.loop.writing import write_day
from crosschannel.pipeline.run_files import (
    PROCEDURE,
    RunLock,
    check_scratch,
    read_json,
    remove_left_scratch,
    write_json,
)
from crosschannel.pipeline.run_folder import Run
from crosschannel.pipeline.watch.scanning import Found, Traces, read_secrets, scan

#: What is to be forgotten, while it is not done yet: a later process needs the ids of rows that are gone already.
JOURNAL_FILE = ".forget.json"
#: Policies that have learned from users who were forgotten since. It names no user.
LEARNED_FILE = "forgotten.json"
FORGOTTEN_VERSION = 1


@dataclass
class Forgotten:
    """What was removed.

    Attributes:
        users: Number of users on the list.
        rows: Number of rows that were removed, by table.
        removed: Files that were removed as a whole.
        policies: Versions of policies that have learned from the users and are still there.
        searched: Number of files that were searched.
        found: Files in which something was found.
    """

    users: int
    rows: dict[str, int] = field(default_factory=dict)
    removed: list[Path] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    searched: int = 0
    found: list[Found] = field(default_factory=list)


@dataclass(frozen=True)
class Places:
    """Where a run's rows of users are.

    Attributes:
        run: The run.
        decided: Folder of decisions by date; None if there is none.
        log: The log by day that `simulate` wrote into the run's folder; None where the log is the user's own.
    """

    run: Run
    decided: Path | None
    log: DailyLog | None

    @classmethod
    def of_run(cls, run: Run, decided: Path | None) -> Places:
        """Return the places of a run.

        Raises:
            ConfigError: If the folder of decisions is not one.
        """
        decided = decided or run.config.history.decided
        if decided is not None and not decided.is_dir():
            raise ConfigError(f"{decided} is not a folder of decisions: name it with --history.decided")
        log = run.path / "log"
        own = (log / DESCRIPTION_FILE).is_file() and is_daily(read_yaml(log / DESCRIPTION_FILE))
        return cls(run, decided, DailyLog.open(log) if own else None)

    @property
    def folders(self) -> list[Path]:
        """The folders that are searched."""
        return [self.run.path, *([] if self.decided is None else [self.decided])]

    def policy_files(self) -> list[Path]:
        """Return the files of all policies."""
        policies = Policies(self.run.path)
        first = self.run.path / "policy.pt"
        return [*([first] if first.is_file() else []), *(policies.path(version) for version in policies.versions)]

    def tables(self) -> Iterator[Path]:
        """Yield the files of all tables with rows of users."""
        if self.decided is not None:
            for day in self.days():
                yield from (day / DECISIONS_FILE, day / ARMS_FILE)
        if self.log is not None:
            yield self.log.path / USERS_FILE
            for time in self.log.days():
                yield from sorted(self.log.folder(time).glob("*.parquet"))

    def user_ids(self) -> ObjectArray:
        """Return the ids of all users that these tables have, as texts (n,)."""
        ids = [table["user_id"].astype(str) for file in self.tables() if "user_id" in (table := read_parquet(file))]
        return np.asarray(pd.unique(pd.concat([pd.Series([], dtype=str), *ids])), dtype=object)

    def days(self) -> list[Path]:
        """Return the folders of the days of decisions."""
        assert self.decided is not None
        inside = (path for path in self.decided.iterdir() if path.is_dir() and not path.name.startswith("."))
        return sorted(path for path in inside if (path / SUMMARY_FILE).is_file())


def read_users(path: Path, known: ObjectArray) -> ObjectArray:
    """Read the ids of users from a table with the column `user_id`, as texts without repetitions.

    Args:
        path: The table.
        known: Ids of users as the decisions and the log write them, as texts (k,), repetitions included. Another id is
            accepted, as it may be that of a forgotten user.

    Raises:
        InputError: If the file cannot be read, has no user, or writes a known user in another way: the search would
            find nothing of that user.
    """
    faults: list[Fault] = []
    table = TableValidator(read_file(path, text=("user_id",)).frame, str(path), faults)
    table.require(["user_id"])
    raise_faults(faults)
    flag_other_spellings(table, "user_id", known)
    ids = pd.unique(pd.Series(table.texts("user_id"), dtype=object))
    table.flag_rows("user_id", np.asarray(table.texts("user_id") == ""), "the id is missing", "Leave the row out.")
    if not len(ids):
        table.flag("the list has no user", "Name the users to forget, one a row.", column="user_id")
    raise_faults(faults)
    return np.asarray(ids, dtype=object)


def forget(
    places: Places,
    user_ids: ObjectArray,
    *,
    decision_ids: frozenset[str] = frozenset(),
    policies: bool = False,
) -> Forgotten:
    """Remove users from all that this package wrote for a run, and search all files for what is left.

    Rows of decisions, of arms and of a simulated log are removed, each day replaced as a whole. What was learned is
    kept in sums over users: the states of `learning/` and the totals of `days/` are removed, so that the next update
    learns again from the log, and so are the checkpoint of a finished run, which nothing reads any more, and those of
    interrupted agents of folds, which start over. Parameters of
    policies are sums over users as well and stay; `forgotten.json` names these policies until they are gone.

    Args:
        places: Where the rows are.
        user_ids: The users (n,), as texts.
        decision_ids: Ids of decisions of theirs that the log has, which are searched for as well.
        policies: Whether all versions of the policy but the one in use are removed.

    Raises:
        ConfigError: If the run is not finished, or in use.
    """
    run = places.run
    if run.checkpoint.is_file() and not run.ended:
        raise ConfigError(
            f"{run.path} is not finished, and resuming it needs the rows of its checkpoint: resume the run "
            "first, or remove the users from the log, delete the folder and train again"
        )
    with RunLock(run.path):
        _recover(places)
        journal = run.path / JOURNAL_FILE
        interrupted, first = journal.is_file(), not (run.path / LEARNED_FILE).is_file()
        rows, own_ids = _rows_and_decision_ids(places, user_ids)
        ids = _journal(journal) | decision_ids | own_ids
        _write_journal(journal, ids)
        done = Forgotten(len(user_ids))
        if rows or first or interrupted:
            _note_policies(run.path)
        _remove_states(places, done)
        _remove_decisions(places, user_ids, done)
        _remove_from_log(places, user_ids, done)
        traces = Traces.of_users(user_ids, read_secrets(places.policy_files()), ids)
        if policies:
            _remove_policies(run.path, done)
        done.policies = policies_that_learned(run.path)
        done.found, done.searched = scan(places.folders, traces, frozenset({JOURNAL_FILE}))
        if not done.found:
            journal.unlink(missing_ok=True)
    return done


def check_forgotten(places: Places, user_ids: ObjectArray, *, decision_ids: frozenset[str] = frozenset()) -> Forgotten:
    """Search all files for users, and change nothing; the arguments are those of `forget`."""
    ids = _journal(places.run.path / JOURNAL_FILE) | decision_ids
    traces = Traces.of_users(user_ids, read_secrets(places.policy_files()), ids)
    done = Forgotten(len(user_ids), policies=policies_that_learned(places.run.path))
    done.found, done.searched = scan(places.folders, traces)
    journal = (places.run.path / JOURNAL_FILE).is_file()
    if journal and not any(one.file.name == JOURNAL_FILE for one in done.found):
        done.found.append(Found(places.run.path / JOURNAL_FILE, "forget was interrupted: run it again"))
    return done


def policies_that_learned(run: Path) -> list[str]:
    """Return the policies that are still there and have learned from users who were forgotten since."""
    file = run / LEARNED_FILE
    named = read_json(file, "Restore it", FORGOTTEN_VERSION)["policies"] if file.is_file() else []
    return [version for version in Policies(run).versions if version in named]


def _note_policies(run: Path) -> None:
    """Write which policies have learned from users who are forgotten now: all but the one that has not learned."""
    policies = Policies(run)
    learned = [version for version in policies.versions if not policies.is_first(version)]
    write_json({"version": FORGOTTEN_VERSION, "policies": sorted(learned)}, run / LEARNED_FILE)


def _remove_states(places: Places, done: Forgotten) -> None:
    run = places.run
    folders = [folder for name in ("learning", DAYS_FOLDER) if (folder := run.path / name).is_dir()]
    interrupted = sorted((run.path / PROCEDURE).glob(f"*/{run.checkpoint.name}"))
    for file in (*(file for folder in folders for file in sorted(folder.rglob("*"))), *interrupted, run.checkpoint):
        if file.is_file():
            file.unlink()
            done.removed.append(file)
    for folder in folders:
        for empty in sorted(folder.rglob("*"), reverse=True):
            empty.rmdir()


def _remove_decisions(places: Places, user_ids: ObjectArray, done: Forgotten) -> None:
    if places.decided is None:
        return
    for day in places.days():
        tables = {name: read_parquet(day / name) for name in (DECISIONS_FILE, ARMS_FILE)}
        kept = {name: table[~_mine(table, user_ids)] for name, table in tables.items()}
        removed = {name: len(tables[name]) - len(kept[name]) for name in tables}
        if not any(removed.values()):
            continue
        decisions, arms = (kept[name].reset_index(drop=True) for name in (DECISIONS_FILE, ARMS_FILE))
        summary = read_summary(day)
        summary["users"] = {name: int((arms["arm"] == name).sum()) for name in ARMS}
        write_day(places.decided, DecidedDay(day.name, decisions, arms, summary), force=True)
        for name, n in removed.items():
            done.rows[name] = done.rows.get(name, 0) + n


def _remove_from_log(places: Places, user_ids: ObjectArray, done: Forgotten) -> None:
    if places.log is None:
        return
    files = [file for file in places.tables() if file.is_relative_to(places.log.path)]
    for file in files:
        table = read_parquet(file)
        mine = _mine(table, user_ids)
        if mine.any():
            with replacing(file) as draft:
                table[~mine].reset_index(drop=True).to_parquet(draft, index=False)
            name = f"log: {file.name}"
            done.rows[name] = done.rows.get(name, 0) + int(mine.sum())


def _remove_policies(run: Path, done: Forgotten) -> None:
    policies = Policies(run)
    for version in policies.versions:
        if version != policies.current:
            policies.remove(version)
            done.removed.append(policies.path(version))


def _recover(places: Places) -> None:
    """Remove drafts that killed processes have left, and put back a day whose replacement was interrupted.

    Raises:
        ConfigError: If a training, an evaluation or a decision has users in its scratch folder at this moment.
    """
    for folder in places.folders:
        check_scratch(folder)
    for draft in (*places.run.path.rglob(".*.part"), *(places.run.path / "policies").glob(".*.pt")):
        _delete(draft)
    if places.log is not None:
        for draft in places.log.path.glob(".[0-9]*"):
            _delete(draft)
    if places.decided is None:
        return
    remove_left_scratch(places.decided)
    with RunLock(places.decided):
        for entry in sorted(places.decided.glob(".[0-9]*")):
            day = places.decided / entry.name[1:].removesuffix(".replaced")
            if entry == replaced_of(day) and not day.exists():
                entry.rename(day)
            elif entry in (replaced_of(day), draft_of(places.decided / entry.name[1:].removesuffix(".part"))):
                _delete(entry)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _mine(table: pd.DataFrame, user_ids: ObjectArray) -> BoolArray:
    return np.asarray(table["user_id"].astype(str).isin(user_ids.astype(str)))


def decision_ids_in(history: History, user_ids: ObjectArray) -> frozenset[str]:
    """Return the ids of the decisions that a log has for users."""
    mine = np.isin(history.user_ids.astype(str), user_ids.astype(str))
    return frozenset(history.decisions.id[mine[history.decisions.user]].astype(str).tolist())


def _rows_and_decision_ids(places: Places, user_ids: ObjectArray) -> tuple[int, set[str]]:
    """Return how many rows of users the tables have, and the ids of their decisions with the pseudonyms in them."""
    rows, found = 0, set[str]()
    for file in places.tables():
        table = read_parquet(file)
        mine = table[_mine(table, user_ids)]
        rows += len(mine)
        if "decision_id" in mine:
            ids = mine["decision_id"].dropna().astype(str)
            found.update(ids)
            if places.decided is not None and file.is_relative_to(places.decided):
                found.update(one.partition("-")[2] for one in ids)
    return rows, found - {""}


def _journal(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    content = json.loads(path.read_text(encoding="utf-8"))
    check_version(content.get("version"), FORGOTTEN_VERSION, path)
    return frozenset(content["ids"])


def _write_journal(path: Path, ids: frozenset[str]) -> None:
    with replacing(path) as draft:
        draft.write_text(json.dumps({"version": FORGOTTEN_VERSION, "ids": sorted(ids)}), encoding="utf-8")
