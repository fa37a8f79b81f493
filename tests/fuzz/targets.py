"""What is damaged: a folder of valid files, which of them, and the function that reads the folder."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.agents import load_agent, load_policy
from crosschannel.core.times import DAY
from crosschannel.histories.buckets import bucket_paths, write_buckets
from crosschannel.histories.eligibility import read_eligible
from crosschannel.histories.history import History
from crosschannel.histories.readers.datasets.starbucks import read_starbucks_rewards
from crosschannel.histories.readers.folder import read_history, write_history
from crosschannel.pipeline.building import build_history
from crosschannel.pipeline.configuration import CONFIG_FOLDER, Config, read_config
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import train
from tests.histories.readers.datasets.test_starbucks import LOG, OFFERS, PEOPLE
from tests.programs.samples import SMALL
from tests.samples import random_history

TABLES = """
history:
  source: tables
  tables:
    decisions: {path: decisions.csv, time_zone: Europe/Berlin, columns: {time: sent_at}}
    events: [{path: events.csv}, {path: more.parquet, constants: {event: visit}}]
    users: {path: users.csv}
    modules: [{name: channel, actions: [none, email, push]}, {name: offer, actions: [small, large]}]
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
    slots: {every: 1d, at: "10:00", time_zone: Europe/Berlin}
    duplicates: keep_first
"""


@dataclass(frozen=True)
class Target:
    """Files that are read together.

    Attributes:
        name: Its name.
        make: Writes the valid files into an empty folder.
        files: The names of those that are damaged, one at a time.
        read: Reads the folder; what it returns is compared with what the valid files give.
    """

    name: str
    make: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], object]


def _read_tables(folder: Path) -> str:
    config = read_config(folder / "config.yaml")
    return build_history(config)[0].fingerprint()


def _make_tables(folder: Path) -> None:
    rng = np.random.default_rng(0)
    n = 60
    user, day = np.arange(n) % 12, np.arange(n) // 12
    channel = np.array(["none", "email", "push"])[rng.integers(0, 3, n)]
    sent_at = pd.Timestamp("2024-03-04 09:30") + pd.to_timedelta(day, unit="D")
    frame = {"decision_id": np.arange(n), "user_id": user, "sent_at": sent_at, "channel": channel}
    frame |= {"offer": "small", "propensity": 0.3, "eligible_channel": "none|email|push"}
    pd.DataFrame(frame).to_csv(folder / "decisions.csv", index=False)
    time = pd.Timestamp("2024-03-03", tz="UTC") + pd.to_timedelta(rng.integers(0, 6 * 86400, 80), unit="s")
    events = {"user_id": rng.integers(0, 12, 80), "time": time, "event": "order", "value": rng.gamma(2, 9, 80).round(2)}
    pd.DataFrame(events).to_csv(folder / "events.csv", index=False)
    pd.DataFrame(events).drop(columns=["event", "value"]).to_parquet(folder / "more.parquet")
    users = {"user_id": np.arange(12), "age": rng.integers(18, 80, 12), "joined": "2023-01-09", "plan": list("abc") * 4}
    pd.DataFrame(users).to_csv(folder / "users.csv", index=False)
    (folder / "config.yaml").write_text(TABLES, encoding="utf-8")


def _make_stream(folder: Path) -> None:
    rng = np.random.default_rng(0)
    n = 120
    time = pd.Timestamp("2024-03-04", tz="UTC") + pd.to_timedelta(np.sort(rng.integers(0, 6 * 86400, n)), unit="s")
    event = np.array(["Email Sent", "order", "visit"])[rng.integers(0, 3, n)]
    properties = [f'{{"total": {value:.2f}}}' for value in rng.gamma(2, 9, n)]
    frame = {"id": np.arange(n), "user_id": rng.integers(0, 9, n), "time": time, "event": event}
    pd.DataFrame(frame | {"properties": properties}).drop_duplicates("time").to_csv(folder / "stream.csv", index=False)
    config = STREAM.replace("slots: {every: 1d,", "slots: {every: 6h, several: first,")
    (folder / "config.yaml").write_text(config, encoding="utf-8")


def _make_folder(folder: Path) -> None:
    history = random_history(0, users=12, days=6)
    later = 19_000 * DAY
    write_history(_moved(history, later), folder / "log")


def _moved(history: History, later: int) -> History:
    return replace(
        history,
        decisions=replace(history.decisions, time=history.decisions.time + later),
        events=replace(history.events, time=history.events.time + later),
        span=(history.span[0] + later, history.span[1] + later),
        observed_from=history.observed_from + later,
        observed_until=history.observed_until + later,
    )


def _make_buckets(folder: Path) -> None:
    write_buckets(_moved(random_history(0, users=12, days=6), 19_000 * DAY), folder / "buckets", 2)


def _make_starbucks(folder: Path) -> None:
    for name, rows in (("portfolio", OFFERS), ("profile", PEOPLE), ("transcript", LOG)):
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        packed = name == "transcript"
        path = folder / f"{name}.json{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(text) if packed else text)


def _make_configs(folder: Path) -> None:
    for path in CONFIG_FOLDER.glob("*.yaml"):
        shutil.copy(path, folder / path.name)


def _read_configs(folder: Path) -> list[Config]:
    return [read_config(path) for path in sorted(folder.glob("*.yaml"))]


_RUN: dict[str, Path] = {}


def _make_run(folder: Path) -> None:
    """A finished run of a second or two, made once and copied."""
    if "run" not in _RUN:
        source = folder.parent / "trained"
        settings = ["--agent.settings.members", "2", "--train.offline-updates", "1", "--history.market.users", "60"]
        settings += ["--history.market.days", "6", "--evaluation.market-users", "2", "--reward.min-controls", "2"]
        assert train.main([*SMALL, *settings, "--out", str(source)]) == 0
        _RUN["run"] = source
    shutil.copytree(_RUN["run"], folder / "run")


def _read_run(folder: Path) -> object:
    run = Run.open_ended(folder / "run")
    result = run.stored_result()
    load_policy(run.policy)
    return None if result is None else result.metrics()


def _read_checkpoint(folder: Path) -> object:
    run = Run.open(folder / "run")
    run.resumes_from()
    load_agent(run.checkpoint)
    return run.config


def _make_eligible(folder: Path) -> None:
    frame = {"user_id": [f"u{i:03d}" for i in range(40)], "eligible_channel": "none|email|push"}
    pd.DataFrame(frame).to_csv(folder / "eligible.csv", index=False)
    pd.DataFrame(frame).to_parquet(folder / "eligible.parquet")


def _read_eligible(folder: Path) -> object:
    history = random_history(0)
    return [read_eligible(folder / name, history).tobytes() for name in ("eligible.csv", "eligible.parquet")]


def _read_buckets(folder: Path) -> object:
    return [read_history(path).fingerprint() for path in bucket_paths(folder / "buckets")]


TARGETS = (
    Target(
        "tables",
        _make_tables,
        ("config.yaml", "decisions.csv", "events.csv", "more.parquet", "users.csv"),
        _read_tables,
    ),
    Target("stream", _make_stream, ("config.yaml", "stream.csv"), _read_tables),
    Target(
        "folder",
        _make_folder,
        tuple(f"log/{name}" for name in ("history.yaml", "decisions.parquet", "events.parquet", "users.parquet")),
        lambda folder: read_history(folder / "log").fingerprint(),
    ),
    Target("buckets", _make_buckets, ("buckets/buckets.yaml",), _read_buckets),
    Target(
        "starbucks",
        _make_starbucks,
        ("portfolio.json", "profile.json", "transcript.json.gz"),
        lambda folder: read_starbucks_rewards(folder).fingerprint(),
    ),
    Target(
        "configurations",
        _make_configs,
        tuple(path.name for path in sorted(CONFIG_FOLDER.glob("*.yaml"))),
        _read_configs,
    ),
    Target("eligible", _make_eligible, ("eligible.csv", "eligible.parquet"), _read_eligible),
    Target(
        "run",
        _make_run,
        tuple(f"run/{n}" for n in ("config.yaml", "policy.pt", "metrics.json", "evaluation.json")),
        _read_run,
    ),
    Target("checkpoint", _make_run, ("run/config.yaml", "run/checkpoint.pt"), _read_checkpoint),
)
