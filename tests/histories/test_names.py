"""Names that are equal but for case or spaces: columns of a file, events, arms; keys of a description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import InputError
from crosschannel.histories.buckets import open_buckets, write_buckets
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import read_history, write_history
from crosschannel.histories.readers.tables import TableMapping, TableSource, read_tables

MODULES = ({"name": "channel", "actions": ["none", "email"]},)


def decisions(**more: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "decision_id": [1, 2],
            "user_id": ["a", "b"],
            "time": "2024-03-04T10:00Z",
            "channel": ["none", "email"],
            **more,
        }
    )


def happened(*names: str) -> pd.DataFrame:
    days = pd.date_range("2024-03-04T10:00Z", periods=len(names) + 1)[1:]
    return pd.DataFrame({"user_id": "a", "time": days, "event": names})


def history(events: pd.DataFrame, **more: Any) -> History:
    return History.from_tables(decisions(**more), events, ActionSpace([Module("channel", ("none", "email"))]))


def mapping(folder: Path, *, kind: str = "csv", users: TableSource | None = None, **columns: Any) -> TableMapping:
    frame = decisions(**columns)
    getattr(frame, f"to_{kind}")(folder / f"d.{kind}", index=False)
    happened("order").to_csv(folder / "e.csv", index=False)
    return TableMapping(TableSource(folder / f"d.{kind}"), (TableSource(folder / "e.csv"),), MODULES, users)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", ["Propensity", " propensity", "PROPENSITY ", "propensity-channel", "Arm", "\ufeffarm"])
def test_a_native_column_in_another_spelling_is_not_ignored(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(InputError, match="but for case or spaces, so that the column would be ignored") as caught:
        read_tables(mapping(tmp_path, kind=kind, **{name: [0.5, 0.5]}))
    assert [fault.column for fault in caught.value.faults] == [name]


def test_a_second_column_in_another_spelling_is_not_ignored(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'user_id' but for case or spaces"):
        read_tables(mapping(tmp_path, **{"User ID": ["x", "y"]}))
    assert read_tables(mapping(tmp_path, **{"note": ["x", "y"]})).n_users == 2


def test_a_mapped_column_may_stand_beside_another(tmp_path: Path) -> None:
    frame = decisions().rename(columns={"time": "sent_at"}).assign(Time="yesterday")
    frame.to_csv(tmp_path / "d.csv", index=False)
    happened("order").to_csv(tmp_path / "e.csv", index=False)
    source = TableSource(tmp_path / "d.csv", {"time": "sent_at"})
    assert len(read_tables(TableMapping(source, (TableSource(tmp_path / "e.csv"),), MODULES)).decisions) == 2


@pytest.mark.parametrize("line", ["user_id,age,age", "user_id,user_id,age"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "u.csv").write_text(f"{line}\na,1,2\nb,3,4\n")
    with pytest.raises(InputError, match="two columns have this name"):
        read_tables(mapping(tmp_path, users=TableSource(tmp_path / "u.csv")))


def test_a_renamed_attribute_does_not_replace_another(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("user_id,age,years\na,1,2\nb,3,4\n")
    with pytest.raises(InputError, match="takes 'age' from 'years', but the file has a column of this name"):
        read_tables(mapping(tmp_path, users=TableSource(tmp_path / "u.csv", {"age": "years"})))
    found = read_tables(mapping(tmp_path, users=TableSource(tmp_path / "u.csv", {"age": "years", "old": "age"})))
    assert found.users is not None
    assert found.users["age"].tolist() == [2, 4]
    assert found.users["old"].tolist() == [1, 3]


def test_events_with_spaces_at_their_ends_are_refused() -> None:
    with pytest.raises(InputError, match=r"row 2, value 'order '.*without spaces at its ends"):
        history(happened("order", "order ", "order"))
    assert history(happened("order ", "order ")).event_names == ("order ",)


def test_events_and_arms_that_differ_in_case_are_noted() -> None:
    found = history(happened("order", "Order"), arm=["Holdout", "holdout"])
    assert "events: 'Order' and 'order' differ only in case" in found.summary()
    assert "arms: 'Holdout' and 'holdout' differ only in case" in found.summary()
    assert history(happened("order", "open"), arm=["a", "b"]).notes == ()
    with pytest.raises(InputError, match="column 'arm', row 2, value 'a '"):
        history(happened("order"), arm=["a", "a "])


def test_an_event_cannot_look_like_a_prefix() -> None:
    with pytest.raises(InputError, match=r"value 'order\*': the event's name ends with \*"):
        history(happened("orders", "order*"))


@pytest.mark.parametrize("name", ["a=b", "a,b", "a/b", "a: b", "a\nb", "a\tb", "=1+1", '"', "é", "a|b", "1e5", "no"])
def test_any_other_name_of_an_event_survives(tmp_path: Path, name: str) -> None:
    found = history(happened(name, "order"))
    write_history(found, tmp_path / "log")
    assert set(read_history(tmp_path / "log").event_names) == {name, "order"}


@pytest.mark.parametrize("name", ["1e5", "no", "21:00", "007", "a: b", "0x1F", "~", "1_000", ".5", "=", "a,b"])
def test_any_name_of_an_action_survives(tmp_path: Path, name: str) -> None:
    space = ActionSpace([Module("channel", ("none", name))])
    given = decisions(eligible_channel=[f"none|{name}"] * 2).assign(channel=["none", name])
    found = History.from_tables(given, happened("order", "order"), space)
    write_history(found, tmp_path / "log")
    again = read_history(tmp_path / "log")
    assert again.modules == space
    np.testing.assert_array_equal(again.eligible, found.eligible)


def test_a_key_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    write_history(history(happened("order")), tmp_path / "log")
    with (tmp_path / "log" / "history.yaml").open("a") as file:
        file.write("name: another\n")
    with pytest.raises(InputError, match="the key 'name' occurs twice"):
        read_history(tmp_path / "log")
    write_buckets(history(happened("order")), tmp_path / "buckets", 2)
    manifest = tmp_path / "buckets" / "buckets.json"
    manifest.write_text(manifest.read_text().replace('"buckets": 2', '"buckets": 2, "buckets": 4'))
    with pytest.raises(InputError, match="the key 'buckets' occurs twice"):
        open_buckets(tmp_path / "buckets")


@pytest.mark.parametrize("text", ["{", "[1]", "7", "", '{"format": "crosschannel buckets", "version": 2}', "NaN"])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    write_buckets(history(happened("order")), tmp_path, 2)
    (tmp_path / "buckets.json").write_text(text)
    with pytest.raises(InputError, match=r"buckets\.json"):
        open_buckets(tmp_path)
