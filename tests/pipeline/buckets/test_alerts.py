"""The alerts and the explanations on a log in buckets are those of the log as a whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from crosschannel.core.times import DAY, HOUR
from crosschannel.histories import read_history
from crosschannel.histories.arms import Arms
from crosschannel.histories.buckets import write_buckets
from crosschannel.histories.history import History
from crosschannel.pipeline.buckets.alerts import check_alerts_over_buckets
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.configuration import Config, load_config
from crosschannel.pipeline.watch.checking import check_alerts
from crosschannel.programs import alerts, decide, explain, simulate, trial
from tests.pipeline.loop.samples import daily_log, train_on
from tests.pipeline.watch.samples import SETTINGS, World, deployment
from tests.programs.samples import SMALL

CLOSED_LOOP = Path(SMALL[1]).with_name("closed_loop.yaml")


def config(folder: Path, **settings: object) -> Config:
    return load_config("market", {**SETTINGS, "history.path": str(folder), **settings})


@dataclass(frozen=True)
class Case:
    """A deployment, the rules that give an alert, and when they are checked: so long after the log's end."""

    log: Callable[[], History]
    fires: tuple[str, ...] = ()
    after: int = HOUR - DAY
    arms: Arms = field(default_factory=Arms)
    settings: dict[str, object] = field(default_factory=dict)


CASES = {
    "nothing is wrong": Case(lambda: deployment(World(users=300))),
    "fewer decisions": Case(lambda: deployment(World(users=300, keep=(1.0,) * 7 + (0.1,))), ("decisions",)),
    "unsubscribes": Case(lambda: deployment(World(unsubscribes=(0.04, 0.002, 0.002))), ("cost events",)),
    "before the start": Case(lambda: deployment(World(order_factor=0.6)), ("placebo",)),
    "propensities": Case(lambda: deployment(World(logged=(0.5, 0.1, 0.4))), ("importance weights",)),
    "deliveries": Case(lambda: deployment(World(users=300, delivered=0.5)), ("deliveries",)),
    "one action": Case(
        lambda: deployment(World(last_channel=(0.0, 1.0, 0.0))),
        ("share of an action",),
        settings={"alerts.max_action_share": 0.01},  # of many messages on one channel
    ),
    "no arms": Case(lambda: deployment(World(users=300), shares=(1.0, 0.0, 0.0))),
    "arms by hash": Case(lambda: deployment(World(users=300)), arms=Arms(holdout=0.2, business_as_usual=0.3)),
    "an old log": Case(lambda: deployment(World(users=100, days=3)), ("age of the log", "decisions"), after=9 * DAY),
    "earlier": Case(lambda: deployment(World(users=300)), after=-3 * DAY),
}


#: Those that are checked by default: each rule that counts everybody, and arms that are told in several ways.
QUICK = ("fewer decisions", "unsubscribes", "before the start", "no arms", "arms by hash")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_they_are_those_of_the_log_as_a_whole(name: str, tmp_path: Path) -> None:
    case, passes = CASES[name], Passes(shows=False)
    history = case.log()
    now, found = history.span[1] + case.after, []
    settings = replace(config(tmp_path / "log", **case.settings), arms=case.arms)
    wanted = check_alerts(settings, history, now, DAY)
    assert {one.rule for one in wanted.alerts} >= {*case.fires}
    for n in (1, 8):
        write_buckets(history, tmp_path / "log", n)
        found.append(check_alerts_over_buckets(settings, now, DAY, tmp_path, passes))
        shutil.rmtree(tmp_path / "log")
    assert found == [wanted, wanted]
    assert not list(tmp_path.iterdir())


def test_larger_logs_are_checked_on_a_sample(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Arms and numbers are everybody's still; of the sample it is said how many users it has."""
    history = deployment(World(unsubscribes=(0.04, 0.002, 0.002), keep=(1.0,) * 7 + (0.1,), delivered=0.5))
    write_buckets(history, tmp_path / "log", 8)
    now = history.span[1] - DAY + HOUR
    wanted = check_alerts(config(tmp_path / "log"), history, now, DAY)
    some = config(tmp_path / "log", **{"evaluation.max_users": 200})
    found = check_alerts_over_buckets(some, now, DAY, tmp_path, Passes(shows=False))
    assert "are checked on 200 of them" in caplog.text
    for rule in ("decisions", "cost events", "placebo"):
        of_rule = [[one for one in each.alerts if one.rule == rule] for each in (found, wanted)]
        assert of_rule[0] == of_rule[1]
    assert {one.rule for one in found.alerts} >= {"decisions", "cost events", "deliveries"}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment of five days with its decisions by date, whose log is divided into buckets as well."""
    folder = tmp_path_factory.mktemp("deployed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert simulate.main(["--config", str(CLOSED_LOOP), "--out", "run"]) == 0
        write_buckets(read_history(Path("run/log")), Path("buckets"), 8)
    return folder


def in_buckets(folder: Path, patch: pytest.MonkeyPatch, program: Any) -> tuple[str, ...]:
    """Let the deployment in a copy of the folder read buckets; the program may not read the log as a whole."""
    patch.chdir(folder)
    patch.setattr(program, "build_history", lambda *_: pytest.fail("the log was read as a whole"))
    return ("--history.path", "buckets", "--history.decided", "run/decisions")


@pytest.mark.parametrize("at", ["2024-01-08T07:00", pytest.param("2024-01-12T07:00", marks=pytest.mark.slow)])
def test_alerts_of_a_deployment_with_decisions_by_date(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    shutil.copytree(simulated, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    whole = ("--history.path", "run/log", "--history.decided", "run/decisions")
    code = alerts.main(["run", "--at", at, *whole])
    wanted = json.loads(Path("run/alerts.json").read_text())
    content = yaml.safe_load(Path("run/config.yaml").read_text())
    content["history"]["source"] = "folder"
    Path("run/config.yaml").write_text(yaml.safe_dump(content))
    flags = in_buckets(tmp_path / "here", monkeypatch, alerts)
    assert alerts.main(["run", "--at", at, *flags]) == code
    assert json.loads(Path("run/alerts.json").read_text()) == wanted
    assert not list(Path("run").glob(".scratch*"))


def test_a_trial_of_a_deployment_with_decisions_by_date(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(simulated, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    line = ["--config", "run/config.yaml", "--history.source", "folder", "--history.decided", "run/decisions"]
    assert trial.main([*line, "--history.path", "run/log", "--out", "whole"]) == 0
    in_buckets(tmp_path / "here", monkeypatch, trial)
    assert trial.main([*line, "--history.path", "buckets", "--out", "found"]) == 0
    found, wanted = (json.loads(Path(name, "trial.json").read_text()) for name in ("found", "whole"))
    assert found.keys() == wanted.keys()
    assert found["verdict"] == wanted["verdict"]
    assert found["arms"] == wanted["arms"]
    assert found["checks"] == wanted["checks"]
    assert found["notes"] == wanted["notes"]


def test_explanations_read_the_bucket_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The explanation is that of the whole log, and all other buckets may be lost."""
    monkeypatch.chdir(tmp_path)
    history = daily_log(90)
    train_on(history, Path())
    write_buckets(history, Path("buckets"), 16)
    decide.main(["run", "--out", "decisions.parquet"])
    row = pd.read_parquet("decisions.parquet").iloc[7]
    line = ["run", "--decision", row.decision_id, "--decisions", "decisions.parquet"]
    capsys.readouterr()
    explain.main(line)
    wanted = capsys.readouterr().out
    own = next(path for path in sorted(Path("buckets").glob("bucket-*")) if _has_user(path, str(row.user_id)))
    for path in Path("buckets").glob("bucket-*"):
        if path != own:
            for file in path.rglob("*.parquet"):
                file.write_bytes(b"x" * file.stat().st_size)  # reading it would fail
    in_buckets(tmp_path, monkeypatch, explain)
    explain.main([*line, "--history.path", "buckets"])
    assert capsys.readouterr().out == wanted


def _has_user(bucket: Path, user: str) -> bool:
    (file,) = bucket.glob("users.*.parquet")
    return user in set(pd.read_parquet(file)["user_id"].astype(str))
