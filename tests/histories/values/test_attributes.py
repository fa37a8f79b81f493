"""Attributes of users are numbers, dates, booleans or categories, alike for contexts, matching and groups."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.histories.history import History
from crosschannel.histories.readers.tables import TableMapping, TableSource, read_tables
from crosschannel.histories.values.attributes import UserEncoding, attribute_text
from crosschannel.reward.effects.groups import attribute_groups

USERS = 60
INCOME = [round(1000 + 37.25 * i, 2) for i in range(USERS)]
MODULES = ActionSpace([Module("channel", ("none", "email"))])


def log(**attributes: Any) -> History:
    """A history of 60 users with these attributes."""
    decisions = pd.DataFrame(
        {
            "decision_id": np.arange(USERS),
            "user_id": np.arange(USERS),
            "time": pd.Timestamp("2024-03-04", tz="UTC"),
            "channel": ["none", "email"] * (USERS // 2),
        }
    )
    events = pd.DataFrame({"user_id": [0], "time": [pd.Timestamp("2024-03-05", tz="UTC")], "event": ["order"]})
    users = pd.DataFrame({"user_id": np.arange(USERS), **attributes})
    return History.from_tables(decisions, events, MODULES, users, files={"users": "users.csv"})


def columns(history: History) -> dict[str, np.ndarray[Any, Any]]:
    """The raw columns of the context that are of attributes."""
    return dict(UserEncoding.fit(history.users, None, history.span[1]).columns(history.users))


def gaps(values: list[Any], mark: Any) -> list[Any]:
    return [mark if i % 10 == 3 else value for i, value in enumerate(values)]


@pytest.mark.parametrize("mark", [None, "", "NA", "N/A", "null", "None", "nan", "-", "?", "unknown", " NA ", "<NA>"])
def test_numbers_with_gaps_are_numbers_with_a_flag(mark: str | None) -> None:
    history = log(income=gaps([str(one) for one in INCOME], mark))
    found = columns(history)
    assert list(found) == ["user income", "user income missing"]
    np.testing.assert_array_equal(found["user income"], gaps(INCOME, np.nan))
    assert found["user income missing"].sum() == 6
    noted = f"'income' is missing in 6 rows with an entry such as {mark.strip()!r}" if mark else ""
    assert (noted in history.summary()) == bool(mark) or not mark


FORMS: dict[str, Any] = {
    "text": [str(one) for one in INCOME],
    "text with spaces": [f" {one} " for one in INCOME],
    "decimals": [Decimal(str(one)) for one in INCOME],
    "decimals with gaps": gaps([Decimal(str(one)) for one in INCOME], None),
    "floats with gaps": gaps(INCOME, None),
    "texts and numbers": [str(one) if i % 2 else one for i, one in enumerate(INCOME)],
    "category": pd.Categorical([str(one) for one in INCOME]),
    "nullable": pd.array(INCOME, dtype="Float64"),
}


@pytest.mark.parametrize("values", FORMS.values(), ids=FORMS)
def test_numbers_in_every_form(values: Any) -> None:
    found = columns(log(income=values))["user income"]
    known = ~np.isnan(found)
    assert known.sum() >= USERS - 6
    np.testing.assert_array_equal(found[known], np.array(INCOME)[known])


def refused(**attributes: Any) -> tuple[int | None, Any, int, str]:
    with pytest.raises(InputError) as caught:
        log(**attributes)
    (fault,) = caught.value.faults
    assert (fault.file, fault.column) == ("users.csv", next(iter(attributes)))
    assert fault.remedy
    return fault.row, fault.value, fault.count, fault.problem


@pytest.mark.parametrize("form", ["{:,.2f}", "${:.2f}", "{:.2f} EUR", "{:.2f} €", "{:.2f}%", "€ {:.0f}"])
def test_amounts_that_are_not_plain_numbers_are_named(form: str) -> None:
    row, value, count, problem = refused(income=[form.format(one) for one in INCOME])
    assert (row, value, count) == (1, form.format(INCOME[0]), USERS)
    assert "not a plain number" in problem


def test_amounts_with_spaces_and_decimal_commas_are_named() -> None:
    assert refused(income=[f"{one:,.2f}".replace(",", " ").replace(".", ",") for one in INCOME])[2] == USERS
    assert refused(income=[f"{one:.2f}".replace(".", ",") for one in INCOME])[2] == USERS


@pytest.mark.parametrize("word", ["oops", "12a", "1,200.50", "#DIV/0!", "0x1F", "1_000", "²"])
def test_one_stray_word_is_named(word: str) -> None:
    values = [str(one) for one in INCOME]
    values[17] = word
    assert refused(income=values) == (18, word, 1, "this is not a plain number, in a column of numbers")


@pytest.mark.parametrize("value", ["inf", "-Infinity", float("inf"), Decimal("-Infinity"), "1e999", 1e300, "-1e200"])
def test_infinite_and_too_large_numbers_are_named(value: Any) -> None:
    values: list[Any] = list(INCOME) if not isinstance(value, str) else [str(one) for one in INCOME]
    if isinstance(value, Decimal):
        values = [Decimal(str(one)) for one in INCOME]
    values[4] = value
    row, _, count, problem = refused(income=values)
    assert (row, count, problem) == (5, 1, "the value is infinite or too large")


DAYS = [datetime.date(2023, 1, 1) + datetime.timedelta(days=3 * i) for i in range(USERS)]
DATES: dict[str, Any] = {
    "text": [str(day) for day in DAYS],
    "text with a time": [f"{day}T00:00:00Z" for day in DAYS],
    "dates": DAYS,
    "times": pd.to_datetime(DAYS),
    "times with a zone": pd.to_datetime(DAYS).tz_localize("UTC").tz_convert("Asia/Tokyo"),
}


@pytest.mark.parametrize("values", DATES.values(), ids=DATES)
def test_dates_are_days_since(values: Any) -> None:
    history = log(joined=values)
    found = columns(history)
    assert list(found) == ["user days since joined", "user joined missing"]
    assert np.diff(found["user days since joined"]).tolist() == [-3.0] * (USERS - 1)
    end = (pd.Timestamp("2024-03-05") - pd.Timestamp("2023-01-01")).days
    assert found["user days since joined"][0] == end


def test_days_since_count_to_the_end_of_the_training_log() -> None:
    history = log(joined=DAYS)
    encoding = UserEncoding.fit(history.users, None, history.span[1])
    again = UserEncoding.from_dict(encoding.to_dict())
    assert again == encoding
    later = dict(UserEncoding.fit(history.users, None, history.span[1] + DAY).columns(history.users))
    now = dict(again.columns(history.users))
    assert (later["user days since joined"] - now["user days since joined"] == 1).all()


def test_dates_with_gaps_and_faults() -> None:
    texts = [str(day) for day in DAYS]
    found = columns(log(joined=gaps(texts, "NA")))
    assert np.isnan(found["user days since joined"]).sum() == found["user joined missing"].sum() == 6
    texts[7] = "2023-02-30"
    assert refused(joined=texts)[:3] == (8, "2023-02-30", 1)
    american = [f"{day:%m/%d/%Y}" for day in DAYS]
    assert refused(joined=american)[2:] == (USERS, "this is not a date such as 2024-05-01, in a column of dates")
    texts[7] = "soon"
    assert refused(joined=texts)[:3] == (8, "soon", 1)


def test_booleans_are_numbers() -> None:
    truth = [i % 3 == 0 for i in range(USERS)]
    for values in (truth, ["true" if one else "False" for one in truth], pd.array(truth, dtype="boolean")):
        np.testing.assert_array_equal(columns(log(vip=values))["user vip"], truth)
    for values in (gaps(truth, None), gaps(["TRUE" if one else "FALSE" for one in truth], "")):
        found = columns(log(vip=values))
        assert found["user vip missing"].sum() == 6
        np.testing.assert_array_equal(found["user vip"], gaps(truth, np.nan))


CATEGORIES = {
    "words": ["gold", "silver", "none"],
    "sizes": ["38", "40", "42", "S", "M", "L"],
    "ranges": ["18-24", "25-34", "35+"],
    "codes": ["01", "02", "11"],
    "shares": ["5%", "10%", "20%"],
    "a word": ["1", "2", "3", "x"],
    "yes": ["yes", "no"],
}


@pytest.mark.parametrize("levels", CATEGORIES.values(), ids=CATEGORIES)
def test_categories_stay_categories(levels: list[str]) -> None:
    values = [levels[i % len(levels)] for i in range(USERS)]
    history = log(level=values)
    found = columns(history)
    assert list(found) == [f"user level={level}" for level in sorted(levels)]
    assert sum(found.values()).tolist() == [1.0] * USERS
    assert history.notes == ()


def test_versions_and_house_numbers_are_categories() -> None:
    versions = [f"{15 + i % 3}.{i}" + (f".{i % 4}" if i % 5 == 0 else "") for i in range(USERS)]
    houses = [f"{i}a" if i % 9 == 0 else str(i) for i in range(USERS)]
    ranges = [f"{i}-{i + 5}" if i % 9 == 0 else str(i) for i in range(USERS)]
    for values in (versions, houses, ranges):
        history = log(code=values)
        assert len(columns(history)) == 20
        assert "'code' has 60 different texts" in history.summary()


def test_codes_and_free_text_are_categories_and_noted() -> None:
    for values in ([f"{i:05d}" for i in range(USERS)], [f"{i} Main Street" for i in range(USERS)]):
        history = log(code=values)
        assert len(columns(history)) == 20
        assert "'code' has 60 different texts: contexts have the 20 most frequent, which 40 of 60" in history.summary()


def test_columns_without_information_are_noted() -> None:
    history = log(a=[None] * USERS, b=[""] * USERS, c=["x"] * USERS, d=[7] * USERS, e=[[1, 2]] * USERS)
    for text in (
        "'a' has no entry",
        "'b' has ",
        "'c' has only the value x",
        "'d' has only the value 7",
        "'e' is left out",
    ):
        assert f"users: the attribute {text}" in history.summary()
    assert history.users is not None
    assert "e" not in history.users
    assert not any(
        name.startswith("user ") for name in ContextFeatures.fit(history, ContextSpec(windows=("1d",))).names
    )


def test_a_later_log_is_read_as_the_training_log() -> None:
    train = log(income=INCOME, joined=DAYS, town=["A", "B", "C"] * 20, code=["1", "2", "x"] * 20)
    encoding = UserEncoding.fit(train.users, None, train.span[1])
    later = log(income=[None] * USERS, joined=[None] * USERS, town=["Z"] * USERS, code=["1", "2"] * 30)
    found = dict(encoding.columns(later.users))
    assert np.isnan(found["user income"]).all()
    assert found["user income missing"].all()
    assert np.isnan(found["user days since joined"]).all()
    assert not any(found[f"user town={one}"].any() for one in "ABC")
    assert found["user code=1"].tolist() == [1.0, 0.0] * 30, "here the codes alone are numbers"
    for wrong in ({"income": ["a", "b"] * 30}, {"joined": [1.5] * USERS}, {"income": DAYS}):
        other = log(**{"income": INCOME, "joined": DAYS, "town": "A", "code": "1"} | wrong)
        with pytest.raises(ConfigError, match="in the training history, but here it is not"):
            dict(encoding.columns(other.users))
    with pytest.raises(ConfigError, match="lack the attribute 'town'"):
        dict(encoding.columns(log(income=INCOME, joined=DAYS, code=INCOME).users))


def test_groups_and_matching_see_the_same_values() -> None:
    history = log(income=gaps([str(one) for one in INCOME], "NA"), joined=[str(day) for day in DAYS], vip=["true"] * 60)
    income = [label for label, _ in attribute_groups(history, "income")]
    assert len(income) == 5
    assert income[-1] == "income missing"
    joined = attribute_groups(history, "joined")
    assert next(label for label, _ in joined) == "joined 2023-01-01 to 2023-02-14"
    assert sum(mask for _, mask in joined).tolist() == [1] * USERS
    assert [label for label, _ in attribute_groups(history, "vip")] == ["vip True"]


def test_attributes_as_text() -> None:
    assert attribute_text(pd.Series([3.0, np.nan, 2.5])).tolist() == ["3", "(missing)", "2.5"]
    assert attribute_text(pd.Series([3, 10])).tolist() == ["3", "10"]
    assert attribute_text(pd.Series(pd.to_datetime(["2024-01-02", None]))).tolist() == ["2024-01-02", "(missing)"]
    assert attribute_text(pd.Series(["a", None], dtype=object)).tolist() == ["a", "(missing)"]


def test_equal_frequencies_are_ordered_by_the_alphabet() -> None:
    values = [f"town {i:02d}" for i in range(30)]
    found = [UserEncoding.fit(pd.DataFrame({"town": part}), None).categories for part in (values, values[::-1])]
    assert found[0] == found[1] == (("town", tuple(values[:20])),)


def test_an_event_and_an_attribute_cannot_share_a_column() -> None:
    with pytest.raises(ConfigError, match="two columns of the context have the name 'user a=b=c'"):
        ContextFeatures.fit(log(**{"a": ["b=c", "d"] * 30, "a=b": ["c", "d"] * 30}), ContextSpec(windows=("1d",)))


def test_files_of_every_kind_give_the_same_attributes(tmp_path: Path) -> None:
    users = pd.DataFrame(
        {
            "user_id": [f"u{i}" for i in range(USERS)],
            "income": [Decimal(str(one)) for one in gaps(INCOME, "NaN")],
            "joined": DAYS,
            "zip": [f"{i:05d}" for i in range(USERS)],
            "vip": [i % 2 == 0 for i in range(USERS)],
        }
    )
    users.to_parquet(tmp_path / "users.parquet", index=False)
    users.assign(income=users["income"].map(str).replace("NaN", "NA")).to_csv(tmp_path / "users.csv", index=False)
    sends = pd.DataFrame({"decision_id": [1, 2], "user_id": ["u1", "u2"], "time": "2024-03-04", "channel": "email"})
    sends.to_csv(tmp_path / "d.csv", index=False)
    pd.DataFrame({"user_id": ["u1"], "time": "2024-03-05", "event": "order"}).to_csv(tmp_path / "e.csv", index=False)
    found = []
    for name in ("users.parquet", "users.csv"):
        mapping = TableMapping(
            decisions=TableSource(tmp_path / "d.csv"),
            events=(TableSource(tmp_path / "e.csv"),),
            modules=({"name": "channel", "actions": ["none", "email"]},),
            users=TableSource(tmp_path / name),
        )
        found.append(columns(read_tables(mapping)))
    assert list(found[0]) == list(found[1])
    assert "user zip=00000" in found[0]
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])
