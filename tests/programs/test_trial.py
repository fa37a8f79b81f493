"""`crosschannel trial` as a user runs it: on a native log with a table of arms, look after look."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.__main__ import COMMANDS
from crosschannel.__main__ import main as crosschannel
from crosschannel.core.errors import ConfigError
from crosschannel.core.hashing import keys, uniforms
from crosschannel.core.times import DAY
from crosschannel.envs.market import Market, simulate_history
from crosschannel.histories import read_history, write_history
from crosschannel.histories.arms import Arms, assign_arms
from crosschannel.histories.logs import take_rows
from crosschannel.pipeline import load_config
from crosschannel.pipeline.command_line import UsageError
from crosschannel.programs import decide
from crosschannel.programs.trial import main
from tests.pipeline.loop.samples import START as LOG_START
from tests.pipeline.loop.samples import daily_log, train_on
from tests.programs.samples import SMALL

START = "2024-01-15T06:00"


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A market in which both arms are served by the same policy, with a table of arms by a hash of the users."""
    folder = tmp_path_factory.mktemp("log")
    config = load_config(SMALL[1], {"history.market.users": 800})
    history, _ = simulate_history(Market(config.market()))
    write_history(history, folder / "log")
    arm = np.where(uniforms(keys(history.user_ids), 3) < 0.3, "business_as_usual", "agent")
    pd.DataFrame({"user_id": history.user_ids, "arm": arm}).to_parquet(folder / "arms.parquet")
    return folder


def arguments(log, *more):
    path = ["--history.source", "folder", "--history.path", str(log / "log"), "--arms", str(log / "arms.parquet")]
    shares = "{agent: 0.7, business_as_usual: 0.3}"
    return [*SMALL, *path, "--trial.start", START, "--trial.days", "8", "--trial.shares", shares, *more]


def test_an_a_a_trial_of_the_market_is_read_look_after_look(log, tmp_path, capsys):
    first = tmp_path / "first"
    assert main(arguments(log, "--at", "2024-01-18T06:00", "--out", str(first))) == 0
    shown = capsys.readouterr().out
    assert "Verdict: not yet." in shown
    assert str(first / "trial.html") in shown
    again = arguments(
        log, "--previous", str(first / "trial.json"), "--trial.segments", "platform", "--out", str(tmp_path)
    )
    assert main(again) == 0
    shown = capsys.readouterr().out
    assert "Verdict: not shown." in shown
    assert "Segments (exploratory" in shown
    with pytest.raises(UsageError, match="exists already"):
        main(again)
    written = json.loads((tmp_path / "trial.json").read_text())
    assert (written["format"], written["version"], written["verdict"]) == ("crosschannel trial", 1, "not shown")
    looks = written["comparisons"][0]["outcomes"][0]["looks"]
    assert [look["share"] for look in looks] == [0.125, 0.25, 0.375, 1.0]
    old = json.loads((first / "trial.json").read_text())["comparisons"][0]["outcomes"][0]["looks"]
    assert [(look["z"], look["critical"]) for look in looks[:3]] == [(look["z"], look["critical"]) for look in old]
    names = [one["outcome"] for one in written["comparisons"][0]["outcomes"]]
    assert names[0] == "value"
    assert {"order:food", "visit:rides", "unsubscribed"} <= set(names)
    assert written["checks"][0]["passed"] is True
    assert not any(one["significant"] for one in written["comparisons"][0]["outcomes"])
    assert "<svg" in (tmp_path / "trial.html").read_text()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["--previous", "nowhere.json"], ConfigError, "cannot be read"),
        (["--trial.compare", "agent:nobody"], ConfigError, "no user of the log has the arm 'nobody'"),
        (["--trial.looks", "confidence_sequence"], UsageError, "Over days of the same users"),
        (["--trial.strata", "plattform"], ConfigError, "Did you mean 'platform'"),
        (["--trial.day", "3"], UsageError, "Did you mean '--trial.days'"),
    ],
)
def test_what_cannot_be_read_is_refused(log, more, error, message):
    with pytest.raises(error, match=message):
        main(arguments(log, *more))


def test_a_log_without_arms_names_the_remedy(log):
    bare = [argument for argument in arguments(log) if argument not in ("--arms", str(log / "arms.parquet"))]
    with pytest.raises(ConfigError, match="--arms FILE"):
        main(bare)


def test_arms_follow_from_the_hash_where_the_configuration_has_their_shares(log, tmp_path, capsys):
    given = [*SMALL, "--history.source", "folder", "--history.path", str(log / "log"), "--trial.start", START]
    shares = ["--arms.holdout", "0.2", "--arms.business-as-usual", "0.3"]
    assert main([*given, *shares, "--trial.days", "8", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "trial.json").read_text())
    assert written["settings"]["shares"] == {"agent": 0.5, "business_as_usual": 0.3, "holdout": 0.2}
    assert written["checks"][0]["passed"] is True
    history = read_history(log / "log")
    arms = assign_arms(history.user_ids, Arms(holdout=0.2, business_as_usual=0.3))
    assert {arm["arm"]: arm["users"] for arm in written["arms"]} == {name: (arms == name).sum() for name in set(arms)}
    # A log that names other arms than the hash is of another trial.
    wrong = replace(history, decisions=replace(history.decisions, arm=np.full(len(history.decisions), "agent", object)))
    write_history(wrong, tmp_path / "wrong")
    with pytest.raises(ConfigError, match=r"another arm than arms\.salt"):
        main([*SMALL, "--history.source", "folder", "--history.path", str(tmp_path / "wrong"), *given[-2:], *shares])


def test_a_trial_of_decisions_by_date_has_their_arms(tmp_path, monkeypatch, capsys):
    """Two days that `decide` wrote, the users of business as usual among them, whom no decision names."""
    monkeypatch.chdir(tmp_path)
    history = daily_log(300)
    d = history.decisions
    train_on(replace(history, decisions=take_rows(d, d.time < LOG_START + 10 * DAY)), tmp_path)
    arms = ["--arms.holdout", "0.2", "--arms.business-as-usual", "0.3"]
    for day in (14, 15):
        decide.main(["run", "--at", f"2024-10-{day}T06:10", "--out", "decided", *arms])
    given = ["--config", "run/config.yaml", "--trial.start", "2024-10-14", "--trial.days", "2", "--trial.pre", "5d"]
    written = {}
    for name, more in (("folder", ["--arms", "decided"]), ("log", ["--history.decided", "decided"]), ("hash", arms)):
        assert main([*given, *more, "--out", name]) == 0
        written[name] = json.loads((tmp_path / name / "trial.json").read_text())
        assert {arm["arm"] for arm in written[name]["arms"]} == {"agent", "business_as_usual", "holdout"}
        assert sum(arm["users"] for arm in written[name]["arms"]) == 300
    for name in ("log", "hash"):
        assert written[name]["comparisons"] == written["folder"]["comparisons"]
    by_arm = {arm["arm"]: arm for arm in written["log"]["arms"]}
    assert by_arm["holdout"]["messages"]["all"]["point"] == 0.0
    assert by_arm["agent"]["messages"]["all"]["point"] > 0.2
    assert written["hash"]["checks"][0]["passed"] is True
    # Without a start it is that of the first decision, though all rows of the log have their users' arms.
    assert main([*given[:2], "--history.decided", "decided", *given[4:], "--out", "undeclared"]) == 0
    assert json.loads((tmp_path / "undeclared" / "trial.json").read_text())["start"] == "2024-10-14T06:00:00.000000Z"


def test_a_file_is_not_a_folder(log, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        main(arguments(log, "--out", str(tmp_path / "file")))


def test_the_command_explains_itself(capsys):
    assert "trial" in COMMANDS
    with pytest.raises(SystemExit):
        crosschannel(["trial", "--help"])
    shown = capsys.readouterr().out
    for words in ("--trial.days", "--arms", "--previous", "intention to treat", "trial.html"):
        assert words in shown
