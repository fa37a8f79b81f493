"""The Starbucks rewards files: a small folder made here, and the real one where it is present."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import History
from crosschannel.histories.readers.datasets import DATASETS, read_dataset
from crosschannel.histories.readers.datasets.starbucks import LOG_START, read_starbucks_rewards
from crosschannel.histories.readers.folder import read_history, write_history
from tests import SHARED_DATA

REAL = SHARED_DATA / "starbucks_rewards"

OFFERS: list[dict[str, Any]] = [
    {"id": "o1", "offer_type": "discount", "reward": 2, "difficulty": 10, "duration": 7.0, "channels": ["web"]},
    {"id": "o2", "offer_type": "bogo", "reward": 5, "difficulty": 5, "duration": 5.0, "channels": ["email", "web"]},
    {"id": "o3", "offer_type": "informational", "reward": 0, "difficulty": 0, "duration": 3.0, "channels": []},
    {"id": "o4", "offer_type": "discount", "reward": 2, "difficulty": 10, "duration": 10.0, "channels": ["web"]},
]
PEOPLE: list[dict[str, Any]] = [
    {"id": "ann", "gender": "F", "age": 55, "income": 72000.0, "became_member_on": "20180726"},
    {"id": "bob", "gender": None, "age": 118, "income": None, "became_member_on": "20170730"},
]


def line(person: str, event: str, time: int, **value: object) -> dict[str, Any]:
    return {
        "person": person,
        "event": event,
        "value": {k.replace("__", " "): v for k, v in value.items()},
        "time": time,
    }


LOG: list[dict[str, Any]] = [
    line("ann", "offer received", 0, offer__id="o4"),
    line("ann", "offer viewed", 0, offer__id="o4"),
    line("ann", "transaction", 6, amount=12.25),
    line("ann", "offer completed", 6, offer_id="o4", reward=2),
    line("ann", "offer received", 168, offer__id="o2"),
    line("bob", "offer received", 168, offer__id="o3"),
    line("bob", "transaction", 170, amount=0.83),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in (("portfolio", OFFERS), ("profile", PEOPLE), ("transcript", LOG)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if name == "transcript":
            (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (tmp_path / f"{name}.json").write_text(text)
    return tmp_path


def rewrite(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{name}.json.gz").unlink(missing_ok=True)
    (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_user_has_a_slot_in_every_wave(folder: Path):
    history = read_starbucks_rewards(folder)
    d = history.decisions
    assert history.user_ids.tolist() == ["ann", "bob"]
    assert d.id.tolist() == ["ann@0", "ann@168", "bob@0", "bob@168"]
    assert ((d.time - LOG_START) // HOUR).tolist() == [0, 168, 0, 168]
    assert history.modules.names_of(d.actions) == [
        ("discount", "discount_2_for_10_in_10d"),
        ("bogo", "bogo_5_for_5_in_5d"),
        ("none",),
        ("informational", "informational_in_3d"),
    ]
    np.testing.assert_allclose(d.propensity, [[0.375, 0.5], [0.1875, 1], [0.25, 1], [0.1875, 1]], rtol=1e-15)
    np.testing.assert_allclose(d.joint, [0.1875, 0.1875, 0.25, 0.1875], rtol=1e-15)
    assert history.propensity_source == "by design"


def test_modules_follow_the_portfolio(folder: Path):
    kind, variant = read_starbucks_rewards(folder).modules
    assert kind.actions == ("none", "bogo", "discount", "informational")
    assert variant.parent == "offer_type"
    assert variant.requires == ("discount", "bogo", "informational", "discount"), "in the portfolio's order"
    assert variant.labels["bogo_5_for_5_in_5d"] == {
        "reward": 5.0,
        "difficulty": 5.0,
        "duration": 5.0,
        "channels": ["email", "web"],
    }


def test_events_stand_half_an_hour_into_their_hour(folder: Path):
    history = read_starbucks_rewards(folder)
    e = history.events
    assert history.event_names == ("offer completed", "offer viewed", "transaction")
    rows = [
        (e.user[i], history.event_names[e.event[i]], (e.time[i] - LOG_START) / HOUR, e.value[i]) for i in range(len(e))
    ]
    assert rows == [
        (0, "offer viewed", 0.5, 1.0),
        (0, "offer completed", 6.5, 2.0),
        (0, "transaction", 6.5, 12.25),
        (1, "transaction", 170.5, 0.83),
    ]
    assert history.span == (LOG_START, LOG_START + 171 * HOUR)


def test_what_users_withheld_is_missing(folder: Path):
    users = read_starbucks_rewards(folder).users
    expected = pd.DataFrame(
        {
            "user_id": ["ann", "bob"],
            "age": [55.0, np.nan],
            "income": [72000.0, np.nan],
            "gender": ["F", "missing"],
            "member_days": [4.0, 365.0],
        }
    )
    pd.testing.assert_frame_equal(users, expected, check_dtype=False)


def test_the_native_folder_keeps_it(folder: Path, tmp_path: Path):
    history = read_dataset("starbucks_rewards", folder)
    write_history(history, tmp_path / "native")
    again = read_history(tmp_path / "native")
    assert again.modules == history.modules
    np.testing.assert_array_equal(again.events.value, history.events.value)
    pd.testing.assert_frame_equal(again.users, history.users)


@pytest.mark.parametrize(
    ("name", "row", "change", "column", "problem"),
    [
        ("transcript", 3, {"person": "eve"}, "person", "not in the profile"),
        ("transcript", 2, {"value": {"offer id": "o9"}}, "value", "not in the portfolio"),
        ("transcript", 4, {"value": {"offer id": "o4", "reward": 2}}, "value", "not in the portfolio"),
        ("transcript", 3, {"value": {"amount": "much"}}, "value", "missing or not a number"),
        ("transcript", 3, {"value": {}}, "value", "missing or not a number"),
        ("transcript", 3, {"value": 12.5}, "value", "not a mapping"),
        ("transcript", 3, {"time": 6.5}, "time", "not a non-negative integer"),
        ("transcript", 3, {"time": -1}, "time", "not a non-negative integer"),
        ("transcript", 3, {"event": "refund"}, "event", "the event is unknown"),
        ("transcript", 6, {"person": "ann"}, "person", "another offer in the same hour"),
        ("profile", 2, {"id": "ann"}, "id", "an earlier row has the same id"),
        ("profile", 2, {"became_member_on": "2017-07-30"}, "became_member_on", "not a date"),
        ("portfolio", 4, {"id": "o1"}, "id", "an earlier row has the same id"),
        ("portfolio", 4, {"duration": 7.0}, "id", "same type, reward, difficulty and duration"),
        ("portfolio", 2, {"difficulty": "five"}, "difficulty", "not a number"),
        ("portfolio", 2, {"reward": -1}, "reward", "negative or infinite"),
        ("portfolio", 2, {"reward": 10**400}, "reward", "negative or infinite"),
        ("portfolio", 2, {"reward": [5]}, "reward", "not a number"),
        ("portfolio", 2, {"duration": 0}, "duration", "not a number of days from 1 to 3,660"),
        ("portfolio", 2, {"duration": 1e300}, "duration", "not a number of days from 1 to 3,660"),
        ("portfolio", 2, {"channels": None}, "channels", "not a list of texts"),
        ("portfolio", 2, {"channels": "web"}, "channels", "not a list of texts"),
        ("portfolio", 2, {"channels": ["web", {}]}, "channels", "not a list of texts"),
        ("portfolio", 2, {"offer_type": {"a": 1}}, "offer_type", "a list or an object"),
        ("portfolio", 2, {"id": ["o2"]}, "id", "a list or an object"),
        ("profile", 2, {"id": {"a": 1}}, "id", "a list or an object"),
        ("profile", 2, {"age": {}}, "age", "not a number"),
        ("profile", 2, {"income": [1]}, "income", "not a number"),
        ("profile", 2, {"gender": ["F"]}, "gender", "a list or an object"),
        ("profile", 2, {"became_member_on": "today"}, "became_member_on", "not a date"),
        ("profile", 2, {"became_member_on": "20991231"}, "became_member_on", "after 2018-07-30"),
        ("profile", 2, {"became_member_on": [20170730]}, "became_member_on", "not a date"),
        ("transcript", 3, {"time": math.inf}, "time", "not a non-negative integer"),
        ("transcript", 3, {"time": 10**30}, "time", "not a non-negative integer"),
        ("transcript", 3, {"time": 2**53}, "time", "not a non-negative integer"),
        ("transcript", 3, {"time": {}}, "time", "not a non-negative integer"),
        ("transcript", 3, {"event": []}, "event", "the event is unknown"),
        ("transcript", 3, {"value": {"amount": {}}}, "value", "missing or not a number"),
        ("transcript", 3, {"value": {"amount": 10**400}}, "value", "missing or not a number"),
        ("transcript", 2, {"value": {"offer id": ["o4"]}}, "value", "not in the portfolio"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, name: str, row: int, change: dict[str, Any], column: str, problem: str):
    rows = {"transcript": LOG, "profile": PEOPLE, "portfolio": OFFERS}[name]
    rewrite(folder, name, [entry | change if i == row - 1 else entry for i, entry in enumerate(rows)])
    with pytest.raises(InputError) as caught:
        read_starbucks_rewards(folder)
    places = {(Path(f.file).name, f.column, f.row): f for f in caught.value.faults}
    fault = places[f"{name}.json", column, row]
    assert problem in fault.problem
    assert fault.remedy


def test_a_broken_line_is_named_with_its_number(folder: Path):
    path = folder / "profile.json"
    path.write_text(path.read_text() + '{"id": "cem", "gen')
    with pytest.raises(InputError, match=r"profile\.json, row 3, value .*this line is not JSON"):
        read_starbucks_rewards(folder)
    path.write_text("")
    with pytest.raises(InputError, match=r"profile\.json: the file is empty"):
        read_starbucks_rewards(folder)
    (folder / "transcript.json.gz").write_bytes((folder / "transcript.json.gz").read_bytes()[:60])
    path.unlink()
    with pytest.raises(InputError, match=r"profile\.json: there is no such file, nor one that ends in \.json\.gz"):
        read_starbucks_rewards(folder)


def test_a_file_that_was_cut_off_is_refused(folder: Path):
    path = folder / "transcript.json.gz"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"transcript\.json\.gz.* cannot be read"):
        read_starbucks_rewards(folder)


def test_a_file_without_its_columns_or_sends_is_refused(folder: Path):
    rewrite(folder, "profile", [{key: p[key] for key in p if key != "age"} for p in PEOPLE])
    with pytest.raises(InputError, match=r"profile\.json, column 'age': the column is missing"):
        read_starbucks_rewards(folder)
    rewrite(folder, "profile", PEOPLE)
    rewrite(folder, "transcript", [entry for entry in LOG if entry["event"] != "offer received"])
    with pytest.raises(InputError, match="no offer was received"):
        read_starbucks_rewards(folder)


def test_a_log_of_another_design_is_refused(folder: Path):
    people = [PEOPLE[0] | {"id": f"p{i}"} for i in range(400)]
    rewrite(folder, "profile", people)
    rewrite(folder, "transcript", [line(f"p{i}", "offer received", 0, offer__id="o1") for i in range(300)])
    with pytest.raises(InputError, match=r"in_7d was sent in 75\.0% of the slots, but by design it is 18\.8%"):
        read_starbucks_rewards(folder)


def test_an_unknown_data_set_names_the_nearest():
    assert "starbucks_rewards" in DATASETS
    with pytest.raises(ConfigError, match="Did you mean 'starbucks_rewards'"):
        read_dataset("starbuck_reward", Path())


@pytest.fixture(scope="module")
def real() -> History:
    if not (REAL / "portfolio.json").is_file():
        pytest.skip(f"the Starbucks rewards files are not at {REAL}")
    return read_starbucks_rewards(REAL)


def test_real_slots_and_shares(real: History):
    d, e = real.decisions, real.events
    assert real.n_users == 11_975
    assert len(d) == 11_975 * 6
    assert sorted(set(((d.time - LOG_START) // HOUR).tolist())) == [0, 168, 336, 408, 504, 576]
    sent = real.modules.sends(d.actions).reshape(-1, 6)
    assert sent.sum() == 53_646
    # Four standard errors of a share of .75 among 11,975 users.
    assert (np.abs(sent.mean(axis=0) - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 11_975)).all()
    assert len(e) == 215_518 - 53_646
    counts = dict(zip(real.event_names, np.bincount(e.event).tolist(), strict=True))
    assert counts == {"offer completed": 23_475, "offer viewed": 40_577, "transaction": 97_820}
    assert real.span == (LOG_START, LOG_START + 715 * HOUR)
    assert len(real.modules[1].actions) == 10
    assert np.allclose(d.joint[sent.reshape(-1)], 0.075)
    assert np.allclose(d.joint[~sent.reshape(-1)], 0.25)


def test_real_sends_come_first_in_their_hour(real: History):
    log = pd.read_json(REAL / "transcript.json.gz", lines=True, dtype=False)
    received = log["event"] == "offer received"
    assert log["time"].is_monotonic_increasing
    later = (~received).groupby(log["time"]).cummax()
    assert not (received & later).any(), "an offer was listed after another event of its hour"


def test_real_times_reproduce_the_reference_differences(real: History):
    """Spend clipped at 100, 72 h after minus 72 h before, sent minus not sent, by wave."""
    d, e = real.decisions, real.events
    paid = e.event == real.event_codes(["transaction"])[0]
    user, time, value = e.user[paid], e.time[paid], e.value[paid]
    sent = real.modules.sends(d.actions).reshape(-1, 6)
    moments = d.time.reshape(-1, 6)[0]
    figures = []
    for wave, t in enumerate(moments[1:], start=1):
        after = np.bincount(user, value * ((time > t) & (time <= t + 3 * DAY)), real.n_users).clip(max=100)
        ahead = np.bincount(user, value * ((time >= t - 3 * DAY) & (time < t)), real.n_users).clip(max=100)
        change, got = after - ahead, sent[:, wave]
        a, b = change[got], change[~got]
        se = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
        figures.append((round(a.mean() - b.mean(), 3), round(se, 3)))
    assert figures == [(5.244, 0.366), (5.547, 0.369), (3.840, 0.418), (4.515, 0.425), (3.375, 0.434)]
