"""The observation period: wrong clocks do not extend it, and worlds with real pauses keep all their rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.arrays import IntArray
from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import History
from crosschannel.histories.observation.span import Observation, observe
from crosschannel.histories.readers.folder import read_history, write_history
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.mapping import Sends, StreamMapping
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.readers.tables import TableMapping, read_tables
from crosschannel.pipeline.loop.decisions.slot_times import moment_to_decide
from tests.samples import MODULES, random_history

START = int(np.datetime64("2024-03-04T00:00", "us").astype(np.int64))
NONE = np.array([], dtype=np.int64)
World = Callable[[np.random.Generator], tuple[IntArray, IntArray]]


def find(decisions: IntArray, events: IntArray, declared: tuple[int, int] | None = None) -> Observation:
    """Rows are numbered decisions first."""
    time = np.concatenate([decisions, events]).astype(np.int64)
    return observe(time, np.arange(len(time)) >= len(decisions), lambda row: f"row {row}", declared)


def busy(rng: np.random.Generator, days: int = 60, rows: int = 5000) -> tuple[IntArray, IntArray]:
    """A log of an app: one slot a day for 30 users, events at all hours."""
    decisions = START + np.repeat(np.arange(days), 30) * DAY + 9 * HOUR
    return decisions, START + rng.integers(0, days * DAY, rows)


@pytest.mark.parametrize("days", [-8000, -400, -10, 70, 130, 2500])
@pytest.mark.parametrize("table", ["decisions", "events"])
@pytest.mark.parametrize("rows", [1, 3, 18])
def test_rows_with_a_wrong_clock_do_not_extend_the_period(days: int, table: str, rows: int):
    decisions, events = busy(np.random.default_rng(1))
    expected = find(decisions, events)
    assert expected.inside.all()
    assert expected.notes == ()
    odd = START + days * DAY + np.arange(rows) * HOUR
    both = {"decisions": decisions, "events": events}
    both[table] = np.append(both[table], odd)
    found = find(**both)
    assert found.span == expected.span
    assert int((~found.inside).sum()) == rows
    assert f"left out as isolated: {rows} rows" in found.notes[0]
    first = str(odd[0].astype("datetime64[us]").astype("datetime64[m]")).replace("T", " ")
    assert first in found.notes[0]


def test_wrong_clocks_at_both_ends_and_of_many_devices():
    decisions, events = busy(np.random.default_rng(2))
    expected = find(decisions, events)
    odd = START + np.array([-8500, -8500, -8500, -300, -12, 75, 90, 140, 2600, 2601]) * DAY
    found = find(decisions, np.append(events, odd))
    assert found.span == expected.span
    assert np.flatnonzero(~found.inside).tolist() == list(range(len(decisions) + len(events), len(found.inside)))
    assert [note.split(":")[0] for note in found.notes] == ["left out as isolated"] * 2


def test_more_rows_than_chance_are_not_guessed_about():
    """3 % at one time may be phones with an empty battery, or a pilot: only a declared span says which."""
    decisions, events = busy(np.random.default_rng(3))
    odd = np.full(150, START - 8400 * DAY)
    with pytest.raises(ConfigError, match=r"150 of 6,950 rows are 8,400\.\d days or more before all others") as caught:
        find(decisions, np.append(events, odd))
    assert "Set `span`: [2024-03-04T" in str(caught.value)
    with pytest.raises(ConfigError, match="or more after all others"):
        find(decisions, np.append(events, odd + 9000 * DAY))
    declared = int(events.min()), int(events.max())
    found = find(decisions, np.append(events, odd), declared)
    assert found.span == declared
    assert found.notes == ("outside the observation period: 0 decisions or sends, and 150 events",)


def test_many_wrong_clocks_on_one_side_are_not_guessed_about():
    """2 % of the rows, spread over two years: no single gap is long, but together they are most of the time."""
    rng = np.random.default_rng(8)
    decisions, events = busy(rng)
    odd = START + 62 * DAY + rng.integers(0, 730 * DAY, 140)
    with pytest.raises(ConfigError, match="Set `span`"):
        find(decisions, np.append(events, odd))


def test_clocks_that_are_a_few_days_fast_are_named():
    """25 rows in the ten days after the last of 6,800 are no isolated ones, but the summary says how few they are."""
    rng = np.random.default_rng(9)
    decisions, events = busy(rng)
    found = find(decisions, np.append(events, START + 60 * DAY + rng.integers(0, 10 * DAY, 25)))
    assert found.inside.all()
    assert re.match(r"the last \d+\.\d of [67]\d\.\d days have \d\d of 6,825 rows", found.notes[0])


def sparse(rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    return NONE, START + np.cumsum(rng.exponential(5 * DAY, 40)).astype(np.int64)


def small(rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    return START + np.repeat(np.arange(5), 5) * DAY, START + rng.integers(0, 8 * DAY, 12)


def tiny(rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    return START + np.arange(3) * DAY, START + rng.integers(0, 90 * DAY, 4)


def growing(rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Twice as many rows every 15 days, for half a year."""
    return NONE, START + (np.log2(1 + rng.random(10_000) * (2**12 - 1)) / 12 * 180 * DAY).astype(np.int64)


def shop_with_holidays(rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    decisions, events = busy(rng, 90)
    return tuple(t[(t < START + 50 * DAY) | (t > START + 64 * DAY)] for t in (decisions, events))  # type: ignore[return-value]


def back_from_holidays(rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """The log ends on the first day after two weeks without a row."""
    decisions, events = shop_with_holidays(rng)
    return decisions[decisions < START + 65 * DAY], events[events < START + 65 * DAY]


def weekly_campaigns(rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    return START + np.repeat(np.arange(10) * 7, 200) * DAY, START + rng.integers(0, 72 * DAY, 30)


def campaign_then_silence(rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """One campaign, and orders that become rare, with a mean delay of three days."""
    return np.full(10_000, START), START + rng.exponential(3 * DAY, 3000).astype(np.int64)


def outcomes_at_the_end(rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """One decision a user, and what came of it two weeks later: rare, and far from all decisions."""
    return np.full(64_000, START), START + np.full(120, 14 * DAY)


def dates_only(rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    decisions, events = busy(rng)
    return decisions // DAY * DAY, events // DAY * DAY


WORLDS: tuple[World, ...] = (
    *(sparse, small, tiny, growing, shop_with_holidays, back_from_holidays, weekly_campaigns),
    *(campaign_then_silence, outcomes_at_the_end, dates_only),
)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
def test_worlds_with_real_pauses_keep_all_their_rows(world: World):
    """In 100 logs each. Of the campaign's, the last order of one in 300 is as isolated as a wrong clock, by chance."""
    cut = 0
    for seed in range(100):
        decisions, events = world(np.random.default_rng(seed))
        found = find(decisions, events)
        cut += not found.inside.all()
        whole = np.append(decisions, events)
        if found.inside.all():
            assert found.span == (whole.min(), whole.max())
    assert cut <= (3 if world is campaign_then_silence else 0)


def test_a_thin_end_is_named_but_stays():
    """Gaps that grow step by step isolate nothing; whoever knows better declares the span."""
    rng = np.random.default_rng(4)
    decisions, events = busy(rng)
    late = START + 60 * DAY + np.array([22, 214, 1654]) * HOUR
    found = find(decisions, np.append(events, late))
    assert found.inside.all()
    assert found.notes[0].startswith("the last 68.9 of 128.9 days have 3 of 6,803 rows")
    assert "set `span` if not everything was recorded then" in found.notes[0]


@pytest.mark.parametrize(
    ("days", "message"),
    [
        ((60, 0), "ends before it begins"),
        ((5, 5), "ends before it begins, or has no length"),
        ((-36_500, 60), "36,560 days long, but its rows are within 60"),
        ((0, 6_600), "correct the years"),
        ((100, 160), "has none of the 6,800 rows, which are from 2024-03-04"),
        ((-60, -1), "has none of the"),
    ],
)
def test_declared_spans_that_do_not_fit_are_refused(days: tuple[int, int], message: str):
    decisions, events = busy(np.random.default_rng(5))
    with pytest.raises(ConfigError, match=message):
        find(decisions, events, (START + days[0] * DAY, START + days[1] * DAY))


def test_declared_spans_may_be_longer_than_the_rows():
    decisions, events = busy(np.random.default_rng(6))
    for days in ((-30, 90), (0, 365), (10, 50)):
        span = START + days[0] * DAY, START + days[1] * DAY
        assert find(decisions, events, span).span == span
    # A campaign of a day, whose orders were awaited for two months.
    assert find(np.full(500, START), START + np.arange(30) * HOUR, (START, START + 60 * DAY)).notes == ()


def tables(seed: int = 7) -> tuple[pd.DataFrame, pd.DataFrame]:
    history = random_history(seed, users=30, days=20)
    shift = pd.Timedelta(START, unit="us")
    decisions, events = history.decisions_frame(), history.events_frame()
    return decisions.assign(time=decisions["time"] + shift), events.assign(time=events["time"] + shift)


WRONG = pd.Timestamp("2031-01-01T10:00Z")


def with_wrong_clocks() -> tuple[pd.DataFrame, pd.DataFrame]:
    decisions, events = tables()
    decisions.loc[17, "time"], events.loc[40, "time"] = pd.Timestamp("2001-01-01T00:00Z"), WRONG
    return decisions, events


def test_tables_in_memory_name_what_was_left_out(tmp_path: Path):
    decisions, events = tables()
    expected = History.from_tables(decisions.drop(index=17), events.drop(index=40), MODULES)
    found = History.from_tables(*with_wrong_clocks(), MODULES)
    assert found.span == expected.span
    assert found.fingerprint() == expected.fingerprint()
    assert "decisions row 18, 2001-01-01 00:00" in found.summary()
    assert "events row 41, 2031-01-01 10:00" in found.summary()
    # What is written does not have the rows any more, and is read with the same span.
    write_history(found, tmp_path / "log")
    assert read_history(tmp_path / "log").span == expected.span


def test_files_are_named_with_their_rows(tmp_path: Path):
    decisions, events = with_wrong_clocks()
    decisions.to_csv(tmp_path / "d.csv", index=False)
    (tmp_path / "events").mkdir()
    events[:30].to_csv(tmp_path / "events" / "a.csv", index=False)
    events[30:].to_csv(tmp_path / "events" / "b.csv", index=False)
    mapping = TableMapping(
        TableSource(tmp_path / "d.csv"), (TableSource(tmp_path / "events"),), tuple(MODULES.to_dict())
    )
    summary = read_tables(mapping).summary()
    assert f"{tmp_path / 'd.csv'} row 18, 2001-01-01 00:00" in summary
    assert f"{tmp_path / 'events' / 'b.csv'} row 11, 2031-01-01 10:00" in summary
    declared = replace(mapping, span=("2024-03-05", "2024-03-20"))
    assert "outside the observation period: " in read_tables(declared).summary()
    with pytest.raises(ConfigError, match="correct the years"):
        read_tables(replace(mapping, span=("2024-03-05", "2124-03-20")))


def stream(folder: Path) -> StreamMapping:
    decisions, events = tables()
    sends = decisions[decisions["channel"] != "none"].assign(event="Sent")
    rows = pd.concat([events, sends[["user_id", "time", "event", "channel", "offer"]]]).sort_values("time")
    rows.to_csv(folder / "stream.csv", index=False)
    columns = {"channel": "channel", "offer": "offer"}
    return StreamMapping(
        TableSource(folder / "stream.csv"),
        tuple(MODULES.to_dict()),
        (Sends(("Sent",), columns),),
        SlotGrid("1d", "05:00"),
    )


@pytest.mark.parametrize("time", ["2024-08-01T10:00Z", "2031-06-01T10:00Z", "2001-01-01T00:00Z", "2023-11-01T10:00Z"])
@pytest.mark.parametrize("event", ["visit", "Sent"])
def test_one_wrong_clock_makes_no_slot_of_a_stream(tmp_path: Path, time: str, event: str):
    mapping = stream(tmp_path)
    expected = read_stream(mapping)
    path = tmp_path / "stream.csv"
    path.write_text(path.read_text() + f"u003,{time},{event},1.0,email,small\n")
    found = read_stream(mapping)
    assert found.span == expected.span
    assert found.fingerprint() == expected.fingerprint()
    assert f"{path} row " in found.summary()
    assert "left out as isolated: 1 rows" in found.summary()


def test_a_folder_says_where_its_span_is_wrong(tmp_path: Path):
    write_history(History.from_tables(*tables(), MODULES), tmp_path / "log")
    description = tmp_path / "log" / "history.yaml"
    text = description.read_text()
    lines = text.splitlines()
    place = lines.index("span:")
    for first, last in (("2024-03-24", "2024-03-04"), ("1924-03-04", "2024-03-24"), ("2025-03-04", "2025-03-24")):
        lines[place + 1 : place + 3] = [f"- '{first}T00:00:00.000000Z'", f"- '{last}T00:00:00.000000Z'"]
        description.write_text("\n".join(lines) + "\n")
        with pytest.raises(InputError) as caught:
            read_history(tmp_path / "log")
        (fault,) = caught.value.faults
        assert (fault.file, fault.column) == (str(description), "span")


@pytest.mark.parametrize("at", ["2031-01-01T10:00", "2024-12-01", "2001-01-01", "2024-03-04T00:00"])
def test_decisions_are_made_for_a_time_that_the_log_reaches(at: str):
    """Neither for the time of a wrong clock, nor before the log's first decision."""
    history = History.from_tables(*with_wrong_clocks(), MODULES)
    assert moment_to_decide(None, history, 2 * DAY) == history.span[1]
    with pytest.raises(ConfigError, match="is not covered by the log"):
        moment_to_decide(at, history, 2 * DAY)


def test_no_decision_is_made_before_the_first_of_the_log():
    """Orders of years before the first message do not make those years a time of decisions."""
    decisions, events = tables()
    earlier = events.assign(time=events["time"] - pd.Timedelta(days=30))
    history = History.from_tables(decisions, pd.concat([earlier, events]), MODULES)
    first = str(decisions["time"].min())
    with pytest.raises(ConfigError, match="whose first decision is at 2024-03-06 06:00"):
        moment_to_decide("2024-02-20", history, 2 * DAY)
    assert moment_to_decide("2024-03-06T06:01", history, 2 * DAY) > pd.Timestamp(first).timestamp()
