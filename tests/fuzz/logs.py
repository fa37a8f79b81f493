"""Logs in every layout that is read, with what is computed from a log that was accepted."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.errors import CrosschannelError
from crosschannel.core.serialization import to_dict
from crosschannel.core.times import DAY
from crosschannel.histories.buckets import open_buckets, write_buckets
from crosschannel.histories.eligibility import read_eligible
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.history import History
from crosschannel.histories.readers.datasets import read_dataset
from crosschannel.histories.readers.folder import read_history, write_history
from crosschannel.histories.readers.slots import SlotGrid
from crosschannel.histories.readers.sources import TableSource
from crosschannel.histories.readers.stream.reader import read_stream
from crosschannel.histories.readers.tables import TableMapping, read_tables
from crosschannel.pipeline.building import compute_rewards, prepare
from crosschannel.pipeline.configuration import RewardConfig, read_config
from crosschannel.pipeline.reading import build_history
from crosschannel.reward import Goal
from tests.fuzz.target import Target
from tests.histories.readers import test_decided, test_sent_tables
from tests.histories.readers.datasets import test_complete_journey
from tests.histories.readers.datasets.test_starbucks import LOG, OFFERS, PEOPLE
from tests.histories.readers.test_formats import FORMS, mapping, rows
from tests.samples import random_history

TABLES = """
history:
  source: tables
  tables:
    decisions: {path: decisions.csv, time_zone: Europe/Berlin, columns: {time: sent_at}}
    events: [{path: events.csv}, {path: more.parquet, constants: {event: visit}}]
    users: {path: users.csv}
    modules: [{name: channel, actions: [none, email, push]}, {name: offer, actions: [small, large]}]
guardrails: {quiet_hours: ["22:00", "06:00"], time_zone: zone, opted_out: {email: no_mail}}
reward: {goals: [{event: order, measure: value}], pre: 1d, post: 1d, min_controls: 2}
"""
STREAM = """
history:
  source: stream
  stream:
    rows: {path: stream.csv, columns: {message_id: id}}
    modules: [{name: channel, actions: [none, email]}]
    sends: [{events: [Email Sent], constants: {channel: email}}]
    values: {order: properties.total}
    slots: {every: 6h, several: first, at: "10:00", time_zone: Europe/Berlin}
    duplicates: keep_first
reward: {goals: [{event: order}], pre: 12h, post: 12h, min_controls: 2}
"""
#: The forms of a stream that differ in how they are parsed, with settings that are not the default.
STREAM_FORMS: dict[str, dict[str, Any]] = {
    "a.tsv": {},
    "a.csv.gz": {},
    "b.zip": {},
    "latin.csv": {"time_zone": "Europe/Berlin"},
    "utf16.csv": {},
    "a.jsonl": {},
    "array.json": {"time_zone": "America/New_York"},
    "text.parquet": {},
    "nested.parquet": {"time_zone": "Europe/Berlin"},
}
START = pd.Timestamp("2024-03-04", tz="UTC")


def _summarized(history: History) -> str:
    """Return the fingerprint of a history, whose summary, context and rewards can be computed or are refused."""
    assert history.summary()
    ContextFeatures.fit(history).transform(history)
    try:
        goals = tuple(Goal(name, measure="value") for name in history.event_names[:1])
        compute_rewards(history, RewardConfig(goals=goals, pre="1d", post="1d", min_controls=2))
    except CrosschannelError:
        pass
    return history.fingerprint()


def _read_configured(folder: Path, _: str) -> tuple[Any, str]:
    """Return the configuration and the log's fingerprint; all that training prepares can be computed or is refused."""
    config = read_config(folder / "config.yaml")
    history = build_history(config)[0]
    assert history.summary()
    try:
        data = prepare(config)
        assert len(data.train.rewards) == len(data.train.observations.context)
        assert data.train.losses
    except CrosschannelError:
        pass
    return to_dict(config), history.fingerprint()


def _make_tables(folder: Path) -> None:
    rng = np.random.default_rng(0)
    n = 60
    user, day = np.arange(n) % 12, np.arange(n) // 12
    channel = np.array(["none", "email", "push"])[rng.integers(0, 3, n)]
    sent_at = pd.Timestamp("2024-03-04 09:30") + pd.to_timedelta(day, unit="D")
    frame = {"decision_id": np.arange(n), "user_id": user, "sent_at": sent_at, "channel": channel}
    frame |= {"offer": "small", "propensity": 1 / 3, "eligible_channel": "none|email|push", "eligible_offer": "small"}
    pd.DataFrame(frame).to_csv(folder / "decisions.csv", index=False)
    time = pd.Timestamp("2024-03-03", tz="UTC") + pd.to_timedelta(rng.integers(0, 6 * 86400, 80), unit="s")
    events = {"user_id": rng.integers(0, 12, 80), "time": time, "event": "order", "value": rng.gamma(2, 9, 80).round(2)}
    pd.DataFrame(events).to_csv(folder / "events.csv", index=False)
    pd.DataFrame(events).drop(columns=["event", "value"]).to_parquet(folder / "more.parquet")
    users = {"user_id": np.arange(12), "age": rng.integers(18, 80, 12), "joined": "2023-01-09", "plan": list("abc") * 4}
    users |= {"zone": ["Europe/Berlin", "America/New_York", None] * 4, "no_mail": [False, True] * 6}
    pd.DataFrame(users).to_csv(folder / "users.csv", index=False)
    (folder / "config.yaml").write_text(TABLES, encoding="utf-8")


def _make_stream(folder: Path) -> None:
    rng = np.random.default_rng(0)
    n = 120
    time = START + pd.to_timedelta(np.sort(rng.integers(0, 6 * 86400, n)), unit="s")
    event = np.array(["Email Sent", "order", "visit"])[rng.integers(0, 3, n)]
    properties = [f'{{"total": {value:.2f}}}' for value in rng.gamma(2, 9, n)]
    frame = {"id": np.arange(n), "user_id": rng.integers(0, 9, n), "time": time, "event": event}
    pd.DataFrame(frame | {"properties": properties}).drop_duplicates("time").to_csv(folder / "stream.csv", index=False)
    (folder / "config.yaml").write_text(STREAM, encoding="utf-8")


def _make_forms(folder: Path) -> None:
    frame = rows(8, 6)
    for name in STREAM_FORMS:
        if name in FORMS:
            (folder / name).write_bytes(FORMS[name][0](frame))
    frame.assign(properties=frame["properties"].map(json.dumps)).to_parquet(folder / "text.parquet")
    nested = [
        {"channel": p.get("channel"), "offer": {"size": p.get("offer", {}).get("size")}, "revenue": p.get("revenue")}
        for p in frame["properties"]
    ]
    frame.assign(properties=nested).to_parquet(folder / "nested.parquet")


def _read_form(folder: Path, name: str) -> str:
    settings = FORMS[name][1] if name in FORMS else {}
    one = mapping(folder / name, **settings, **STREAM_FORMS[name])
    anonymous = "leave_out" if name.startswith("a.") else "error"
    return _summarized(read_stream(replace(one, anonymous=anonymous)))


def _read_campaign(slots: SlotGrid | str, folder: Path, _: str) -> str:
    orders = TableSource(folder / "orders.csv", {"user_id": "who", "time": "at", "value": "total"}, {"event": "order"})
    log = TableMapping(
        TableSource(folder / "sends.csv", test_sent_tables.SENT),
        (orders, TableSource(folder / "visits.jsonl", {"user_id": "customer"})),
        test_sent_tables.MODULES,
        slots=slots,
        anonymous="leave_out",
    )
    return _summarized(read_tables(log))


def _make_decided(folder: Path) -> None:
    test_decided.write_log(folder, pd.Timedelta("1h"), users=20)
    pd.read_csv(folder / "decided" / "9.csv").to_parquet(folder / "decided" / "9.parquet")
    (folder / "decided" / "9.csv").unlink()


def _read_decided(source: str, folder: Path, _: str) -> str:
    return _summarized(test_decided.read(source, folder))


def _later(history: History) -> History:
    """Return a history with its times moved from 1970 to 2022."""
    later = 19_000 * DAY
    return replace(
        history,
        decisions=replace(history.decisions, time=history.decisions.time + later),
        events=replace(history.events, time=history.events.time + later),
        span=(history.span[0] + later, history.span[1] + later),
        observed_from=history.observed_from + later,
        observed_until=history.observed_until + later,
    )


def _make_folder(folder: Path) -> None:
    write_history(_later(random_history(0, users=12, days=6)), folder / "log")


def _make_buckets(folder: Path) -> None:
    write_buckets(_later(random_history(0, users=12, days=6)), folder / "buckets", 2)


def _read_buckets(folder: Path, _: str) -> object:
    return [read_history(path).fingerprint() for path in open_buckets(folder / "buckets").paths]


def _make_starbucks(folder: Path) -> None:
    for name, records in (("portfolio", OFFERS), ("profile", PEOPLE), ("transcript", LOG)):
        text = "".join(json.dumps(record) + "\n" for record in records).encode()
        packed = name == "transcript"
        path = folder / f"{name}.json{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(text, mtime=0) if packed else text)


def _make_complete_journey(folder: Path) -> None:
    test_complete_journey.write(folder)


def _read_dataset(name: str, folder: Path, _: str) -> str:
    return _summarized(read_dataset(name, folder))


def _make_eligible(folder: Path) -> None:
    frame = {"user_id": [f"u{i:03d}" for i in range(40)], "eligible_channel": "none|email|push"}
    pd.DataFrame(frame).to_csv(folder / "eligible.csv", index=False)
    pd.DataFrame(frame).to_parquet(folder / "eligible.parquet")


def _read_eligible(folder: Path, name: str) -> bytes:
    return read_eligible(folder / name, random_history(0)).tobytes()


_DECIDED_FILES = ("sends.csv", "visits.csv", "decided/8.csv", "decided/9.parquet")
LOGS = (
    Target(
        "tables",
        _make_tables,
        ("config.yaml", "decisions.csv", "events.csv", "more.parquet", "users.csv"),
        _read_configured,
    ),
    Target("stream", _make_stream, ("config.yaml", "stream.csv"), _read_configured),
    Target("forms of a stream", _make_forms, tuple(STREAM_FORMS), _read_form),
    *(
        Target(
            f"campaign, {name}",
            partial(test_sent_tables.write_log, users=12, days=6),
            ("sends.csv", "orders.csv", "visits.jsonl"),
            partial(_read_campaign, slots),
        )
        for name, slots in (("grid", test_sent_tables.GRID), ("sends", "sends_only"))
    ),
    *(
        Target(f"decided, {source}", _make_decided, _DECIDED_FILES, partial(_read_decided, source))
        for source in ("stream", "tables")
    ),
    Target(
        "folder",
        _make_folder,
        tuple(f"log/{name}" for name in ("history.yaml", "decisions.parquet", "events.parquet", "users.parquet")),
        lambda folder, _: _summarized(read_history(folder / "log")),
    ),
    Target("buckets", _make_buckets, ("buckets/buckets.json",), _read_buckets),
    Target(
        "starbucks",
        _make_starbucks,
        ("portfolio.json", "profile.json", "transcript.json.gz"),
        partial(_read_dataset, "starbucks_rewards"),
    ),
    Target(
        "complete journey",
        _make_complete_journey,
        tuple(f"{name}.parquet" for name in test_complete_journey.tables()),
        partial(_read_dataset, "complete_journey"),
    ),
    Target("eligible", _make_eligible, ("eligible.csv", "eligible.parquet"), _read_eligible),
)
