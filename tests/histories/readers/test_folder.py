"""The native folder: what is written is read back to the last bit, and a damaged folder says what is damaged."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import InputError
from crosschannel.core.hashing import keys
from crosschannel.core.times import DAY
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.histories.readers.folder import read_history, write_history

START = int(np.datetime64("2024-03-01", "us").astype(np.int64))
MODULES = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module(
            "offer",
            ("small", "large", "gift"),
            parent="channel",
            requires=("email", "email", "push"),
            labels={"large": {"duration": 7.0, "places": ["shop", "web"]}},
        ),
    ]
)


def history(seed: int = 0, *, ids: str = "text", everything: bool = True) -> History:
    rng = np.random.default_rng(seed)
    n, e, users = 300, 500, 30
    first = rng.integers(0, 3, n)
    actions = MODULES.canonical(np.stack([first, np.where(first == 2, 2, rng.integers(0, 2, n))], axis=1))
    share = rng.uniform(0.1, 1.0, (n, 2))
    share[first == 0, 1] = 1.0
    # Some moments hold several events of one user, so that their order is tested, too.
    event_time = START + rng.integers(0, 40, e) * DAY // 4
    # In ascending order, as in every history that was read.
    names = np.sort([f"u{i}" if ids == "text" else 7 * i for i in range(users)])
    decision = np.array([f"d{i}" for i in range(n)], dtype=object)
    eligible = rng.random((n, MODULES.total)) < 0.6
    eligible[np.arange(n), first] = True
    eligible[np.arange(n), 3 + actions[:, 1]] = True
    return History.from_arrays(
        DecisionLog(
            id=decision,
            key=keys(decision),
            user=rng.integers(0, users, n),
            time=START + rng.permutation(n) * 1_000_003,
            actions=actions,
            propensity=share if everything else np.full((n, 2), np.nan),
            joint=share.prod(axis=1) if everything else np.full(n, np.nan),
            policy=np.array([None, "rules"], dtype=object)[rng.integers(0, 2, n)] if everything else None,
            arm=np.array(["holdout", "agent"], dtype=object)[rng.integers(0, 2, n)] if everything else None,
            eligible=eligible if everything else None,
        ),
        EventLog(
            user=rng.integers(0, users, e),
            time=event_time,
            event=rng.integers(0, 2, e),
            value=rng.normal(size=e),
        ),
        modules=MODULES,
        user_ids=names if ids == "integers" else names.astype(object),
        # Not in alphabetical order, and one of them never happens.
        event_names=("visit", "order", "never"),
        span=(START - DAY, START + 11 * DAY + 1),
        users=pd.DataFrame({"user_id": names, "age": rng.normal(size=users), "city": ["A", None, "B"] * 10})
        if everything
        else None,
        propensity_source="by design" if everything else "missing",
        name="a test",
        churn_events=("never", "unsubscribed") if everything else (),
    )


def assert_equal(a: History, b: History) -> None:
    for table in ("decisions", "events"):
        for f in fields(getattr(a, table)):
            left, right = getattr(getattr(a, table), f.name), getattr(getattr(b, table), f.name)
            assert (left is None) == (right is None), f.name
            if left is not None:
                np.testing.assert_array_equal(left, right, err_msg=f.name)
    for name in ("modules", "event_names", "span", "propensity_source", "name", "churn_events"):
        assert getattr(a, name) == getattr(b, name), name
    np.testing.assert_array_equal(a.user_ids, b.user_ids)
    assert (a.users is None) == (b.users is None)
    if a.users is not None and b.users is not None:
        pd.testing.assert_frame_equal(a.users, b.users)


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("ids", ["text", "integers"])
def test_round_trip_is_exact(tmp_path: Path, ids: str, everything: bool):
    before = history(3, ids=ids, everything=everything)
    write_history(before, tmp_path / "log")
    after = read_history(tmp_path / "log")
    assert_equal(before, after)
    np.testing.assert_array_equal(before.user_keys, after.user_keys)


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path):
    write_history(history(1), tmp_path)
    write_history(history(2), tmp_path)
    assert_equal(history(2), read_history(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "decisions.parquet",
        "events.parquet",
        "history.yaml",
        "users.parquet",
    ]


@pytest.mark.parametrize("interrupted_at", [1, 2, 3])
def test_an_interrupted_write_never_looks_complete(tmp_path: Path, monkeypatch, interrupted_at: int):
    write_history(history(1), tmp_path)
    original, calls = pd.DataFrame.to_parquet, []

    def to_parquet(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == interrupted_at:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", to_parquet)
    with pytest.raises(KeyboardInterrupt):
        write_history(history(2), tmp_path)
    with pytest.raises(InputError, match=r"history\.yaml.*its writing was interrupted"):
        read_history(tmp_path)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path):
    good = history(1)
    early = replace(good, decisions=replace(good.decisions, time=good.decisions.time - START))
    with pytest.raises(InputError, match="outside the years"):
        write_history(early, tmp_path / "log")
    assert not (tmp_path / "log").exists()


def spoil(path: Path, **changes: object) -> None:
    content = yaml.safe_load((path / "history.yaml").read_text())
    content |= changes
    kept = {key: value for key, value in content.items() if value != "REMOVED"}
    (path / "history.yaml").write_text(yaml.safe_dump(kept))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 99}, "version 99, but only 'crosschannel history', version 2, can be read"),
        ({"format": "something"}, "the format is 'something'"),
        ({"name": "REMOVED"}, "the key 'name' is missing"),
        ({"modulse": []}, "the key 'modulse' is unknown. Remove it. Did you mean 'modules'?"),
        ({"rows": 7}, "column 'rows', value 7: the value has the wrong type"),
        ({"rows": {"decisions": 300}}, "the number of rows is missing for a table"),
        ({"span": ["yesterday", "today"]}, "the span is not two times"),
        ({"span": ["2024-03-01Z"]}, "the span is not two times"),
        ({"propensity_source": "by desing"}, "this is not a source of propensities. Did you mean 'by design'?"),
        ({"modules": [{"name": "channel"}]}, "a module lacks ['actions']"),
        ({"modules": ["channel"]}, "column 'modules'"),
        ({"event_names": ["visit"]}, "these events are not in history.yaml: order"),
        ({"churn_events": "REMOVED"}, "the key 'churn_events' is missing"),
        ({"churn_events": "visit"}, "column 'churn_events', value 'visit': the value has the wrong type"),
        ({"churn_events": ["closed"]}, "column 'churn_events': the history has no event 'closed'"),
        ({"churn_events": [7]}, "column 'churn_events': the history has no event '7'"),
        ({"attributes": ["user_id", "shoe size"]}, "column 'shoe size': the attribute is missing"),
        ({"rows": {"decisions": 300, "events": 499, "users": 30}}, "has 500 rows, but history.yaml has 499"),
    ],
)  # fmt: skip
def test_a_wrong_description_says_what_is_wrong(tmp_path: Path, changes: dict[str, object], message: str):
    write_history(history(), tmp_path)
    spoil(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        read_history(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_several_faults_of_the_description_at_once(tmp_path: Path):
    write_history(history(), tmp_path)
    spoil(tmp_path, name="REMOVED", span="REMOVED", nmae="x", rows=1)
    with pytest.raises(InputError) as caught:
        read_history(tmp_path)
    assert len(caught.value.faults) == 4


def test_damaged_and_absent_files_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="there is no such folder"):
        read_history(tmp_path / "nowhere")
    write_history(history(), tmp_path)
    whole = (tmp_path / "events.parquet").read_bytes()
    (tmp_path / "events.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"events\.parquet: this cannot be read as Parquet"):
        read_history(tmp_path)
    (tmp_path / "events.parquet").unlink()
    with pytest.raises(InputError, match=r"events\.parquet: there is no such file"):
        read_history(tmp_path)
    (tmp_path / "history.yaml").write_text("a: [1")
    with pytest.raises(InputError, match="this is not YAML"):
        read_history(tmp_path)
    (tmp_path / "history.yaml").write_text("- 1")
    with pytest.raises(InputError, match="not a mapping"):
        read_history(tmp_path)


def test_a_table_that_was_tampered_with_is_validated(tmp_path: Path):
    write_history(history(), tmp_path)
    frame = pd.read_parquet(tmp_path / "decisions.parquet")
    frame.loc[4, "propensity_channel"] = 0.0
    frame.to_parquet(tmp_path / "decisions.parquet")
    with pytest.raises(InputError) as caught:
        read_history(tmp_path)
    (fault,) = caught.value.faults
    assert (fault.file, fault.column, fault.row, fault.value) == (
        str(tmp_path / "decisions.parquet"),
        "propensity_channel",
        5,
        0.0,
    )


@pytest.mark.parametrize(
    ("table", "column", "renamed"),
    [
        *(("users", "observed_from", name) for name in ("observed_from ", "observed_from2", "x")),
        ("users", "shoe size", "shoe size "),
        *(("decisions", "propensity_channel", name) for name in ("propensity_channel ", "propensity_channel2")),
        *(("decisions", "eligible_channel", name) for name in ("eligible_channel ", "eligible_channel2")),
        *(("events", "value", name) for name in ("value ", "value2")),
    ],
)
def test_a_renamed_column_is_refused(tmp_path: Path, table: str, column: str, renamed: str):
    write_history(history(), tmp_path)
    path = tmp_path / f"{table}.parquet"
    frame = pd.read_parquet(path)
    if column not in frame:
        column = next(name for name in frame if name not in ("user_id", "observed_from", "observed_until"))
    frame.rename(columns={column: renamed}).to_parquet(path)
    with pytest.raises(InputError, match=re.escape(repr(renamed))):
        read_history(tmp_path)
