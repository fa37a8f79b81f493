"""Events that name the decision whose message they are about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY
from crosschannel.histories.buckets import open_buckets, write_buckets
from crosschannel.histories.history import History
from crosschannel.histories.logs import NO_MESSAGE, UNKNOWN_MESSAGE
from crosschannel.histories.readers.folder import read_history, write_history
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.tables import TableMapping, read_tables
from crosschannel.histories.splits import split_time
from tests.reward.funnel.worlds import EXCLUSION, simulate

MODULES = ActionSpace([Module("channel", ("none", "email"))])


def read(about: list[object], ids: list[object] | None = None) -> History:
    """Two users with two sends each, the second user's decisions first; one event each day after the 5th."""
    decisions = pd.DataFrame(
        {
            "decision_id": ids or ["b1", "b2", "a1", "a2"],
            "user_id": ["bob", "bob", "ann", "ann"],
            "time": ["2024-05-01", "2024-05-03", "2024-05-01", "2024-05-03"],
            "channel": ["email"] * 4,
        }
    )
    events = pd.DataFrame(
        {
            "user_id": ["ann", "bob", "ann", "bob"],
            "time": [f"2024-05-{day:02d}T10:00:00Z" for day in (5, 6, 7, 8)],
            "event": "opened",
            "decision_id": about,
        }
    )
    return History.from_tables(decisions, events, MODULES, files={"events": "events.csv"})


def named(history: History) -> list[object]:
    """What each event names, in the history's order."""
    message = history.events.message
    assert message is not None
    return [history.decisions.id[row] if row >= 0 else int(row) for row in message]


def test_events_name_decisions_of_their_user_in_any_order_of_rows():
    assert named(read(["a2", "b1", None, "b2"])) == ["a2", NO_MESSAGE, "b1", "b2"]


@pytest.mark.parametrize(
    ("ids", "about"),
    [
        ([1, 2, 3, 4], [4, 1, None, 2]),
        ([1, 2, 3, 4], ["4", "1", "", "2"]),
        (["1", "2", "3", "4"], [4, 1, None, 2]),
        ([1, 2, 3, 4], [4.0, 1.0, np.nan, 2.0]),
    ],
    ids=["integers", "text for integers", "integers for text", "numbers with gaps"],
)
def test_ids_may_be_integers_or_text(ids, about):
    assert [str(one) for one in named(read(about, ids))] == ["4", str(NO_MESSAGE), "1", "2"]


def test_without_the_column_events_name_nothing():
    history = simulate(EXCLUSION, 0, 20)
    assert history.events.message is None
    assert "decision_id" not in history.events_frame()


def test_a_column_without_an_id_is_none_for_every_event():
    assert named(read([None] * 4)) == [NO_MESSAGE] * 4


def test_unknown_decisions_are_counted_and_kept_apart():
    history = read(["a2", "elsewhere", None, "b2"])
    assert named(history) == ["a2", NO_MESSAGE, UNKNOWN_MESSAGE, "b2"]
    assert any("1 of 3 events that name a decision name one that is not in the log" in note for note in history.notes)


def test_an_event_before_its_decision_is_counted():
    decisions = read([None] * 4).decisions_frame()
    events = pd.DataFrame(
        {
            "user_id": ["ann", "ann"],
            "time": ["2024-05-02", "2024-05-04"],
            "event": "opened",
            "decision_id": ["a2", "a2"],
        }
    )
    history = History.from_tables(decisions, events, MODULES)
    assert any(note.startswith("1 event with the id of a later decision") for note in history.notes)


def test_another_users_decision_is_a_fault():
    with pytest.raises(InputError, match=r"events.csv.*decision_id.*row 2.*a1.*another user's") as error:
        read(["a2", "a1", None, "b2"])
    assert len(error.value.faults) == 1


def test_a_misspelt_column_is_a_fault():
    decisions = read([None] * 4).decisions_frame()
    events = pd.DataFrame({"user_id": ["ann"], "time": ["2024-05-05"], "event": "opened", "decision_ids": ["a2"]})
    with pytest.raises(InputError, match="Did you mean 'decision_id'"):
        History.from_tables(decisions, events, MODULES)


def test_a_written_history_reads_back(tmp_path):
    history = simulate(EXCLUSION, 1, 60, named=True)
    write_history(history, tmp_path)
    again = read_history(tmp_path)
    np.testing.assert_array_equal(again.events.message, history.events.message)
    assert again.fingerprint() == history.fingerprint()
    assert again.fingerprint() != simulate(EXCLUSION, 1, 60).fingerprint()


@pytest.mark.parametrize("about", [["a2", "elsewhere", None, "b2"], ["elsewhere"] * 4, [None] * 4])
def test_unknown_decisions_are_written_and_read_back(tmp_path, about):
    history = read(about)
    write_history(history, tmp_path)
    assert named(read_history(tmp_path)) == named(history)


def test_unknown_decisions_of_a_log_with_integer_ids_read_back(tmp_path):
    history = read([4, 9, None, 2], [1, 2, 3, 4])
    write_history(history, tmp_path)
    again = read_history(tmp_path)
    np.testing.assert_array_equal(again.events.message, history.events.message)


def test_a_part_of_the_users_keeps_its_links(tmp_path):
    history = simulate(EXCLUSION, 2, 60, named=True)
    chosen = np.arange(60) % 3 == 1
    part = history.select_users(chosen)
    assert named(part) == [one for one, user in zip(named(history), history.events.user, strict=True) if chosen[user]]
    write_buckets(history, tmp_path, 4)
    buckets = [read_history(path) for path in open_buckets(tmp_path).paths]
    assert sorted(str(one) for each in buckets for one in named(each)) == sorted(map(str, named(history)))


def test_a_history_up_to_a_time_keeps_its_links():
    history = simulate(EXCLUSION, 3, 40, named=True)
    until = history.decisions.time.min() + 8 * DAY
    before, _ = split_time(history, int(until))
    kept = history.events.time < until
    assert named(before) == [one for one, keep in zip(named(history), kept, strict=True) if keep]


def test_a_decision_that_is_left_out_is_unknown_to_its_events():
    """One decision has the clock of 2010, is left out with a note, and no other takes its place."""
    history = simulate(EXCLUSION, 4, 60, named=True)
    decisions, events = history.decisions_frame(), history.events_frame()
    message = history.events.message
    assert message is not None
    row = int(message[message >= 0][0])
    decisions.loc[row, "time"] = pd.Timestamp("2010-01-01T10:00:00Z")
    cut = History.from_tables(decisions, events, history.modules)
    assert len(cut.decisions) == len(history.decisions) - 1
    gone = named(history)[int(np.flatnonzero(message == row)[0])]
    assert named(cut) == [UNKNOWN_MESSAGE if one == gone else one for one in named(history)]


def test_the_order_of_given_decisions_does_not_matter():
    history = simulate(EXCLUSION, 5, 40, named=True)
    order = np.random.default_rng(0).permutation(len(history.decisions))
    place = np.argsort(order)
    d, e = history.decisions, history.events
    assert e.message is not None
    shuffled = History.from_arrays(
        type(d)(
            **{name: getattr(d, name)[order] for name in ("id", "key", "user", "time", "actions", "propensity")}
            | {"joint": d.joint[order], "propensity_source": d.propensity_source[order]}
        ),
        replace(e, message=np.where(e.message >= 0, place[e.message], e.message)),
        modules=history.modules,
        user_ids=history.user_ids,
        event_names=history.event_names,
        span=history.span,
        churn_events=(),
    )
    assert shuffled.fingerprint() == history.fingerprint()


SENDS = "msg,who,at,channel\n11,ann,2024-05-01,email\n12,bob,2024-05-01,none\n13,ann,2024-05-03,email\n"
OPENS = "row,msg,who,at\n1,11,ann,2024-05-04\n2,,ann,2024-05-05\n2,,ann,2024-05-05\n3,77,bob,2024-05-05\n"
ORDERS = "who,at\nann,2024-05-02\n"


def tables(folder: Path, opens: str = OPENS, **settings: Any) -> TableMapping:
    for name, text in (("sends", SENDS), ("opens", opens), ("orders", ORDERS)):
        (folder / f"{name}.csv").write_text(text)
    columns = {"user_id": "who", "time": "at"}
    return TableMapping(
        decisions=TableSource(folder / "sends.csv", columns | {"decision_id": "msg"}),
        events=(
            TableSource(
                folder / "opens.csv", columns | {"decision_id": "msg", "message_id": "row"}, {"event": "opened"}
            ),
            TableSource(folder / "orders.csv", columns, {"event": "order"}),
        ),
        modules=({"name": "channel", "actions": ["none", "email"]},),
        **settings,
    )


def test_mapped_tables_name_decisions_in_their_own_columns(tmp_path):
    """Beside the ids of the rows themselves, by which repeats are left out; another file has no such column."""
    history = read_tables(tables(tmp_path, duplicates="keep_first"))
    # Ann's order, the two that she opened, and Bob's, of which the decision is not in the file.
    assert [str(one) for one in named(history)] == [str(NO_MESSAGE), "11", str(NO_MESSAGE), str(UNKNOWN_MESSAGE)]


def test_faults_of_mapped_tables_are_in_their_own_words(tmp_path):
    with pytest.raises(
        InputError, match=r"opens.csv, column 'msg', row 1, value '?12'?: the decision is another user's"
    ):
        read_tables(tables(tmp_path, "row,msg,who,at\n1,12,ann,2024-05-04\n2,11,ann,2024-05-05\n"))


def test_tables_of_sends_have_no_decisions_to_name(tmp_path):
    with pytest.raises(ConfigError, match="unknown native column 'decision_id' of events"):
        tables(tmp_path, slots="sends_only")
