"""One shop's events, written as each vendor documents its export, and in the native folder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.action_space import ActionSpace
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import write_history

MODULES = ({"name": "channel", "actions": ["none", "email"]}, {"name": "offer", "actions": ["small", "large"]})
VISIT, SIGN_IN, SENT, ORDER = "App Opened", "Signed In", "Email Sent", "Order Completed"


@dataclass(frozen=True)
class Vendor:
    """How one vendor writes the shop's events.

    Attributes:
        write: Writes the events (see `shop`) below a folder, and returns the path of the stream.
        names: The vendor's names of the events, where they differ.
        offer: The path of a send's offer.
        value: The path of an order's revenue.
    """

    write: Callable[[pd.DataFrame, Path], Path]
    offer: str
    value: str
    names: Mapping[str, str] = field(default_factory=dict)


def shop(users: int = 12, days: int = 6, seed: int = 0) -> pd.DataFrame:
    """Return events of visitors who sign in on their second day: earlier rows have a device and no user.

    Columns: `owner` (who it is), `user` (who is known, or None), `device`, `time`, `event`, `offer`, `revenue`, `id`.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    start = pd.Timestamp("2024-01-15T06:00Z")
    for user in range(users):
        who = {"owner": f"user-{user:02d}", "device": f"device-{user:02d}"}
        for day in range(days):
            known = who | {"user": who["owner"] if day else None}
            time = start + pd.Timedelta(days=day, seconds=int(rng.integers(3600)))
            rows.append(known | {"time": time, "event": VISIT})
            if day == 1:
                rows.append(known | {"time": time + pd.Timedelta("90s"), "event": SIGN_IN})
            if day and rng.random() < 0.6:
                sent = time + pd.Timedelta("3h")
                rows.append(known | {"time": sent, "event": SENT, "offer": str(rng.choice(["small", "large"]))})
            if rng.random() < 0.5:
                revenue = round(float(rng.gamma(2, 10)), 2)
                rows.append(known | {"time": time + pd.Timedelta("7h"), "event": ORDER, "revenue": revenue})
    frame = pd.DataFrame(rows).sort_values("time", kind="stable", ignore_index=True).astype({"offer": object})
    frame[["user", "offer"]] = frame[["user", "offer"]].astype(object).where(frame[["user", "offer"]].notna(), None)
    return frame.assign(id=[f"message-{row:04d}" for row in range(len(frame))])


def native(events: pd.DataFrame, folder: Path, names: Mapping[str, str]) -> Path:
    """Write the shop's events as a native folder, each with its owner as the user."""
    sent = (events["event"] == SENT).to_numpy()
    sends, others = events[sent], events[~sent]
    decisions = pd.DataFrame({"decision_id": sends["id"], "user_id": sends["owner"], "time": sends["time"]})
    history = History.from_tables(
        decisions.assign(channel="email", offer=sends["offer"]).reset_index(drop=True),
        pd.DataFrame(
            {
                "user_id": others["owner"],
                "time": others["time"],
                "event": others["event"].replace(dict(names)),
                "value": others["revenue"].fillna(1.0),
            }
        ).reset_index(drop=True),
        ActionSpace.from_dict(MODULES),
        pd.DataFrame({"user_id": sorted(events["owner"].unique())}),
    )
    write_history(history, folder)
    return folder


def call(row: Any) -> dict[str, Any]:
    """Return a row as a call of Segment's specification."""
    common = {
        "anonymousId": row.device,
        "context": {"ip": "8.8.8.8", "library": {"name": "analytics.js", "version": "2.11.1"}},
        "integrations": {},
        "messageId": row.id,
        "originalTimestamp": iso(row.time + pd.Timedelta("3s")),
        "receivedAt": iso(row.time + pd.Timedelta("2s")),
        "sentAt": iso(row.time + pd.Timedelta("4s")),
        "timestamp": iso(row.time),
        "userId": row.user,
    }
    if row.event == SIGN_IN:
        return common | {"type": "identify", "traits": {"email": f"{row.owner}@example.com", "plan": None}}
    if row.event == VISIT:
        return common | {"type": "screen", "name": "Home", "properties": {"name": "Home"}}
    return common | {"type": "track", "event": row.event, "properties": properties(row)}


def segment(events: pd.DataFrame, folder: Path) -> Path:
    """Write `segment-logs/SOURCE/DAY/FILE.gz`: the day in milliseconds, lines of JSON, compressed."""
    for day, rows in events.groupby(events["time"].dt.floor("D")):
        stamp = pd.Timestamp(str(day)).value // 10**6
        path = folder / "segment-logs" / "qXoFz6fTQc" / f"{stamp}" / f"{stamp}_qXoFz6fTQc.0.gz"
        compressed(path, [call(row) for row in rows.itertuples()])
    return folder / "segment-logs"


def rudderstack(events: pd.DataFrame, folder: Path) -> Path:
    """Write `rudder-logs/SOURCE/MM-DD-YYYY/FILE.json.gz`; users who are not known are empty text."""
    for day, rows in events.groupby(events["time"].dt.strftime("%m-%d-%Y")):
        name = f"1705302000.1QLvM9cSDVmE.{abs(hash(day))}.json.gz"
        lines = [
            call(row) | {"userId": row.user or "", "channel": "web", "rudderId": "e5cc7a4b", "request_ip": "8.8.8.8"}
            for row in rows.itertuples()
        ]
        compressed(folder / "rudder-logs" / "1QLvM9cSDVmE" / str(day) / name, lines)
    return folder / "rudder-logs"


def amplitude(events: pd.DataFrame, folder: Path) -> Path:
    """Write `PROJECT/PROJECT_YYYY-MM-DD_H#0.json.gz`, a file an hour."""
    for hour, rows in events.groupby(events["time"].dt.floor("h")):
        at = pd.Timestamp(str(hour))
        lines = [
            {
                "$insert_id": row.id,
                "amplitude_id": 900 + row.Index,
                "app": 187520,
                "device_id": row.device,
                "event_id": row.Index,
                "event_properties": properties(row),
                "event_time": row.time.strftime("%Y-%m-%d %H:%M:%S.%f"),
                "event_type": row.event,
                "server_upload_time": (row.time + pd.Timedelta("2s")).strftime("%Y-%m-%d %H:%M:%S.%f"),
                "user_id": row.user,
                "user_properties": {"plan": "free"},
                "uuid": row.id,
            }
            for row in rows.itertuples()
        ]
        compressed(folder / "187520" / f"187520_{at:%Y-%m-%d}_{at.hour}#0.json.gz", lines)
    return folder / "187520"


def mixpanel(events: pd.DataFrame, folder: Path) -> Path:
    """Write one file of lines with an event and its properties; Mixpanel has merged the identities."""
    lines = [
        {
            "event": row.event,
            "properties": {
                "time": int(row.time.timestamp()),
                "distinct_id": row.owner,
                "$insert_id": row.id,
                "$device_id": row.device,
                "$mp_api_endpoint": "api.mixpanel.com",
                "mp_processing_time_ms": int(row.time.timestamp()) * 1000 + 900,
                **properties(row),
            },
        }
        for row in events.itertuples()
    ]
    path = folder / "export.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def braze_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows of one type of event as records of Currents."""
    out = []
    for row in rows.itertuples():
        record: dict[str, Any] = {
            "id": row.id,
            "user_id": row.device,
            "external_user_id": row.user,
            "time": int(row.time.timestamp()),
            "app_id": None,
        }
        if row.event == SENT:
            record |= {"campaign_id": "5f1e", "campaign_name": row.offer, "dispatch_id": f"d{row.id}", "send_id": None}
        elif row.event == ORDER:
            record |= {"product_id": "p1", "price": row.revenue, "currency": "EUR", "properties": "{}"}
        else:
            record |= {"name": row.event, "properties": json.dumps({"screen": "home"})}
        out.append(record)
    return out


def braze_folder(row_type: str, date: str) -> Path:
    """Return the folder of a file of Currents: by type of event, hour and version of its schema."""
    export = "dataexport.prod-01.S3.integration.5b"
    return Path(export) / f"event_type={row_type}" / f"date={date}-06" / "version=1" / "prod-01"


BRAZE_TYPES = {SENT: "users.messages.email.Send", ORDER: "users.behaviors.Purchase"}


def braze(events: pd.DataFrame, folder: Path) -> Path:
    """Write Currents' folders by type of event and hour, as Parquet files."""
    return braze_files(events, folder, "parquet", lambda path, rows: pd.DataFrame(rows).to_parquet(path))


def braze_avro(events: pd.DataFrame, folder: Path) -> Path:
    """Write Currents' folders by type of event and hour, as Avro files."""
    return braze_files(events, folder, "avro", write_avro)


def braze_files(
    events: pd.DataFrame, folder: Path, ending: str, write: Callable[[Path, list[dict[str, Any]]], None]
) -> Path:
    """Write the files of Currents with a function."""
    kinds = events["event"].map(lambda event: BRAZE_TYPES.get(event, "users.behaviors.CustomEvent"))
    for (kind, date), rows in events.groupby([kinds, events["time"].dt.strftime("%Y-%m-%d")]):
        path = folder / braze_folder(kind, date) / f"dataexport.prod-01.S3.integration.5b.{kind}+0+00.{ending}"
        path.parent.mkdir(parents=True)
        write(path, braze_rows(rows))
    return folder / "dataexport.prod-01.S3.integration.5b"


def write_avro(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write records of text and numbers, any of which may be null, except `id`, `user_id` and `time`."""
    import fastavro

    kinds = {str: "string", int: "long", float: "double"}

    def field_of(name: str) -> dict[str, Any]:
        kind = next((kinds[type(row[name])] for row in rows if row[name] is not None), "string")
        return {"name": name, "type": kind if name in ("id", "user_id", "time") else ["null", kind]}

    schema = {"type": "record", "name": "Event", "fields": [field_of(name) for name in rows[0]]}
    with path.open("wb") as out:
        fastavro.writer(out, fastavro.parse_schema(schema), rows, codec="deflate")


def ga4_rows(events: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows of the tables `events_YYYYMMDD`."""
    fields = ("string_value", "int_value", "float_value", "double_value")

    def parameter(key: str, kind: str, value: Any) -> dict[str, Any]:
        return {"key": key, "value": {name: value if name == kind else None for name in fields}}

    out = []
    for row in events.itertuples():
        parameters = [
            parameter("ga_session_id", "int_value", 1705302000),
            parameter("page_location", "string_value", "https://example.com/"),
        ]
        if row.event == SENT:
            parameters.append(parameter("offer", "string_value", row.offer))
        if row.event == ORDER:
            parameters.append(parameter("value", "double_value", row.revenue))
        out.append(
            {
                "event_date": row.time.strftime("%Y%m%d"),
                "event_timestamp": row.time.value // 1000,
                "event_name": GA4_NAMES[row.event],
                "event_params": parameters,
                "user_id": row.user,
                "user_pseudo_id": row.device,
                "user_properties": [],
                "device": {"category": "mobile"},
                "items": [],
            }
        )
    return out


GA4_NAMES = {VISIT: "screen_view", SIGN_IN: "login", SENT: "email_sent", ORDER: "purchase"}


def ga4(events: pd.DataFrame, folder: Path) -> Path:
    """Write BigQuery's extract as JSON lines: whole numbers are text, and what is null is left out."""
    for date, rows in events.groupby(events["time"].dt.strftime("%Y%m%d")):
        lines = []
        for row in ga4_rows(rows):
            row["event_timestamp"] = str(row["event_timestamp"])
            for one in row["event_params"]:
                one["value"] = {k: str(v) if k == "int_value" else v for k, v in one["value"].items() if v is not None}
            lines.append({name: value for name, value in row.items() if value is not None})
        compressed(folder / "ga4" / f"events_{date}.json.gz", lines)
    return folder / "ga4"


def ga4_parquet(events: pd.DataFrame, folder: Path) -> Path:
    """Write BigQuery's extract as Parquet."""
    for date, rows in events.groupby(events["time"].dt.strftime("%Y%m%d")):
        path = folder / "ga4" / f"events_{date}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(ga4_rows(rows)).to_parquet(path)
    return folder / "ga4"


def properties(row: Any) -> dict[str, Any]:
    """Return the properties of an order or a send."""
    return {"revenue": row.revenue} if row.event == ORDER else {"offer": row.offer} if row.event == SENT else {}


def iso(time: pd.Timestamp) -> str:
    """Return a time as browsers write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


def compressed(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write lines of JSON to a compressed file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


_CALLS = {VISIT: "screen", SIGN_IN: "identify"}
#: The vendors by preset; a name may end in the form of the files.
VENDORS = {
    "segment": Vendor(segment, "properties.offer", "properties.revenue", _CALLS),
    "rudderstack": Vendor(rudderstack, "properties.offer", "properties.revenue", _CALLS),
    "amplitude": Vendor(amplitude, "event_properties.offer", "event_properties.revenue"),
    "mixpanel": Vendor(mixpanel, "properties.offer", "properties.revenue"),
    "braze": Vendor(braze, "campaign_name", "price", BRAZE_TYPES),
    "braze avro": Vendor(braze_avro, "campaign_name", "price", BRAZE_TYPES),
    "ga4": Vendor(ga4, "event_params.offer", "event_params.value", GA4_NAMES),
    "ga4 parquet": Vendor(ga4_parquet, "event_params.offer", "event_params.value", GA4_NAMES),
}
