"""A history of tables in memory equals that of a native folder with the same rows, whoever made the tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from crosschannel.core.errors import InputError
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories import History, from_frames, read_history, write_history
from tests import ROOT


def to_relation(frame: pd.DataFrame) -> Any:
    return duckdb.from_arrow(pa.Table.from_pandas(frame, preserve_index=False))


def with_dictionaries(frame: pd.DataFrame) -> pa.Table:
    """Text as dictionaries, in several chunks."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    columns = [
        c.dictionary_encode() if pa.types.is_large_string(c.type) or pa.types.is_string(c.type) else c
        for c in table.columns
    ]
    whole = pa.Table.from_arrays(columns, names=table.column_names)
    return pa.concat_tables([whole.slice(0, 7), whole.slice(7)])


KINDS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "pandas with an index": lambda frame: frame.set_index(frame.index[::-1] + 5),
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "reader of batches": lambda frame: pa.Table.from_pandas(frame, preserve_index=False).to_reader(50),
    "dictionaries": with_dictionaries,
    "duckdb": to_relation,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "log"
    market = simulate_history(Market(MarketConfig(users=60, days=5)))[0]
    rows = market.decisions_frame(), market.events_frame()
    assert market.users is not None
    # The market's own order of event names is not one that rows tell.
    write_history(History.from_tables(*rows, market.modules, market.users, span=market.span), path)
    return path


def tables(folder: Path) -> list[pd.DataFrame]:
    return [pd.read_parquet(folder / f"{name}.parquet") for name in ("decisions", "events", "users")]


def history_of(folder: Path, kind: str) -> tuple[History, History]:
    wanted = read_history(folder)
    decisions, events, users = map(KINDS[kind], tables(folder))
    first, last = (str(pd.Timestamp(moment, unit="us")) for moment in wanted.span)
    found = from_frames(
        *(decisions, events, wanted.modules, users),
        span=(first, last),
        name=wanted.name,
        churn_events=wanted.churn_events,
        ties=wanted.ties,
    )
    return found, wanted


@pytest.mark.parametrize("kind", KINDS)
def test_the_history_is_that_of_the_folder(folder: Path, kind: str) -> None:
    found, wanted = history_of(folder, kind)
    assert found.fingerprint() == wanted.fingerprint()
    assert found.n_users == wanted.n_users == 60


def test_modules_may_be_entries_and_users_may_be_left_out(folder: Path) -> None:
    decisions, events, _ = tables(folder)
    found = from_frames(decisions, events, read_history(folder).modules.to_dict())
    assert found.n_users == decisions["user_id"].nunique()


@pytest.mark.parametrize("kind", ["pandas", "polars", "duckdb"])
def test_faults_name_table_row_and_column(folder: Path, kind: str) -> None:
    decisions, events, _ = tables(folder)
    decisions.loc[3, "channel"] = "fax"
    with pytest.raises(InputError, match=r"decisions, column 'channel', row 4, value 'fax'"):
        from_frames(KINDS[kind](decisions), KINDS[kind](events), read_history(folder).modules)


def test_columns_that_no_log_has_are_refused_all_at_once(folder: Path) -> None:
    decisions, events, _ = tables(folder)
    decisions["tags"], events["path"] = [["a"]] * len(decisions), [["b"]] * len(events)
    with pytest.raises(InputError, match="tags") as error:
        from_frames(decisions, events, read_history(folder).modules)
    assert [(fault.file, fault.column) for fault in error.value.faults] == [("decisions", "tags"), ("events", "path")]


def test_what_is_no_table_is_refused(folder: Path) -> None:
    decisions, events, _ = tables(folder)
    with pytest.raises(InputError, match="a list is not a table"):
        from_frames([1], events, read_history(folder).modules)  # type: ignore[arg-type]
    decisions["propensity"] = decisions["propensity"].astype(object)
    decisions.loc[0, "propensity"] = "one half"
    with pytest.raises(InputError, match="cannot be read through Arrow"):
        from_frames(decisions, events, read_history(folder).modules)


def test_the_piece_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "histories.md").read_text().split("test_frames.py -->\n```python\n")[1].split("```")[0]
    exec(compile(text, "docs/histories.md", "exec"), {})
    assert "2 users, 2 decisions" in capsys.readouterr().out
