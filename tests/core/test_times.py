"""Time zones and single times: what is not one is refused, whatever pandas or the system would make of it."""

from __future__ import annotations

import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import find_time_zone, parse_moment, to_utc
from crosschannel.histories.guardrails import Guardrails
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import TableSource, span_of

NO_ZONES = ["Europe", "US", "", "Mars/Base", "../UTC", "/etc/passwd", "localtime", "posixrules", "tzlocal()", "+25:00"]


@pytest.mark.parametrize("name", [*NO_ZONES, None, 7, 1.5, "\0", "\ud83d", "x" * 5000])
def test_what_is_not_a_time_zone_is_refused_everywhere(name):
    for use in (
        find_time_zone,
        lambda name: SlotGrid("1d", "10:00", name),
        lambda name: TableSource("log.csv", time_zone=name),
        lambda name: Guardrails(default_time_zone=name),
    ):
        with pytest.raises(ConfigError, match="unknown time zone"):
            use(name)


@pytest.mark.parametrize(
    ("name", "hours"), [("Europe/Berlin", 1), ("UTC", 0), ("Etc/GMT+5", -5), ("+05:30", 5.5), ("UTC-03:00", -3)]
)
def test_a_name_or_an_offset_is_a_time_zone(name: str, hours: float):
    moment = pd.Timestamp("2024-01-15T12:00Z")
    assert moment.tz_convert(find_time_zone(name)).utcoffset() == pd.Timedelta(hours=hours)
    # pandas reads the same name in the same way.
    assert moment.tz_convert(name).utcoffset() == pd.Timedelta(hours=hours)


def test_the_present_is_not_a_time_of_a_log():
    assert to_utc(pd.Series(["now", "today", "24/12/2024"], dtype=object), "%d/%m/%Y").isna().tolist() == [1, 1, 0]
    for text in ("now", "today", "NaT", "nan", "", "10:00", "2024", "1709546400000", None, 20240304.5):
        with pytest.raises(ConfigError, match="is not a time"):
            parse_moment(text)
        with pytest.raises(ConfigError, match="the span is not two times"):
            span_of((text, "2024-05-01"))
    for day in ("now", "today"):
        with pytest.raises(ConfigError, match="is not a day"):
            Guardrails(starts={"offer": {"bonus": day}})
        with pytest.raises(ConfigError, match="time_origin"):
            TableSource("log.csv", time_unit="s", time_origin=day)


def test_a_moment_is_utc_unless_it_says_otherwise():
    expected = pd.Timestamp("2024-05-01T09:30Z").value // 1000
    for text in ("2024-05-01T09:30", "2024-05-01 09:30:00Z", "2024-05-01T11:30+02:00", "2024-05-01T09:30:00 UTC"):
        assert parse_moment(text) == expected
