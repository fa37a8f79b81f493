"""Reads the public Starbucks rewards files (transcript, profile, portfolio) as a history of six sending waves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import Fault, InputError
from crosschannel.core.table_validator import Sheet
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories.history import History
from crosschannel.histories.readers.source_files import fail, read_json_lines

EPOCH = int(np.datetime64("2018-07-30T00:00:00", "us").astype(np.int64))
"""Hour 0 of the log, in microseconds. The files do not tell the date; this Monday is arbitrary, but later than the
last joining date (2018-07-26), so that nobody joins after the log has begun."""

SENT_SHARE = 0.75
TOLERATED_ERRORS = 5.0

RECEIVED = "offer received"
# Each event with the key under which it holds its offer or its amount.
KEYS = {RECEIVED: "offer id", "offer viewed": "offer id", "offer completed": "offer_id", "transaction": "amount"}


def read_starbucks_rewards(path: Path) -> History:
    """Reads a folder with `transcript`, `profile` and `portfolio`, each as .json or .json.gz (one object a line).

    - **Decisions.** An hour in which any offer was received is a sending wave; every user has a slot in every wave,
      sent or not. The modules are `offer_type` and, below it, `variant` with the labels difficulty, reward,
      duration (days) and channels.
    - **Propensities** are by design, not logged: nothing with .25, else each offer with the same probability. A file
      whose shares are more than five standard errors away from that is refused.
    - **Events** are views, completions (their value is the reward paid) and transactions (the amount).
    - **Times.** The log counts whole hours, and within each hour it lists what was received before anything else.
      So a send stands at the beginning of its hour, and events stand half an hour into theirs. With windows
      [t - pre, t) and (t, t + post], a window of 72 h after a send in hour h then covers the hours h to h + 71, and
      one before it the hours h - 72 to h - 1.
    - **Users** have `age` and `income` (NaN where withheld; the files write an age of 118), `gender` (`missing` where
      withheld) and `member_days`, the days from joining to `EPOCH`.

    Raises:
        InputError: With the faults found in the files, each with its line.
    """
    files = {name: _locate(path, name) for name in ("portfolio", "profile", "transcript")}
    faults: list[Fault] = []
    sheets = {name: Sheet(read_json_lines(file), str(file), faults) for name, file in files.items()}
    sheets["portfolio"].require(["id", "offer_type", "reward", "difficulty", "duration", "channels"])
    sheets["profile"].require(["id", "age", "gender", "income", "became_member_on"])
    sheets["transcript"].require(["person", "event", "value", "time"])
    _stop(faults)
    offers = _offers(sheets["portfolio"])
    users = _users(sheets["profile"])
    log = _log(sheets["transcript"], offers.ids, pd.Index(users["user_id"]))
    _stop(faults)

    waves, offer = _slots(log, len(users), sheets["transcript"])
    _check_design(offer, offers, sheets["transcript"])
    _stop(faults)
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
            "time": _moment(EPOCH + hours * HOUR),
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
            "time": _moment(EPOCH + log.loc[kept, "hour"].to_numpy() * HOUR + HOUR // 2),
            "event": log.loc[kept, "event"].to_numpy(dtype=object),
            "value": log.loc[kept, "amount"].to_numpy(),
        }
    )
    last = int(log["hour"].max()) + 1
    return History.from_tables(
        decisions,
        events,
        offers.modules,
        users,
        span=(EPOCH, EPOCH + last * HOUR),
        propensity_source="by design",
        name="starbucks_rewards",
    )


@dataclass(frozen=True)
class _Offers:
    """The J offers: `ids` in the file's order, `modules`, and by code (0 is nothing) `actions` and `propensity`."""

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


def _stop(faults: list[Fault]) -> None:
    if faults:
        raise InputError(faults)


def _moment(microseconds: IntArray) -> pd.DatetimeIndex:
    return pd.to_datetime(microseconds.astype("datetime64[us]"), utc=True)


def _ids(sheet: Sheet, column: str) -> pd.Index:
    ids = pd.Index(sheet.texts(column), dtype=object)
    sheet.note(column, sheet.missing(column), "the id is missing", "Give every row its id.")
    twice = ids.duplicated() & ~sheet.missing(column)
    sheet.note(column, twice, "the id stands in the file twice", "Keep one row for each id.")
    return ids


def _offers(sheet: Sheet) -> _Offers:
    ids = _ids(sheet, "id")
    kinds = sheet.texts("offer_type")
    sheet.note("offer_type", kinds == "", "the offer has no type", "Name its type.")
    numbers = {}
    for column in ("reward", "difficulty", "duration"):
        numbers[column], missing = sheet.numbers(column)
        sheet.note(column, missing, "the offer lacks this number", "Write the number.")
    # What follows would only repeat these faults in other words.
    _stop(sheet.faults)
    channels = sheet.frame["channels"].tolist()
    columns = zip(kinds, numbers["reward"], numbers["difficulty"], numbers["duration"], strict=True)
    names = [
        f"{kind}_in_{days:g}d" if reward == difficulty == 0 else f"{kind}_{reward:g}_for_{difficulty:g}_in_{days:g}d"
        for kind, reward, difficulty, days in columns
    ]
    twice = np.asarray(pd.Series(names).duplicated().to_numpy())
    sheet.note("id", twice, "another offer has the same type, reward, difficulty and duration", "Merge the two offers.")
    _stop(sheet.faults)
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
    chosen = np.stack([SENT_SHARE * count / len(ids), 1 / count], axis=1)
    return _Offers(
        ids=ids,
        modules=modules,
        actions=np.concatenate([np.zeros((1, 2), dtype=np.int64), actions]),
        propensity=np.concatenate([[[1 - SENT_SHARE, 1.0]], chosen]),
    )


def _users(sheet: Sheet) -> pd.DataFrame:
    ids = _ids(sheet, "id")
    age, _ = sheet.numbers("age")
    income, _ = sheet.numbers("income")
    joined = pd.to_datetime(pd.Series(sheet.texts("became_member_on")), format="%Y%m%d", errors="coerce")
    sheet.note("became_member_on", joined.isna().to_numpy(), "this is not a date", "Write dates as in 20180726.")
    gender = sheet.texts("gender")
    start = pd.Timestamp(EPOCH, unit="us")
    return pd.DataFrame(
        {
            "user_id": np.asarray(ids, dtype=object),
            "age": np.where(age == 118, np.nan, age),
            "income": income,
            "gender": np.where(gender == "", "missing", gender),
            "member_days": ((start - joined).dt.total_seconds() * 1e6 / DAY).to_numpy(),
        }
    )


def _log(sheet: Sheet, offers: pd.Index, users: pd.Index) -> pd.DataFrame:
    """The transcript as `user` (code), `hour`, `event`, `offer` (code from 1, 0 for none) and `amount`."""
    # Ids that stand in a file twice have been noted already.
    users, offers = users.unique(), offers.unique()
    user = users.get_indexer(pd.Index(sheet.texts("person"), dtype=object)).astype(np.int64)
    sheet.note("person", user < 0, "the user is not in the profile", "Add the user there, or remove the line.")
    hour, missing = sheet.numbers("time")
    odd = missing | ~(hour >= 0) | (hour % 1 != 0)
    sheet.note("time", odd, "this is not a whole number of hours from 0", "Write the hour since the log began.")
    event = sheet.texts("event")
    strange = ~np.isin(event, list(KEYS))
    sheet.note("event", strange, "the event is unknown", f"Known are {', '.join(KEYS)}.")

    is_mapping = sheet.frame["value"].map(lambda value: isinstance(value, dict)).to_numpy(dtype=bool)
    sheet.note("value", ~is_mapping, "this is not a mapping", 'Write it as in {"amount": 4.5}.')
    parts = pd.DataFrame(sheet.frame["value"].where(is_mapping, {}).tolist()).reindex(
        columns=["offer id", "offer_id", "amount", "reward"]
    )
    about = event != "transaction"
    named = parts["offer_id"].where(event == "offer completed", parts["offer id"]).fillna("").astype(str)
    offer = offers.get_indexer(pd.Index(named, dtype=object)).astype(np.int64)
    sheet.note(
        "value",
        about & ~strange & is_mapping & (offer < 0),
        "this names no offer of the portfolio",
        "Write `offer id` (`offer_id` for completed offers), and add the offer to the portfolio.",
    )
    paid = parts["reward"].where(event == "offer completed", parts["amount"])
    amount = pd.to_numeric(paid, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    needs = (event == "offer completed") | (event == "transaction")
    sheet.note(
        "value",
        needs & is_mapping & ~np.isfinite(amount),
        "the amount is missing or not a number",
        "Write `amount` for transactions, and `reward` for completed offers.",
    )
    return pd.DataFrame(
        {
            "user": user,
            "hour": np.where(odd, 0, hour).astype(np.int64),
            "event": event,
            "offer": np.where(about, offer + 1, 0),
            "amount": np.where(needs, amount, np.nan),
        }
    )


def _slots(log: pd.DataFrame, n_users: int, sheet: Sheet) -> tuple[IntArray, IntArray]:
    """Hours of the waves (W,), and what each user got in each, (U, W): 0 nothing, else the offer's code."""
    received: BoolArray = log["event"].eq(RECEIVED).to_numpy(dtype=bool)
    if not received.any():
        raise fail(Path(sheet.file), "no offer was ever received", "Give the whole transcript.", column="event")
    twice = np.zeros(len(log), dtype=bool)
    twice[received] = log.loc[received, ["user", "hour"]].duplicated().to_numpy()
    sheet.note("person", twice, "the user got two offers in one hour", "Keep one: a slot has one action.")
    waves, wave = np.unique(log.loc[received, "hour"].to_numpy(dtype=np.int64), return_inverse=True)
    offer = np.zeros((n_users, len(waves)), dtype=np.int64)
    offer[log.loc[received, "user"].to_numpy(), wave.reshape(-1)] = log.loc[received, "offer"].to_numpy()
    return waves, offer


def _check_design(offer: IntArray, offers: _Offers, sheet: Sheet) -> None:
    """The propensities are inferred, so that a file which speaks against them must not be read as if it did not."""
    expected = offers.propensity.prod(axis=1)
    share = np.bincount(offer.reshape(-1), minlength=len(expected)) / offer.size
    error = np.sqrt(expected * (1 - expected) / offer.size)
    far = np.abs(share - expected) > TOLERATED_ERRORS * error
    for code in np.flatnonzero(far):
        name = "nothing" if code == 0 else offers.modules[1].actions[code - 1]
        sheet.add(
            f"{name} was sent in {share[code]:.1%} of the slots, and the design says {expected[code]:.1%}",
            "This is another design: read the files through a column mapping, with propensities of your own.",
            column="event",
        )
