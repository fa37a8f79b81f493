"""Wrong inputs: each gives one clear fault that names file, column, row, value and remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import InputError
from crosschannel.core.times import HOUR
from crosschannel.histories.history import History

MODULES = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("offer", ("long", "short", "tiny"), parent="channel", requires=("email", "email", "push")),
        Module("tone", ("plain", "warm")),
    ]
)
FILES = {"decisions": "log/sends.csv", "events": "log/events.csv", "users": "log/users.csv"}


@dataclass
class Log:
    """Tables without a fault, to be spoilt one at a time."""

    decisions: pd.DataFrame
    events: pd.DataFrame
    users: pd.DataFrame | None
    modules: ActionSpace = MODULES

    def read(self) -> History:
        return History.from_tables(self.decisions, self.events, self.modules, self.users, files=FILES)


def good() -> Log:
    decisions = pd.DataFrame(
        {
            "decision_id": ["a", "b", "c", "d"],
            "user_id": ["ann", "ann", "bob", "cem"],
            "time": ["2024-05-01T10:00:00Z", "2024-05-02 10:00", "2024-05-01T12:00:00+02:00", "2024-05-03"],
            "channel": ["email", "none", "push", "email"],
            "offer": ["long", None, "tiny", "short"],
            "tone": ["warm", None, "plain", "plain"],
            "propensity_channel": [0.5, 0.25, 0.25, 0.5],
            "propensity_offer": [0.5, None, 1.0, 0.5],
            "propensity_tone": [0.4, None, 0.6, 0.6],
            "propensity": [0.1, 0.25, 0.15, 0.15],
            "policy": ["rules", "rules", None, "rules"],
            "eligible_channel": ["none|email|push"] * 4,
            "eligible_offer": ["long|short|tiny", "", "tiny", "short"],
        }
    )
    events = pd.DataFrame(
        {
            "user_id": ["ann", "bob", "cem"],
            "time": ["2024-05-01T11:00:00Z", "2024-05-02T11:00:00Z", "2024-05-02T12:00:00Z"],
            "event": ["order", "open", "order"],
            "value": [12.5, None, 3.0],
        }
    )
    users = pd.DataFrame({"user_id": ["cem", "bob", "ann", "dora"], "age": [30, None, 50, 41]})
    return Log(decisions, events, users)


def put(table: str, column: str, row: int, value: Any) -> Callable[[Log], None]:
    def spoil(log: Log) -> None:
        frame = getattr(log, table)
        frame[column] = frame[column].astype(object)
        frame.loc[row - 1, column] = value

    return spoil


def drop(table: str, *columns: str) -> Callable[[Log], None]:
    return lambda log: setattr(log, table, getattr(log, table).drop(columns=list(columns)))


def rename(table: str, old: str, new: str) -> Callable[[Log], None]:
    return lambda log: setattr(log, table, getattr(log, table).rename(columns={old: new}))


def edit(table: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Log], None]:
    return lambda log: setattr(log, table, change(getattr(log, table)))


def without_users(then: Callable[[Log], None]) -> Callable[[Log], None]:
    def spoil(log: Log) -> None:
        log.users = None
        then(log)

    return spoil


def twice(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: pd.concat([frame, frame[[column]]], axis=1)


# What is spoilt: how; the table, column and row of the fault; its value; words of its problem and of its remedy.
CASES: dict[str, tuple[Callable[[Log], None], tuple[str, str | None, int | None], Any, str, str]] = {
    "a column of decisions is missing": (drop("decisions", "time"),
        ("decisions", "time", None), None, "missing", "Add it"),
    "a missing column has a near name": (rename("decisions", "user_id", "userid"),
        ("decisions", "user_id", None), None, "missing", "Did you mean 'userid'?"),
    "a module has no column": (drop("decisions", "tone"),
        ("decisions", "tone", None), None, "missing", "map one of yours"),
    "a column of events is missing": (drop("events", "event"),
        ("events", "event", None), None, "missing", "Add it"),
    "the users have no id": (rename("users", "user_id", "id"),
        ("users", "user_id", None), None, "missing", "'id'"),
    "two columns have one name": (edit("decisions", twice("tone")),
        ("decisions", "tone", None), None, "two columns", "Rename or drop"),
    "an optional column is misspelt": (rename("decisions", "policy", "polciy"),
        ("decisions", "polciy", None), None, "is unknown", "Did you mean 'policy'?"),
    "the value column is misspelt": (rename("events", "value", "Values"),
        ("events", "Values", None), None, "is unknown", "Did you mean 'value'?"),
    "a propensity column names no module": (rename("decisions", "propensity_offer", "propensity_ofer"),
        ("decisions", "propensity_ofer", None), None, "names no module", "Did you mean 'propensity_offer'?"),
    "an eligible column names no module": (rename("decisions", "eligible_offer", "eligible_offers"),
        ("decisions", "eligible_offers", None), None, "names no module", "Did you mean 'eligible_offer'?"),
    "an attribute has no name": (rename("users", "age", 7),
        ("users", "7", None), None, "not text", "Rename"),
    "the log is empty": (edit("decisions", lambda frame: frame.iloc[:0]),
        ("decisions", None, None), None, "no decisions", "Check the path"),
    "a decision comes twice": (put("decisions", "decision_id", 3, "b"),
        ("decisions", "decision_id", 3), "b", "same id", "Drop the copy"),
    "a decision has no id": (put("decisions", "decision_id", 2, None),
        ("decisions", "decision_id", 2), None, "id is missing", "a unique id"),
    "two decisions at one time": (put("decisions", "time", 2, "2024-05-01T12:00+02:00"),
        ("decisions", "time", 2), "2024-05-01T12:00+02:00",
        "another decision at the same time", "Merge them"),
    "a user id is missing": (put("decisions", "user_id", 1, None),
        ("decisions", "user_id", 1), None, "user id is missing", "Give every row its user"),
    "a user id is empty text": (put("events", "user_id", 2, ""),
        ("events", "user_id", 2), "", "user id is missing", "leave the row out"),
    "a user stands twice in users": (put("users", "user_id", 2, "cem"),
        ("users", "user_id", 2), "cem", "has an earlier row", "one row for each"),
    "a decision's user is unknown": (put("decisions", "user_id", 4, "eve"),
        ("decisions", "user_id", 4), "eve", "not in the table of users", "Add the user"),
    "an event's user is unknown": (put("events", "user_id", 3, "eve"),
        ("events", "user_id", 3), "eve", "not in the table of users", "Add the user"),
    "an event's user never decided": (without_users(put("events", "user_id", 1, "eve")),
        ("events", "user_id", 1), "eve", "not in the decisions", "a table that lists all users"),
    "a time cannot be parsed": (put("decisions", "time", 3, "01/05/2024 10:00"),
        ("decisions", "time", 3), "01/05/2024 10:00", "not a time", "2024-05-01T09:30:00Z"),
    "there is no such day": (put("events", "time", 2, "2024-02-30"),
        ("events", "time", 2), "2024-02-30", "not a time", "`time_format: "),
    "a year is no time": (put("events", "time", 2, "2024"),
        ("events", "time", 2), "2024", "not a time", "state the format"),
    "a time is missing": (put("events", "time", 2, None),
        ("events", "time", 2), None, "time is missing", "Give every row"),
    "a time is a bare number": (edit("events", lambda f: f.assign(time=[1714559400, 2, 3])),
        ("events", "time", 1), 1714559400, "neither a unit", "`time_unit: s`"),
    "a time is far off": (put("events", "time", 1, "1970-01-20T20:15:59Z"),
        ("events", "time", 1), "1970-01-20T20:15:59Z", "outside the years", "Check the unit"),
    "a propensity is 0": (put("decisions", "propensity_channel", 1, 0.0),
        ("decisions", "propensity_channel", 1), 0.0, "above 0", "Log the probability"),
    "a propensity is negative": (put("decisions", "propensity_tone", 3, -0.1),
        ("decisions", "propensity_tone", 3), -0.1, "above 0", "Log the probability"),
    "a propensity is a percentage": (put("decisions", "propensity_channel", 4, 50),
        ("decisions", "propensity_channel", 4), 50, "at most 1", "not a percentage"),
    "the joint propensity is above 1": (put("decisions", "propensity", 2, 1.5),
        ("decisions", "propensity", 2), 1.5, "at most 1", "Log a probability"),
    "a propensity is missing": (put("decisions", "propensity_offer", 3, None),
        ("decisions", "propensity_offer", 3), None, "although the row has those of other modules", "Fill it in"),
    "a propensity is text": (put("decisions", "propensity_channel", 2, "0,25"),
        ("decisions", "propensity_channel", 2), "0,25", "not a number", "`decimal: "),
    "the joint propensity disagrees": (put("decisions", "propensity", 3, 0.25),
        ("decisions", "propensity", 3), 0.25, "propensities is 0.15", "correct one"),
    "one module has propensities": (drop("decisions", "propensity_offer", "propensity_tone"),
        ("decisions", "propensity_channel", None), None,
        "`propensity_offer`, `propensity_tone` are missing", "Log the propensities of all modules"),
    "an action is unknown": (put("decisions", "channel", 3, "pusch"),
        ("decisions", "channel", 3), "pusch",
        "not an action of the module 'channel'", "Did you mean 'push'?"),
    "an action is missing": (put("decisions", "channel", 2, None),
        ("decisions", "channel", 2), None, "action is missing", "Write 'none'"),
    "a sent row lacks an action": (put("decisions", "tone", 4, None),
        ("decisions", "tone", 4), None, "although something was sent", "Name one of the actions"),
    "an action's parent forbids it": (put("decisions", "offer", 1, "tiny"),
        ("decisions", "offer", 1), "tiny",
        "requires 'push' in `channel`, but the row has 'email'", "Correct either column"),
    "an unknown action is eligible": (put("decisions", "eligible_offer", 3, "tiny|hug"),
        ("decisions", "eligible_offer", 3), "tiny|hug", "'hug' is not an action", "joined by |"),
    "the action taken was not eligible": (put("decisions", "eligible_channel", 1, "none|push"),
        ("decisions", "eligible_channel", 1), "none|push", "'email', is not among", "before the decision"),
    "an event has no name": (put("events", "event", 3, ""),
        ("events", "event", 3), "", "no name", "Name the event"),
    "a value is text": (put("events", "value", 3, "3.0 EUR"),
        ("events", "value", 3), "3.0 EUR", "not a number", "plain number"),
    "a value is infinite": (put("events", "value", 1, np.inf),
        ("events", "value", 1), np.inf, "infinite", "Correct it"),
    "a value is NaN": (put("events", "value", 3, np.nan),
        ("events", "value", 3), None, "other events 'order' have one", "Add the value"),
}  # fmt: skip


def test_the_log_that_the_cases_spoil_has_no_fault():
    history = good().read()
    assert len(history.decisions) == 4
    assert len(CASES) >= 20


@pytest.mark.parametrize(("spoil", "place", "value", "problem", "remedy"), list(CASES.values()), ids=list(CASES))
def test_wrong_input(spoil, place, value, problem, remedy):
    table, column, row = place
    log = good()
    spoil(log)
    with pytest.raises(InputError) as caught:
        log.read()
    faults = [f for f in caught.value.faults if (f.file, f.column, f.row) == (FILES[table], column, row)]
    assert len(faults) == 1, str(caught.value)
    fault = faults[0]
    assert problem in fault.problem
    assert remedy in fault.remedy
    if value is None:
        assert row is None or pd.isna(fault.value)
    else:
        assert fault.value == value
    text = str(fault)
    assert text in str(caught.value)
    for part in (FILES[table], column and repr(column), row and f"row {row}", value and repr(value), fault.remedy):
        assert not part or part in text


def test_a_module_may_not_have_the_name_of_a_native_column():
    log = good()
    log.modules = ActionSpace([*MODULES, Module("policy", ("a",))])
    with pytest.raises(InputError, match="a module has the name of another native column"):
        log.read()


def test_faults_of_all_kinds_are_reported_at_once_with_first_row_and_count():
    log = good()
    for spoil in (
        put("decisions", "channel", 2, "sms"),
        put("decisions", "channel", 4, "fax"),
        put("decisions", "propensity_tone", 3, 2.0),
        put("events", "time", 1, "soon"),
        put("users", "user_id", 1, None),
        drop("events", "value"),
    ):
        spoil(log)
    with pytest.raises(InputError) as caught:
        log.read()
    places = {(f.file, f.column, f.row): f for f in caught.value.faults}
    assert places["log/sends.csv", "channel", 2].count == 2
    assert places["log/sends.csv", "channel", 2].value == "sms"
    assert "(2 rows in all)" in str(places["log/sends.csv", "channel", 2])
    assert ("log/sends.csv", "propensity_tone", 3) in places
    assert ("log/events.csv", "time", 1) in places
    assert ("log/users.csv", "user_id", 1) in places
    assert ("log/sends.csv", "user_id", 4) in places, "cem is no longer in the table of users"


def test_tables_become_the_arrays_that_they_say():
    history = good().read()
    d, e = history.decisions, history.events
    assert history.user_ids.tolist() == ["ann", "bob", "cem", "dora"], "sorted, whatever the table's order"
    assert history.users is not None
    np.testing.assert_array_equal(history.users["age"], [50, np.nan, 30, 41])
    assert d.id.tolist() == ["a", "b", "c", "d"]
    assert d.user.tolist() == [0, 0, 1, 2]
    noon = int(np.datetime64("2024-05-01T10:00", "us").astype(np.int64))
    assert (d.time - noon).tolist() == [0, 24 * HOUR, 0, 38 * HOUR], "offsets are honoured, no zone means UTC"
    assert d.actions.tolist() == [[1, 0, 1], [0, 0, 0], [2, 2, 0], [1, 1, 0]]
    np.testing.assert_array_equal(d.propensity, [[0.5, 0.5, 0.4], [0.25, 1, 1], [0.25, 1.0, 0.6], [0.5, 0.5, 0.6]])
    np.testing.assert_array_equal(d.joint, [0.1, 0.25, 0.15, 0.15])
    assert d.policy is not None
    assert d.policy.tolist() == ["rules", "rules", None, "rules"]
    assert d.arm is None
    assert d.eligible is not None
    offers = [[True, True, True], [False, False, False], [False, False, True], [False, True, False]]
    assert d.eligible[:, MODULES.slices[1]].tolist() == offers
    assert d.eligible[:, MODULES.slices[2]].all(), "a module without a column of its own has all actions eligible"
    assert history.event_names == ("open", "order")
    assert e.event.tolist() == [1, 0, 1]
    assert e.value.tolist() == [12.5, 1.0, 3.0], "an event that never has a value counts as 1"
    assert history.propensity_source == "logged"


def test_what_later_modules_hold_has_no_meaning_where_nothing_is_sent():
    log = good()
    log.decisions.loc[1, ["offer", "tone", "propensity_offer"]] = ["anything", "warm", 0.3]
    assert log.read().decisions.actions[1].tolist() == [0, 0, 0]
    assert log.read().decisions.propensity[1].tolist() == [0.25, 1.0, 1.0]


def test_the_joint_propensity_is_the_product_where_it_is_absent():
    log = good()
    drop("decisions", "propensity")(log)
    np.testing.assert_allclose(log.read().decisions.joint, [0.1, 0.25, 0.15, 0.15])


def test_propensities_may_be_absent():
    log = good()
    drop("decisions", *[c for c in log.decisions if c.startswith("propensity")])(log)
    history = log.read()
    assert np.isnan(history.decisions.propensity).all()
    assert np.isnan(history.decisions.joint).all()
    assert history.propensity_source == "missing"


def test_the_only_modules_propensity_is_the_joint_one():
    log = good()
    log.modules = ActionSpace([MODULES[0]])
    log.decisions = log.decisions[["decision_id", "user_id", "time", "channel", "propensity"]]
    history = log.read()
    np.testing.assert_array_equal(history.decisions.propensity[:, 0], history.decisions.joint)


@pytest.mark.parametrize("kind", ["int", "text", "float with a gap", "Int64", "category"])
def test_ids_are_the_same_users_whatever_their_type(kind):
    log = good()
    number = {"ann": 7, "bob": 8, "cem": 9, "dora": 10}
    log.decisions["user_id"] = log.decisions["user_id"].map(number)
    log.users["user_id"] = log.users["user_id"].map(number)
    events = log.events["user_id"].map(number)
    if kind == "float with a gap":
        log.events["user_id"] = events.astype(float)
    else:
        log.events["user_id"] = events.astype({"int": "int64", "text": str, "Int64": "Int64"}.get(kind, kind))
    history = log.read()
    assert [str(u) for u in history.user_ids] == ["7", "8", "9", "10"]
    assert history.events.user.tolist() == [0, 1, 2]


def test_times_may_be_timestamps_of_any_resolution_and_zone():
    text, stamped = good(), good()
    stamped.decisions["time"] = pd.to_datetime(good().decisions["time"], format="ISO8601", utc=True)
    stamped.decisions["time"] = (
        stamped.decisions["time"].dt.tz_convert("Asia/Tokyo").astype("datetime64[ns, Asia/Tokyo]")
    )
    stamped.events["time"] = pd.to_datetime(good().events["time"]).dt.tz_localize(None).astype("datetime64[s]")
    for name in ("decisions", "events"):
        np.testing.assert_array_equal(getattr(text.read(), name).time, getattr(stamped.read(), name).time)


def test_the_order_of_rows_does_not_matter():
    log = good()
    log.users = None
    straight = log.read()
    log.decisions, log.events = log.decisions.iloc[::-1], log.events.iloc[::-1]
    turned = log.read()
    assert straight.user_ids.tolist() == turned.user_ids.tolist() == ["ann", "bob", "cem"]
    for name in ("id", "user", "time", "actions", "propensity", "joint"):
        np.testing.assert_array_equal(getattr(straight.decisions, name), getattr(turned.decisions, name))


def test_a_history_without_events_is_a_history():
    log = good()
    log.events = log.events.iloc[:0]
    assert len(log.read().events) == 0


@pytest.mark.parametrize("name", [" ", "null", "NaN", " none ", np.inf, -np.inf, "undefined", "N/A"])
def test_what_names_no_event_is_a_fault_of_its_row(name):
    events = pd.DataFrame({"user_id": ["a", "a"], "time": "2024-05-01", "event": ["visit", name]})
    decisions = pd.DataFrame({"decision_id": ["d"], "user_id": ["a"], "time": "2024-05-02", "channel": ["none"]})
    with pytest.raises(InputError, match=r"column 'event', row 2.*the event has no name"):
        History.from_tables(decisions, events, ActionSpace([Module("channel", ("none", "email"))]))
