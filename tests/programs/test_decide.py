"""`crosschannel decide`: consent is asked for, ids name nobody, and every source is read by the run's own mapping."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from crosschannel import agents
from crosschannel.core import ActionSpace, ConfigError, InputError, Module
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories import History, consent_columns, read_history, write_history
from crosschannel.pipeline import UsageError
from crosschannel.pipeline.loop.decisions.slot_times import note_time_of_day
from crosschannel.programs import decide, train
from tests.programs.samples import SMALL
from tests.samples import random_history

GOALS = "[{event: order, weight: 1.0}]"
FLAGS = (
    *(
        "--config",
        SMALL[1],
        "--agent.name=best_fixed",
        "--train.offline-updates=0",
        "--name=run",
        "--reward.time-bucket=1d",
    ),
    *("--context.events", "visit", "order", "--evaluation.market-users=100", "--reward.min-controls=2"),
    *("--reward.goals", GOALS, "--reward.overlap=shared", "--reward.pre=1d", "--reward.post=1d"),
)


START = 20_000 * DAY


def random_log(seed: int, users: int) -> History:
    """A random history of twelve days in 2024, of which the log does not say what was eligible."""
    history = random_history(seed, users=users, days=12)
    d, e = history.decisions, history.events
    moved: dict[str, Any] = {"decisions": replace(d, time=d.time + START), "events": replace(e, time=e.time + START)}
    moved |= {"observed_from": history.observed_from + START, "observed_until": history.observed_until + START}
    return replace(history, **moved, span=(START, START + 12 * DAY))


def log(users: pd.DataFrame | None = None) -> History:
    """Sixty users, with the propensities of the draws."""
    history = random_log(0, 60)
    sent = history.modules.sends(history.decisions.actions)
    p = np.stack([np.where(sent, 0.15, 0.7), np.where(sent, 0.5, 1.0)], axis=1)
    table = None if users is None else pd.concat([pd.DataFrame({"user_id": history.user_ids}), users], axis=1)
    return replace(history.with_propensities(p, p.prod(1), "logged"), users=table)


CONSENT = pd.DataFrame(
    {
        "age": np.arange(60) % 7,
        "email_opt_out": np.arange(60) % 3 == 0,
        "push_ok": np.where(np.arange(60) % 4 == 0, "no", "YES"),
    }
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a log and a run that has learned from it."""
    folder = tmp_path_factory.mktemp("decide")
    write_history(log(CONSENT), folder / "log")
    flags = ("--history.source=folder", f"--history.path={folder / 'log'}", f"--run-dir={folder}")
    train.main([*FLAGS, *flags, "--context.attributes", "age"])
    return folder


def decided(trained: Path, *arguments: str, out: str = "x.csv") -> pd.DataFrame:
    decide.main([str(trained / "run"), "--out", out, "--force", *arguments])
    return pd.read_csv(out, dtype=str) if out.endswith("csv") else pd.read_parquet(out)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_columns_of_consent_that_nobody_mapped_are_asked_about(trained):
    with pytest.raises(ConfigError) as caught:
        decided(trained)
    for words in ("email_opt_out, push_ok", "--guardrails.reachable '{email: email_opt_out}'", "--eligible FILE"):
        assert words in str(caught.value)
    with pytest.raises(ConfigError, match="consent or reachability: push_ok"):
        decided(trained, "--guardrails.opted-out", "{email: email_opt_out}")
    with pytest.raises(ConfigError, match="consent or reachability: email_opt_out"):
        decided(trained, "--ignore-columns", "push_ok")
    with pytest.raises(ConfigError, match="--ignore-columns push_okay: the users have no such column"):
        decided(trained, "--ignore-columns", "push_okay")
    assert not Path("x.csv").exists()


def test_nobody_who_opted_out_gets_a_message(trained):
    flags = ("--guardrails.opted-out", "{email: email_opt_out}", "--guardrails.reachable", "{push: push_ok}")
    table = decided(trained, *flags).set_index("user_id")
    users = read_history(trained / "log").users.set_index("user_id").loc[table.index]
    assert (table.channel[users.email_opt_out] != "email").all()
    assert (table.channel[users.push_ok == "no"] != "push").all()
    both = users.email_opt_out & (users.push_ok == "no")
    assert (table.eligible_channel[both] == "none").all()
    assert (table.eligible_channel[~users.email_opt_out & (users.push_ok == "YES")] == "none|email|push").all()
    table = decided(trained, "--guardrails.opted-out", '{"*": [email_opt_out]}', "--ignore-columns", "push_ok")
    assert (table.channel.to_numpy()[users.email_opt_out.to_numpy()] == "none").all()
    everyone = decided(trained, "--ignore-columns", "push_ok", "email_opt_out")
    assert (everyone.eligible_channel == "none|email|push").all()


def test_a_file_of_what_is_eligible_answers_the_question_if_it_says_anything(trained):
    ids = read_history(trained / "log").user_ids
    pd.DataFrame({"user_id": ids, "eligible_channel": ["none", *["none|push"] * 59]}).to_csv("now.csv", index=False)
    assert set(decided(trained, "--eligible", "now.csv").channel) <= {"none", "push"}
    pd.DataFrame({"user_id": ids, "eligible_offer": "small"}).to_csv("now.csv", index=False)
    with pytest.raises(ConfigError, match="email_opt_out, push_ok"):
        decided(trained, "--eligible", "now.csv")


@pytest.mark.parametrize(
    ("values", "message"),
    [(["maybe"] * 60, "attribute 'email_opt_out' of user 'u000' is 'maybe'"), ([2] * 60, "it must be true or false")],
)
def test_an_attribute_that_is_neither_true_nor_false_is_refused(values, message, trained, tmp_path):
    write_history(log(CONSENT.assign(email_opt_out=values)), tmp_path / "log")
    flags = ("--history.path", "log", "--guardrails.opted-out", "{email: email_opt_out}", "--ignore-columns", "push_ok")
    with pytest.raises(ConfigError, match=message):
        decided(trained, *flags)


@pytest.mark.parametrize("values", [[1.0, 0.0, np.nan], [True, False, None], ["Yes", "NO", None], ["1", "0", None]])
def test_who_has_no_value_gets_nothing(values, trained, tmp_path):
    users = CONSENT.assign(
        email_opt_out=np.resize(np.array([0, 1, 0]), 60), push_ok=np.resize(np.array(values, object), 60)
    )
    if isinstance(values[0], float):
        users.push_ok = users.push_ok.astype(float)
    write_history(log(users), tmp_path / "log")
    flags = ("--history.path", "log", "--guardrails.opted-out", "{email: email_opt_out}")
    table = decided(trained, *flags, "--guardrails.reachable", "{push: push_ok}")
    assert table.eligible_channel.tolist() == ["none|email|push", "none", "none|email"] * 20
    table = decided(trained, *flags, "--guardrails.opted-out", "{push: push_ok}", "--ignore-columns", "email_opt_out")
    assert table.eligible_channel.tolist() == ["none|email", "none|email|push", "none|email"] * 20


ABOUT = re.findall(
    r"\S+",
    """consent opt_in opt_out optIn emailOptOut subscribed unsubscribed is_subscribed reachable marketing gdpr email_ok
do_not_contact
doNotContact push_token deviceToken suppressed blocked EMAIL_OPT_IN sms_opt_in email_status push_enabled
can_email has_push no_sms marketing_allowed DNC email_valid whatsapp_consent newsletter push_permission emailVerified
has_email contact_ok opted_out hard_bounce accepts_marketing email-consent unsubscribed_at sms_stop wants_push""",
)
NOT_ABOUT = re.findall(
    r"\S+",
    """age city platform plan status country zip signup_channel last_order_status tenure segment active email_domain
post_code phone_model device os language gender user_id value has_children state income valid_from app_version""",
)


def test_names_of_consent_and_reachability_are_recognised():
    for name in (*ABOUT, *NOT_ABOUT):
        found = consent_columns(pd.DataFrame({name: ["x"]}), ("email", "push", "in_app"))
        assert found == ([name] if name in ABOUT else []), name
    flags = pd.DataFrame({"email": [1, 0, None], "push": ["ann@example.org"] * 3, "in_app": ["True", "False", None]})
    assert consent_columns(flags, ("email", "push", "in_app")) == ["email", "in_app"]
    assert consent_columns(None, ("email",)) == []


OPEN = ("--ignore-columns", "email_opt_out", "push_ok")


def test_decision_ids_do_not_name_users_unless_asked(trained):
    table = decided(trained, *OPEN)
    assert table.decision_id.is_unique
    assert table.decision_id.str.fullmatch(r"\d{8}T\d{6}(\d{6})?-[0-9a-f]{32}").all()
    assert not any(user in text for user, text in zip(table.user_id, table.decision_id, strict=True))
    assert (decided(trained, *OPEN, out="x.parquet").decision_id == table.decision_id).all()  # the same again
    clear = decided(trained, *OPEN, "--clear-ids")
    assert (clear.decision_id.str.partition("-")[2] == clear.user_id).all()
    assert clear.drop(columns="decision_id").equals(table.drop(columns="decision_id"))  # and nothing else


def test_ids_that_a_spreadsheet_would_compute_join_the_log_again(tmp_path):
    """User ids and actions of any beginning, through decide's CSV and the tables' reader."""
    history = log()
    odd = np.array([f"{'=+-@'[i % 4]}{'cmd' if i % 2 else '49'}{i:03d}" for i in range(60)], dtype=object)
    modules = ActionSpace([Module("channel", ("none", "=email", "+push")), Module("offer", ("-small", "@large"))])
    history = replace(history, user_ids=odd, modules=modules)
    write_history(history, tmp_path / "log")
    flags = ("--history.source=folder", "--history.path=log", f"--run-dir={tmp_path}")
    train.main([*FLAGS, *flags, "--agent.settings.floor=0.6"])  # so that sixty draws have every action
    decide.main([str(tmp_path / "run"), "--out", "x.csv", "--clear-ids"])
    text = Path("x.csv").read_text()
    for line in text.splitlines():
        for cell in line.split(","):
            assert not cell.startswith(("=", "@")), cell
            assert not cell.startswith(("+", "-")) or cell[1:].isdigit(), cell
    again = read_decisions(tmp_path, history)
    assert sorted(again.user_ids) == sorted(odd)
    assert set(again.decisions.actions[:, 0]) == {0, 1, 2}
    assert again.propensity_source == "logged"


def read_decisions(folder: Path, history: History) -> History:
    """The decisions of decide's file and the log's events, through a mapping of CSV files."""
    from crosschannel.core import write_csv
    from crosschannel.histories import TableMapping, TableSource, read_tables

    write_csv(history.events_frame(), folder / "events.csv")
    modules = tuple(history.modules.to_dict())
    events = (TableSource(folder / "events.csv"),)
    return read_tables(TableMapping(TableSource(folder / "x.csv"), events, modules, span=("2024-10-01", "2024-10-20")))


def test_probabilities_that_are_none_are_not_written(trained, monkeypatch):
    kinds = {
        "do not add up to 1": lambda p: p * 0.5,
        "are not between 0 and 1": lambda p: np.where(p == p.max(), np.nan, p),
        "between 0 and 1": lambda p: p - 0.5,
        "of shape": lambda p: p[:, :1],
    }
    original = agents.BestFixed.action_probabilities
    for message, spoil in kinds.items():
        monkeypatch.setattr(
            agents.BestFixed,
            "action_probabilities",
            lambda self, seen, spoil=spoil: [*map(spoil, original(self, seen))],
        )
        with pytest.raises(ConfigError, match=f"the agent states for the module 'channel' .*{message}"):
            decided(trained, *OPEN)
    assert not Path("x.csv").exists()


MODULES = "[{name: channel, actions: [none, email, push]}, {name: offer, actions: [small, large]}]"


def write_csvs(history: History, folder: Path) -> None:
    folder.mkdir()
    decisions, events = history.decisions_frame(), history.events_frame()
    for frame in (decisions, events):
        frame["time"] = frame["time"].dt.strftime("%Y-%m-%dT%H:%M:%S")
    decisions.to_csv(folder / "sends.csv", index=False)
    events.to_csv(folder / "events.csv", index=False)
    sends = decisions[decisions.channel != "none"].assign(event="sent")
    pd.concat([sends[["user_id", "time", "event", "channel", "offer"]], events]).to_csv(
        folder / "stream.csv", index=False
    )


SOURCES = {
    "tables": {"decisions": {"path": "old/sends.csv"}, "events": [{"path": "old/events.csv"}]},
    "stream": {
        "rows": {"path": "old/stream.csv"},
        "slots": {"every": "1d", "at": "06:00"},
        "sends": [{"events": ["sent"], "columns": {"channel": "channel", "offer": "offer"}}],
    },
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_newer_log_is_read_by_the_mapping_of_the_run(source, tmp_path):
    write_csvs(log(), tmp_path / "old")
    newer = random_log(5, 40)
    write_csvs(newer, tmp_path / "new")
    config = yaml.safe_load(Path(SMALL[1]).read_text())
    config["history"] = {"source": source, source: {**SOURCES[source], "modules": yaml.safe_load(MODULES)}}
    Path("c.yaml").write_text(yaml.safe_dump(config))
    train.main(["--config", "c.yaml", *FLAGS[2:]])
    for path in ("new", *(["new/stream.csv"] if source == "stream" else [])):
        decide.main(["runs/run", "--history.path", path, "--out", "x.csv", "--force"])
        table = pd.read_csv("x.csv", dtype=str)
        assert sorted(table.user_id) == sorted(newer.user_ids)
    with pytest.raises(
        InputError, match=r"none\.csv: there is no such file" if source == "stream" else "does not exist"
    ):
        decide.main(["runs/run", "--history.path", "none.csv", "--out", "y.csv"])
    if source == "tables":
        with pytest.raises(ConfigError, match=r"is one file, but the mapping has sends\.csv, events\.csv"):
            decide.main(["runs/run", "--history.path", "new/sends.csv", "--out", "y.csv"])
    with pytest.raises(UsageError, match="there is no flag --path"):
        decide.main(["runs/run", "--path", "new", "--out", "y.csv"])


def test_a_time_within_a_second_is_part_of_the_id(trained):
    at = pd.Timestamp(START + 12 * DAY - 1, unit="us")
    ids = [decided(trained, *OPEN, "--at", str(at - pd.Timedelta(k, "us"))).decision_id for k in (0, 1)]
    assert not set(ids[0]) & set(ids[1])


def test_another_time_of_day_than_that_of_the_slots_is_noted(caplog: pytest.LogCaptureFixture):
    history = random_history(0)
    with caplog.at_level("INFO", logger=decide.logger.name):
        note_time_of_day(history.decisions.time % DAY, 30 * DAY + 6 * HOUR)
        assert not caplog.text
        note_time_of_day(history.decisions.time % DAY, 30 * DAY)
    assert "deciding for 00:00 UTC, while the log's slots are at 06:00 UTC" in caplog.text
