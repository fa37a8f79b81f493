"""Read the public Starbucks rewards files (transcript, profile, portfolio) as a history of six waves of sends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import Fault, raise_faults
from crosschannel.core.table_validator import TableValidator, to_floats
from crosschannel.core.times import DAY, HOUR, to_utc
from crosschannel.histories.history import History
from crosschannel.histories.readers.source_files import fail, read_json_lines

LOG_START = int(np.datetime64("2018-07-30T00:00:00", "us").astype(np.int64))
"""Hour 0 of the log, in microseconds. The files have no dates; this Monday is arbitrary, but later than the last
joining date (2018-07-26), so that no user joins after the start of the log."""

SEND_PROBABILITY = 0.75
#: Later hours, and offers that are valid for more days, are not of this log.
MAX_HOUR, MAX_DAYS = 24 * 366 * 10, 3660
#: Shares of offers may differ from the design by this number of standard errors.
MAX_STANDARD_ERRORS = 5.0

RECEIVED = "offer received"
#: For each event, the key of its offer or its amount.
KEY_OF_EVENT = {
    RECEIVED: "offer id",
    "offer viewed": "offer id",
    "offer completed": "offer_id",
    "transaction": "amount",
}


def read_starbucks_rewards(path: Path) -> History:
    """Read a folder with `transcript`, `profile` and `portfolio`, each as .json or .json.gz (one object per line).

    - **Decisions.** Each hour in which an offer was received is a wave of sends; every user has a slot in every wave,
      sent or not. The modules are `offer_type` and its child `variant` with the labels difficulty, reward, duration
      (days) and channels.
    - **Propensities** are by design, not logged: nothing with probability .25, otherwise each offer with the same
      probability. A file with shares more than five standard errors away from that is refused.
    - **Events** are views, completions (their value is the reward paid) and transactions (the amount).
    - **Times.** The log has hours as integers, and within an hour it lists received offers first. So a send is at the
      beginning of its hour, and other events are half an hour later. With windows (t - pre, t] and (t, t + post], a
      window of 72 h after a send in hour h covers the hours h to h + 71, and one before it the hours h - 72 to h - 1.
    - **Users** have `age` and `income` (NaN if withheld; the files have an age of 118 then), `gender` (`missing` if
      withheld) and `member_days`, the days from joining to `LOG_START`.

    Raises:
        InputError: With the faults of the files, each with its line.
    """
    files = {name: _locate(path, name) for name in ("portfolio", "profile", "transcript")}
    faults: list[Fault] = []
    tables = {name: TableValidator(read_json_lines(file), str(file), faults) for name, file in files.items()}
    tables["portfolio"].require(["id", "offer_type", "reward", "difficulty", "duration", "channels"])
    tables["profile"].require(["id", "age", "gender", "income", "became_member_on"])
    tables["transcript"].require(["person", "event", "value", "time"])
    raise_faults(faults)
    offers = _offers(tables["portfolio"])
    users = _users(tables["profile"])
    log = _log(tables["transcript"], offers.ids, pd.Index(users["user_id"]))
    raise_faults(faults)

    waves, offer = _slots(log, len(users), tables["transcript"])
    _check_design(offer, offers, tables["transcript"])
    raise_faults(faults)
    user, wave = np.divmod(np.arange(offer.size), len(waves))
    actions = offers.actions[offer.reshape(-1)]
    ids = users["user_id"].to_numpy(dtype=object)[user]
    kind, variant = (np.asarray(module.actions, dtype=object)[actions[:, m]] for m, module in enumerate(offers.modules))
    variant[actions[:, 0] == 0] = None
    hours = waves[wave]
    decisions = pd.DataFrame(
        {
            "decision_id": ids + "@" + hours.astype(str).astype(object),
            "user_id": ids,
            "time": _moment(LOG_START + hours * HOUR),
            "offer_type": kind,
            "variant": variant,
            "propensity_offer_type": offers.propensity[offer.reshape(-1), 0],
            "propensity_variant": offers.propensity[offer.reshape(-1), 1],
        }
    )
    kept = log["event"] != RECEIVED
    events = pd.DataFrame(
        {
            "user_id": users["user_id"].to_numpy(dtype=object)[log.loc[kept, "user"]],
            "time": _moment(LOG_START + log.loc[kept, "hour"].to_numpy() * HOUR + HOUR // 2),
            "event": log.loc[kept, "event"].to_numpy(dtype=object),
            "value": log.loc[kept, "amount"].to_numpy(),
        }
    )
    last = int(log["hour"].max()) + 1
    history = History.from_tables(
        decisions,
        events,
        offers.modules,
        users,
        span=(LOG_START, LOG_START + last * HOUR),
        propensity_source="by design",
        name="starbucks_rewards",
    )
    # Members existed before the log began, whether or not they were active at once.
    return history.with_observed_from("log")


@dataclass(frozen=True)
class _Offers:
    """The J offers: `ids` in the file's order, `modules`, and `actions` and `propensity` by code (0 is nothing)."""

    ids: pd.Index
    modules: ActionSpace
    actions: IntArray
    propensity: FloatArray


def _locate(path: Path, name: str) -> Path:
    for candidate in (path / f"{name}.json", path / f"{name}.json.gz"):
        if candidate.is_file():
            return candidate
    remedy = "Name the folder that holds transcript, profile and portfolio, each as .json or .json.gz."
    raise fail(path / f"{name}.json", "there is no such file, nor one that ends in .json.gz", remedy)


def _moment(microseconds: IntArray) -> pd.DatetimeIndex:
    return pd.to_datetime(microseconds.astype("datetime64[us]"), utc=True)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _ids(table: TableValidator, column: str) -> pd.Index:
    ids = pd.Index(table.texts(column), dtype=object)
    table.flag_rows(column, table.missing(column), "the id is missing", "Give every row its id.")
    twice = ids.duplicated() & ~table.missing(column)
    table.flag_rows(column, twice, "an earlier row has the same id", "Keep one row for each id.")
    return ids


def _offers(table: TableValidator) -> _Offers:
    ids = _ids(table, "id")
    kinds = table.texts("offer_type")
    table.flag_rows("offer_type", kinds == "", "the offer has no type", "Add its type.")
    numbers = {}
    for column in ("reward", "difficulty", "duration"):
        numbers[column], missing = table.numbers(column)
        table.flag_rows(column, missing, "the number is missing", "Add it.")
        outside = (numbers[column] < 0) | np.isinf(numbers[column])
        table.flag_rows(column, outside, "the number is negative or infinite", "Correct it.")
    far = (numbers["duration"] <= 0) | (numbers["duration"] > MAX_DAYS)
    table.flag_rows("duration", far, "this is not a number of days from 1 to 3,660", "Correct it.")
    listed = table.frame["channels"].map(_are_texts).to_numpy(dtype=bool)
    table.flag_rows("channels", ~listed, "this is not a list of texts", 'Write it as in ["web", "email"].')
    # Later faults would only be consequences of these.
    raise_faults(table.faults)
    channels = table.frame["channels"].tolist()
    columns = zip(kinds, numbers["reward"], numbers["difficulty"], numbers["duration"], strict=True)
    names = [
        f"{kind}_in_{days:g}d" if reward == difficulty == 0 else f"{kind}_{reward:g}_for_{difficulty:g}_in_{days:g}d"
        for kind, reward, difficulty, days in columns
    ]
    twice = np.asarray(pd.Series(names).duplicated().to_numpy())
    table.flag_rows(
        "id", twice, "another offer has the same type, reward, difficulty and duration", "Merge the two offers."
    )
    raise_faults(table.faults)
    types = sorted(set(kinds))
    labels = {
        name: {column: float(values[j]) for column, values in numbers.items()} | {"channels": list(channels[j])}
        for j, name in enumerate(names)
    }
    modules = ActionSpace(
        [
            Module("offer_type", ("none", *types)),
            Module("variant", tuple(names), parent="offer_type", requires=tuple(kinds), labels=labels),
        ]
    )
    kind = np.array([types.index(name) for name in kinds], dtype=np.int64)
    count = np.bincount(kind)[kind]
    actions = np.stack([kind + 1, np.arange(len(ids))], axis=1)
    chosen = np.stack([SEND_PROBABILITY * count / len(ids), 1 / count], axis=1)
    return _Offers(
        ids=ids,
        modules=modules,
        actions=np.concatenate([np.zeros((1, 2), dtype=np.int64), actions]),
        propensity=np.concatenate([[[1 - SEND_PROBABILITY, 1.0]], chosen]),
    )


def _users(table: TableValidator) -> pd.DataFrame:
    ids = _ids(table, "id")
    age, _ = table.numbers("age")
    income, _ = table.numbers("income")
    joined = to_utc(pd.Series(table.texts("became_member_on")), "%Y%m%d")
    table.flag_rows("became_member_on", joined.isna().to_numpy(), "this is not a date", "Write dates as in 20180726.")
    start = pd.Timestamp(LOG_START, unit="us", tz="UTC")
    outside = ((joined < "1990-01-01") | (joined >= start)).to_numpy()
    table.flag_rows("became_member_on", outside, f"the date is before 1990 or after {start:%Y-%m-%d}", "Correct it.")
    gender = table.texts("gender")
    return pd.DataFrame(
        {
            "user_id": np.asarray(ids, dtype=object),
            "age": np.where(age == 118, np.nan, age),
            "income": income,
            "gender": np.where(gender == "", "missing", gender),
            "member_days": ((start - joined).dt.total_seconds() * 1e6 / DAY).to_numpy(),
        }
    )


def _log(table: TableValidator, offers: pd.Index, users: pd.Index) -> pd.DataFrame:
    """Return the transcript as `user` (code), `hour`, `event`, `offer` (code from 1, 0 for none) and `amount`."""
    # Duplicate ids have been flagged already.
    users, offers = users.unique(), offers.unique()
    user = users.get_indexer(pd.Index(table.texts("person"), dtype=object)).astype(np.int64)
    table.flag_rows("person", user < 0, "the user is not in the profile", "Add the user there, or remove the line.")
    hour, missing = table.numbers("time")
    invalid = missing | ~((hour >= 0) & (hour <= MAX_HOUR)) | (np.trunc(hour) != hour)
    table.flag_rows(
        "time",
        invalid,
        f"this is not a non-negative integer up to {MAX_HOUR:,}",
        "Write the hour since the start of the log.",
    )
    event = table.texts("event")
    unknown = ~np.isin(event, list(KEY_OF_EVENT))
    table.flag_rows("event", unknown, "the event is unknown", f"Available: {', '.join(KEY_OF_EVENT)}.")

    is_mapping = table.frame["value"].map(lambda value: isinstance(value, dict)).to_numpy(dtype=bool)
    table.flag_rows("value", ~is_mapping, "this is not a mapping", 'Write it as in {"amount": 4.5}.')
    parts = pd.DataFrame(table.frame["value"].where(is_mapping, {}).tolist()).reindex(
        columns=["offer id", "offer_id", "amount", "reward"]
    )
    about = event != "transaction"
    named = parts["offer_id"].where(event == "offer completed", parts["offer id"]).fillna("").astype(str)
    offer = offers.get_indexer(pd.Index(named, dtype=object)).astype(np.int64)
    table.flag_rows(
        "value",
        about & ~unknown & is_mapping & (offer < 0),
        "the offer is not in the portfolio",
        "Write `offer id` (`offer_id` for completed offers), and add the offer to the portfolio.",
    )
    paid = parts["reward"].where(event == "offer completed", parts["amount"])
    amount = to_floats(paid)
    needs = (event == "offer completed") | (event == "transaction")
    table.flag_rows(
        "value",
        needs & is_mapping & ~np.isfinite(amount),
        "the amount is missing or not a number",
        "Write `amount` for transactions, and `reward` for completed offers.",
    )
    return pd.DataFrame(
        {
            "user": user,
            "hour": np.where(invalid, 0, hour).astype(np.int64),
            "event": event,
            "offer": np.where(about, offer + 1, 0),
            "amount": np.where(needs, amount, np.nan),
        }
    )


def _slots(log: pd.DataFrame, n_users: int, table: TableValidator) -> tuple[IntArray, IntArray]:
    """Return the hours of the waves (W,), and the code of each user's offer in each, (U, W), 0 for nothing."""
    received: BoolArray = log["event"].eq(RECEIVED).to_numpy(dtype=bool)
    if not received.any():
        raise fail(Path(table.file), "no offer was received", "Give the complete transcript.", column="event")
    twice = np.zeros(len(log), dtype=bool)
    twice[received] = log.loc[received, ["user", "hour"]].duplicated().to_numpy()
    table.flag_rows("person", twice, "the user got another offer in the same hour", "Keep one: a slot has one action.")
    waves, wave = np.unique(log.loc[received, "hour"].to_numpy(dtype=np.int64), return_inverse=True)
    offer = np.zeros((n_users, len(waves)), dtype=np.int64)
    offer[log.loc[received, "user"].to_numpy(), wave.reshape(-1)] = log.loc[received, "offer"].to_numpy()
    return waves, offer


def _check_design(offer: IntArray, offers: _Offers, table: TableValidator) -> None:
    """Refuse a file whose shares of offers contradict the propensities, which are assumed and not logged."""
    expected = offers.propensity.prod(axis=1)
    share = np.bincount(offer.reshape(-1), minlength=len(expected)) / offer.size
    error = np.sqrt(expected * (1 - expected) / offer.size)
    far = np.abs(share - expected) > MAX_STANDARD_ERRORS * error
    for code in np.flatnonzero(far):
        name = "nothing" if code == 0 else offers.modules[1].actions[code - 1]
        table.flag(
            f"{name} was sent in {share[code]:.1%} of the slots, but by design it is {expected[code]:.1%}",
            "The file has another design: read it by a column mapping, with its own propensities.",
            column="event",
        )
