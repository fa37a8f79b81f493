"""`history.path`: the log of another folder, read by the mapping of the configuration."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import write_history
from crosschannel.pipeline.configuration import Config, HistoryConfig, read_config
from crosschannel.pipeline.reading import build_history

MODULES = "modules: [{name: channel, actions: [none, push]}]"
TABLES = """
history:
  source: tables
  tables:
    decisions: {path: first/sends/sends.csv}
    events: [{path: first/opens.csv, constants: {event: opened}}]
    MODULES
""".replace("MODULES", MODULES)
STREAM = """
history:
  source: stream
  stream:
    rows: {path: first/stream.csv}
    slots: sends_only
    sends: [{events: [sent], columns: {channel: channel}}]
    MODULES
""".replace("MODULES", MODULES)


def write_tables(folder: Path, users: list[str]) -> None:
    (folder / "sends").mkdir(parents=True)
    rows = [f"{name}-1,{name},2026-05-0{day},push,0.5" for day, name in enumerate(users, start=1)]
    sends = "\n".join(["decision_id,user_id,time,channel,propensity", *rows])
    (folder / "sends" / "sends.csv").write_text(sends)
    (folder / "opens.csv").write_text(f"user_id,time\n{users[0]},2026-05-08\n")


def write_stream(path: Path, users: list[str]) -> None:
    rows = [f"{name},2026-05-0{day},sent,push" for day, name in enumerate(users, start=1)]
    path.write_text("\n".join(["user_id,time,event,channel", *rows, f"{users[0]},2026-05-08,order,"]))


def read(text: str, folder: Path, path: str | None = None) -> History:
    (folder / "some.yaml").write_text(text)
    config = read_config(folder / "some.yaml")
    if path is not None:
        config = replace(config, history=config.history.with_path(Path(path)))
    return build_history(config)[0]


def users(history: History) -> list[str]:
    return sorted(history.user_ids.tolist())


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path / "first", ["ann", "bob"])
    write_tables(tmp_path / "second", ["cem", "dia", "eve"])
    write_stream(tmp_path / "first" / "stream.csv", ["ann", "bob"])
    write_stream(tmp_path / "second" / "stream.csv", ["cem", "dia"])
    return tmp_path


def test_the_tables_of_another_folder(folder):
    assert users(read(TABLES, folder)) == ["ann", "bob"]
    assert users(read(TABLES, folder, "second")) == ["cem", "dia", "eve"]
    assert users(read(TABLES, folder, str(folder / "second"))) == ["cem", "dia", "eve"]


def test_a_stream_in_another_folder_or_of_another_name(folder):
    assert users(read(STREAM, folder)) == ["ann", "bob"]
    assert users(read(STREAM, folder, "second")) == ["cem", "dia"]
    shutil.move("second/stream.csv", "newest.csv")
    assert users(read(STREAM, folder, "newest.csv")) == ["cem", "dia"]


def test_a_stream_that_is_a_folder_of_files(folder):
    for name in ("first", "second"):
        (folder / name / "parts").mkdir()
        shutil.move(f"{name}/stream.csv", f"{name}/parts/stream.csv")
    text = STREAM.replace("first/stream.csv", "first/parts")
    assert users(read(text, folder)) == ["ann", "bob"]
    assert users(read(text, folder, "second/parts")) == ["cem", "dia"]


def test_a_path_in_the_file_does_the_same(folder):
    assert users(read(TABLES + "  path: second\n", folder)) == ["cem", "dia", "eve"]


def test_native_folders_and_the_log_of_a_market(tmp_path):
    history, _ = simulate_history(Market(MarketConfig(users=20, days=3)))
    write_history(history, tmp_path / "log")
    for config in (HistoryConfig("folder", tmp_path / "elsewhere"), HistoryConfig("market")):
        found, _ = build_history(Config(history=config.with_path(tmp_path / "log")))
        assert found.fingerprint() == history.fingerprint()


def test_a_data_set_keeps_its_reader(tmp_path):
    config = Config(history=HistoryConfig("starbucks_rewards").with_path(tmp_path))
    assert (config.history.source, config.history.path) == ("starbucks_rewards", tmp_path)
    with pytest.raises(ConfigError, match="needs a folder"):
        build_history(Config(history=HistoryConfig("starbucks_rewards")))
