"""`crosschannel decide --out FOLDER`: a day at a time, as the daily job runs it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY, HOUR
from crosschannel.histories import read_history, write_history
from crosschannel.histories.logs import take_rows
from crosschannel.pipeline import UsageError
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import decide, evaluate, train
from tests.histories.readers.test_decided import START as LOG_START
from tests.histories.readers.test_decided import write_log
from tests.pipeline.loop.samples import ARMS, FIRST, START, train_until_the_tenth_day


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a log until the tenth day, and a run that has learned from it."""
    folder = tmp_path_factory.mktemp("days")
    train_until_the_tenth_day(folder)
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(trained: Path, day: int, *arguments: str, clock: str = "06:10") -> None:
    at = f"{FIRST + pd.Timedelta(days=day):%Y-%m-%d}T{clock}"
    decide.main([str(trained / "run"), "--at", at, "--out", "decided", "--guardrails.min-gap", "36h", *arguments])


def day_table(day: int) -> pd.DataFrame:
    return pd.read_parquet(Path("decided") / f"{FIRST + pd.Timedelta(days=day):%Y-%m-%d}" / "decisions.parquet")


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_days_follow_each_other_and_the_same_day_has_the_same_bits(trained, caplog, capsys):
    with caplog.at_level("INFO", logger=decide.logger.name):
        run(trained, 0, *ARMS)
        assert "deciding for the slot at 2024-10-14 06:00 UTC, the last one up to 2024-10-14 06:10" in caplog.text
        run(trained, 1, *ARMS)
        assert "the decisions in decided join the log" in caplog.text
    assert "decided/2024-10-14: " in capsys.readouterr().out
    tables = [day_table(day) for day in (0, 1)]
    sent = tables[0].set_index("user_id").channel != "none"
    blocked = tables[1].set_index("user_id").eligible_channel == "none"
    held = tables[1].set_index("user_id").arm == "holdout"
    assert sent.any()
    assert (blocked == sent | held).all()
    for table in tables:
        assert set(table.time.dt.tz_convert("UTC").dt.strftime("%H:%M")) == {"06:00"}
    before = contents()
    with pytest.raises(UsageError, match="the day was decided"):
        run(trained, 1, *ARMS)
    assert contents() == before
    run(trained, 1, *ARMS, "--force")
    assert contents() == before, "the day in the folder does not count when it is decided again"
    run(trained, 1, *ARMS, "--force", clock="09:59")
    assert contents() == before, "the time is rounded down"


def test_the_day_says_what_was_decided(trained):
    run(trained, 0, *ARMS)
    folder = Path("decided/2024-10-14")
    assert sorted(path.name for path in folder.iterdir()) == ["arms.parquet", "decide.json", "decisions.parquet"]
    summary = json.loads((folder / "decide.json").read_text())
    table, arms = day_table(0), pd.read_parquet(folder / "arms.parquet")
    assert summary["policy_version"] == Run.open(trained / "run").policy_version
    assert summary["at"] == "2024-10-14T06:00:00+00:00"
    assert summary["users"] == arms.arm.value_counts().reindex(["agent", "business_as_usual", "holdout"]).to_dict()
    assert len(arms) == 90
    mine = table[table.arm == "agent"]
    assert summary["counts"]["channel"] == mine.channel.value_counts().to_dict()
    assert summary["arms"] == {"holdout": 0.2, "business_as_usual": 0.2, "salt": "crosschannel", "cluster": None}
    assert summary["log_age_hours"] == -42.0


def test_what_was_decided_joins_the_log_with_its_arms(trained):
    for day in (0, 1):
        run(trained, day, *ARMS)
    found = read_history(trained / "log", Path("decided"))
    d = found.decisions
    mine = d.time >= START + 10 * DAY
    assert mine.sum() == len(day_table(0)) + len(day_table(1))
    assert (d.propensity_source[mine] == 0).all()
    assert set(d.arm[mine]) == {"agent", "holdout"}
    assert set(d.arm[~mine]) == {None}  # the arms had not begun


def test_a_run_is_evaluated_on_the_log_with_its_own_decisions(trained):
    """The holdout is left out, and the decisions of the policy count with their exact propensities."""
    for day in (0, 1):
        run(trained, day, *ARMS)
    flags = {"history": trained / "log", "out": Path("report")}
    settings = replace(Run.read_config(trained / "run").evaluation, min_ess=1, min_users=2)
    with_days = evaluate.evaluate(trained / "run", settings=settings, decided=Path("decided"), **flags)
    without = evaluate.evaluate(trained / "run", settings=settings, **flags)
    logged = with_days.evaluation.propensity_counts["logged"] - without.evaluation.propensity_counts["logged"]
    tables = pd.concat([day_table(day) for day in (0, 1)])
    # The log ends two days after the second decision, so that all windows have closed.
    assert 0 < logged <= (tables.arm == "agent").sum()
    held = with_days.evaluation.reward_counts["user is held out or waits, and serves as a control"]
    assert 0 < held <= (tables.arm == "holdout").sum()
    with pytest.raises(UsageError, match=r"leave out --history\.decided"):
        evaluate.main([str(trained / "run"), "--compare", str(trained / "run"), "--history.decided", "decided"])


def test_a_dry_run_writes_nothing_and_compares_with_the_day_before(trained, capsys):
    run(trained, 0, "--dry-run")
    assert not Path("decided").exists()
    assert "before" not in capsys.readouterr().out
    run(trained, 0)
    before = contents()
    capsys.readouterr()
    run(trained, 1, "--dry-run")
    shown = capsys.readouterr().out
    assert contents() == before
    first = day_table(0).channel.value_counts()
    line = next(line.split() for line in shown.splitlines() if line.startswith("channel") and " none " in line)
    assert line[3] == str(first["none"])
    assert "nothing is written; 90 decisions" in shown
    run(trained, 0, "--dry-run")
    assert contents() == before, "a dry run of a day that exists is allowed"


def test_users_who_could_be_sent_nothing_are_named_with_the_reason(trained, capsys):
    run(trained, 0)
    capsys.readouterr()
    run(trained, 1)
    closed = int((day_table(1).eligible_channel == "none").sum())
    assert closed > 0
    assert f"; nothing could be sent to {closed} of them (guardrails {closed})" in capsys.readouterr().out


def test_only_the_listed_users_and_the_share_get_messages(trained, capsys):
    users = [f"u{k:03d}" for k in range(0, 90, 2)]
    pd.DataFrame({"user_id": [*users, "not in the log"]}).to_csv("pilot.csv", index=False)
    run(trained, 0, "--only-users", "pilot.csv", "--ramp", "0.5")
    assert "waiting" in capsys.readouterr().out
    table = day_table(0)
    may = ~table.waiting
    assert set(table.user_id[may]) < set(users)
    assert (table.channel[table.waiting] == "none").all()
    run(trained, 1, "--only-users", "pilot.csv", "--ramp", "1")
    assert set(day_table(1).user_id[~day_table(1).waiting]) == set(users)
    pd.DataFrame({"user_id": ["nobody"]}).to_csv("pilot.csv", index=False)
    with pytest.raises(InputError, match="the log has none of these users"):
        run(trained, 2, "--only-users", "pilot.csv")


def test_arms_do_not_change_unnoticed(trained):
    run(trained, 0, *ARMS)
    with pytest.raises(ConfigError, match="--change-arms"):
        run(trained, 1)
    run(trained, 1, "--change-arms")
    assert set(day_table(1).arm) == {"agent"}


def test_a_user_who_would_change_the_arm_is_named(trained):
    """As after another household was given for the user; the settings of the arms are the same."""
    run(trained, 0, *ARMS)
    file = next(Path("decided").glob("2*")) / "arms.parquet"
    for table in (file, file.with_name("decisions.parquet")):
        rows = pd.read_parquet(table)
        rows.loc[rows["arm"] == "agent", "arm"] = "holdout"
        rows.to_parquet(table, index=False)
    with pytest.raises(ConfigError, match="users are not in the arm that they had"):
        run(trained, 1, *ARMS)
    run(trained, 1, *ARMS, "--change-arms")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda arms, file: file.write_bytes(b"PAR1"), r"arms\.parquet"),
        (lambda arms, file: arms.drop(columns="arm").to_parquet(file, index=False), "arms.parquet, column 'arm'"),
    ],
)
def test_arms_that_were_edited_are_refused_with_their_file(trained, write, message):
    run(trained, 0, *ARMS)
    file = next(Path("decided").glob("2*")) / "arms.parquet"
    write(pd.read_parquet(file), file)
    with pytest.raises(InputError, match=message):
        run(trained, 1, *ARMS)


@pytest.mark.parametrize("name", ["eligible.csv", "eligible.parquet"])
def test_a_file_of_eligibility_that_was_exported_empty_is_refused(trained, name):
    table = pd.DataFrame({"user_id": pd.Series(dtype=str), "eligible_channel": pd.Series(dtype=str)})
    table.to_csv(name, index=False) if name.endswith("csv") else table.to_parquet(name, index=False)
    with pytest.raises(InputError, match="the file has no row, so that nothing could be sent to anybody"):
        run(trained, 0, *ARMS, "--eligible", name)
    assert not Path("decided").exists()


def test_a_file_has_the_same_decisions_without_a_folder(trained):
    run(trained, 0, *ARMS)
    flags = ("--guardrails.min-gap", "36h", *ARMS)
    decide.main([str(trained / "run"), "--at", "2024-10-14T06:00", "--out", "one.parquet", *flags])
    pd.testing.assert_frame_equal(pd.read_parquet("one.parquet"), day_table(0))


def test_a_time_before_the_slots_of_the_log_is_refused(trained):
    with pytest.raises(ConfigError, match="is not covered by the log"):
        run(trained, -9)
    Path("x.txt").write_text("")
    with pytest.raises(UsageError, match="or into a folder by date"):
        decide.main([str(trained / "run"), "--out", "x.txt"])
    Path("decided").write_text("")
    with pytest.raises(UsageError, match="--out decided is a file"):
        run(trained, 0)


def test_a_log_of_an_earlier_hour_knows_the_decision_of_the_day_before(trained, tmp_path):
    """The export ends before yesterday's slot; its messages count for the gap all the same."""
    history = read_history(trained / "log")
    end = START + 10 * DAY + 5 * HOUR
    early = take_rows(history.events, history.events.time <= end)
    write_history(
        replace(
            history, events=early, span=(history.span[0], end), observed_until=np.minimum(history.observed_until, end)
        ),
        tmp_path / "early",
    )
    for day in (0, 1):
        run(trained, day, "--history.path", str(tmp_path / "early"))
    sent = (day_table(0).channel != "none").to_numpy()
    assert sent.any()
    assert ((day_table(1).eligible_channel == "none").to_numpy() == sent).all()


def test_a_day_whose_replacement_was_killed_is_restored_by_the_next_decision(trained, caplog):
    for day in (0, 1):
        run(trained, day, *ARMS)
    before = contents()
    moved = Path("decided/.2024-10-15.replaced")
    Path("decided/2024-10-15").rename(moved)
    with pytest.raises(InputError, match="the process that replaced this day was killed"):
        read_history(trained / "log", Path("decided"))
    with pytest.raises(UsageError, match="the day was decided"):
        run(trained, 1, *ARMS)
    assert contents() == before
    Path("decided/2024-10-15").rename(moved)
    run(trained, 1, *ARMS, "--force")
    assert contents() == before


def test_a_run_on_a_table_of_sends_decides_day_after_day(tmp_path):
    """Slots lie on a grid in local time; what was sent on the first day delivers its decisions."""
    write_log(tmp_path, pd.Timedelta("0h"))
    sends, visits = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("sends", "visits"))
    until = LOG_START + pd.Timedelta(days=8, hours=9)
    for name, frame in (("sends", sends), ("visits", visits)):
        frame[pd.to_datetime(frame["time"], utc=True, format="ISO8601") < until].to_csv(f"{name}.csv", index=False)
    mapping = {
        "decisions": {"path": "sends.csv", "columns": {"user_id": "user"}, "constants": {"channel": "email"}},
        "events": [{"path": "visits.csv", "columns": {"user_id": "user"}}],
        "modules": [
            {"name": "channel", "actions": ["none", "email"]},
            {"name": "offer", "actions": ["small", "large"]},
        ],
        "slots": {"every": "1d", "at": "11:00", "time_zone": "Europe/Berlin", "start": "stream"},
    }
    config = {
        "history": {"source": "tables", "tables": mapping},
        "context": {"windows": ["2d"], "events": ["visit"]},
        "reward": {
            "pre": "1d",
            "post": "1d",
            "overlap": "shared",
            "min_controls": 2,
            "goals": [{"event": "visit", "weight": 1.0}],
        },
        "agent": {"name": "best_fixed", "settings": {"floor": 0.9}},
        "train": {"offline_updates": 0},
        "evaluation": {"bootstrap_replicates": 40, "min_ess": 5, "min_users": 2},
    }
    Path("shop.yaml").write_text(json.dumps(config))
    train.main(["--config", "shop.yaml", "--run-dir", "runs", "--name", "shop"])
    flags = ("--out", "days", "--guardrails.min-gap", "36h", "--arms.holdout", "0.2")
    decide.main(["runs/shop", "--at", "2024-03-12T10:30", *flags])
    first = pd.read_parquet("days/2024-03-12/decisions.parquet").set_index("user_id")
    assert set(first.time.dt.strftime("%H:%M")) == {"10:00"}
    sent = first.channel == "email"
    assert sent.any()
    # The tool sends 20 minutes later, and the log of the next day has it.
    tool = pd.DataFrame(
        {
            "user": first.index[sent],
            "time": "2024-03-12T10:20:00Z",
            "event": "Sent",
            "offer": first.offer[sent].to_numpy(),
        }
    )
    pd.concat([pd.read_csv("sends.csv"), tool]).to_csv("sends.csv", index=False)
    later = visits[pd.to_datetime(visits["time"], utc=True, format="ISO8601") < until + pd.Timedelta(days=1)]
    later.to_csv("visits.csv", index=False)
    decide.main(["runs/shop", "--at", "2024-03-13T10:05", *flags])
    second = pd.read_parquet("days/2024-03-13/decisions.parquet").set_index("user_id")
    assert (second.eligible_channel == "none").equals((sent | (first.arm == "holdout")).reindex(second.index))
