"""The programs as a user runs them: what they write, that they repeat to the bit, and that nothing is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from crosschannel.core.errors import InputError
from crosschannel.core.times import DAY, HOUR
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.eligibility import last_eligible, read_eligible, without_churned
from crosschannel.histories.history import History
from crosschannel.histories.propensities.sources import ESTIMATED, LOGGED
from crosschannel.histories.readers.folder import write_history
from crosschannel.histories.splits import split_time
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import read_config
from crosschannel.pipeline.judgement.validation import Validation
from crosschannel.programs.evaluate import FILES
from crosschannel.reward import make_reward
from tests import ROOT
from tests.programs.samples import QUICK, SMALL, run_here, run_program


def same(a: object, b: object, place: str = "") -> None:
    """Asserts that two checkpoints hold the same bits."""
    assert type(a) is type(b), place
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place  # type: ignore[arg-type]
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place  # type: ignore[attr-defined]
        for key in a:
            same(a[key], b[key], f"{place}.{key}")  # type: ignore[index]
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place  # type: ignore[arg-type]
        for i, (x, y) in enumerate(zip(a, b, strict=True)):  # type: ignore[call-overload]
            same(x, y, f"{place}[{i}]")
    else:
        assert a == b, place


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoint.pt", weights_only=True)


LAYOUT = "custom_scalars__config__"


def tags(run: Path) -> dict[str, set[str]]:
    """The tags of a run by kind, as docs/metrics.md names the kinds."""
    found = EventAccumulator(str(run / "tensorboard")).Reload().Tags()
    kinds = {kind: set(found[f"{kind}s"]) for kind in ("scalar", "histogram", "image")}
    texts = {tag.removesuffix("/text_summary") for tag in found["tensors"]}
    assert LAYOUT in texts  # it arranges the curves, and is not one of them
    return kinds | {"text": texts - {LAYOUT}}


def test_a_run_writes_what_it_promises(small_run):
    run, printed = small_run
    jsons, card = ("metrics.json", "evaluation.json"), "MODEL_CARD.md"
    for name in ("config.yaml", "checkpoint.pt", "policy.pt", *jsons, "policy.csv", card):
        assert (run / name).is_file(), name
    assert not list(run.glob("*.part"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert {row["policy"] for row in metrics["truth"]} >= {
        "ensemble_thompson",
        "oracle",
        "business as usual",
        "no_send",
    }
    assert f"Next: python {ROOT / 'evaluate.py'} runs/market" in printed
    assert "per user**" in printed


def test_a_killed_run_goes_on_to_the_same_bits(small_run, tmp_path):
    """SIGKILL as soon as the first checkpoint is there, in the middle of the replay, then --resume."""
    run, _ = small_run
    again = tmp_path / "runs" / "market"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *SMALL],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (again / "checkpoint.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (again / "metrics.json").is_file()
    reached = checkpoint(again)["extra"]["done"]
    assert 0 < reached["steps"] < checkpoint(run)["extra"]["done"]["steps"]

    run_program("train.py", "--resume", str(again), cwd=tmp_path)
    same(checkpoint(run), checkpoint(again))
    assert (run / "metrics.json").read_bytes() == (again / "metrics.json").read_bytes()
    assert tags(again) == tags(run)


def test_the_documentation_defines_every_tag(small_run, funnel_run):
    """docs/metrics.md and the tags of two real runs, without a funnel and with one, both ways."""
    written = tags(small_run[0]), tags(funnel_run)
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| (scalar|histogram|image|text) \|", page, re.M)
    assert rows
    for kind in written[0]:
        found = written[0][kind] | written[1][kind]
        assert found, kind
        patterns = {
            tag: re.compile(re.sub(r"<[a-z]+>", "[^/]+", re.escape(tag).replace(r"\<", "<").replace(r"\>", ">")))
            for tag, of in rows
            if of == kind
        }
        for tag in found:
            assert any(pattern.fullmatch(tag) for pattern in patterns.values()), f"{tag} is not in docs/metrics.md"
        for tag, pattern in patterns.items():
            assert any(pattern.fullmatch(name) for name in found), f"docs/metrics.md has {tag}, no run writes it"


def test_curves_of_the_validation_users_show_the_evaluations_of_every_order(funnel_run):
    """The event file of a real run, read back: bands around the values, floors, and only what is identified."""
    events = EventAccumulator(str(funnel_run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()

    def curve(tag: str) -> dict[int, float]:
        return {event.step: event.value for event in events.Scalars(f"validation/{tag}")}

    scalars = events.Tags()["scalars"]
    orders = [int(tag.rpartition("_")[2]) for tag in scalars if tag.startswith("validation/ess/order_")]
    assert orders == list(range(len(orders)))
    required, shown = curve("ess_required"), 0
    assert len(set(required.values())) == 1
    for order in orders:
        ess, mass = curve(f"ess/order_{order}"), curve(f"unsupported_mass/order_{order}")
        assert ess.keys() == mass.keys() == required.keys()
        if f"validation/value/order_{order}" not in scalars:
            continue
        low, value, high = (curve(f"{bound}/order_{order}") for bound in ("low", "value", "high"))
        assert low.keys() == value.keys() == high.keys()
        for step in value:
            shown += 1
            assert low[step] < value[step] < high[step]
            assert ess[step] >= required[step]
            assert mass[step] <= 0.1 + 1e-6
    assert shown
    headline, lift, logged = curve("value"), curve("lift_over_logging"), curve("logged")
    assert headline == curve("value/order_1")
    assert all(lift[step] == pytest.approx(headline[step] - logged[step], abs=1e-5) for step in headline)
    sent = curve("send_rate")
    assert all(0 <= rate <= 1 for rate in (*sent.values(), *curve("cost_rate/unsubscribed").values()))
    assert len(set(curve("send_rate_logged").values())) == 1
    layout = layout_pb2.Layout.FromString(events.Tensors(LAYOUT)[0].tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == ["held-out value", "effective decisions", "messages"]
    band = layout.category[0].chart[0]
    assert band.title == "value, order 1"
    assert band.margin.series[0].value == "validation/value/order_1"


def test_evaluate_writes_a_report(small_run):
    run, _ = small_run
    written = (run / "evaluation.json").stat().st_mtime_ns
    done = run_program("evaluate.py", str(run), cwd=run.parent)
    report = (run / "report.html").read_text()
    evaluation = json.loads((run / "evaluation.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    assert {name: evaluation[name] for name in ("evaluation", "truth")}.items() <= metrics.items()
    assert (run / "evaluation.json").stat().st_mtime_ns == written
    assert "has an evaluation of this log, policy and settings" in done.stderr
    assert "Off-policy estimate" in done.stdout
    assert "ensemble_thompson" in report
    assert "logged propensities" in done.stdout


def test_decide_writes_decisions_that_are_a_log_again(small_run, tmp_path):
    run, _ = small_run
    run_here("decide.py", str(run), "--out", str(tmp_path / "out.parquet"), cwd=tmp_path)
    run_here("decide.py", str(run), "--out", str(tmp_path / "again.csv"), cwd=tmp_path)
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert len(table) == table.user_id.nunique() == 400
    assert table.propensity.between(0, 1).all()
    again = pd.read_csv(tmp_path / "again.csv")
    assert (again.decision_id == table.decision_id).all()
    assert (again.channel.fillna("") == table.channel.fillna("")).all()


def test_decisions_are_not_overwritten_unless_asked(small_run, tmp_path):
    run, _ = small_run
    out = tmp_path / "out.csv"
    out.write_text("kept")
    done = run_program("decide.py", str(run), "--out", str(out), cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert f"{out} exists already: give another --out, or overwrite it with --force" in done.stderr
    assert out.read_text() == "kept"
    run_here("decide.py", str(run), "--out", str(out), "--force", cwd=tmp_path)
    assert len(pd.read_csv(out)) == 400


def test_a_run_has_the_folder_that_is_named_and_replaces_an_earlier_one_if_asked(tmp_path):
    flags = (*QUICK, "--out", "here/first")
    run_here("train.py", *flags, cwd=tmp_path)
    run = tmp_path / "here" / "first"
    assert yaml.safe_load((run / "config.yaml").read_text())["name"] == "first"
    written = (run / "metrics.json").stat().st_mtime_ns
    done = run_here("train.py", *flags, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "here/first exists already" in done.stderr
    assert (run / "metrics.json").stat().st_mtime_ns == written
    (run / "report.html").touch()
    run_here("train.py", *flags, "--force", cwd=tmp_path)
    assert (run / "metrics.json").stat().st_mtime_ns > written
    assert not (run / "report.html").exists()
    (tmp_path / "here" / "notes").mkdir()
    (tmp_path / "here" / "notes" / "thesis.txt").touch()
    done = run_here("train.py", *flags[:-1], "here/notes", "--force", cwd=tmp_path, check=False)
    assert "here/notes is not a run" in done.stderr
    assert (tmp_path / "here" / "notes" / "thesis.txt").is_file()


def test_an_evaluation_on_another_log_goes_to_a_folder_of_its_own(small_run, tmp_path):
    run, _ = small_run
    before = {path: path.read_bytes() for path in run.glob("*.json")}
    history, _ = simulate_history(Market(MarketConfig(users=300, days=8, seed=3)))
    write_history(history, tmp_path / "log")
    flags = (str(run), "--history.path", "log", "--out", "report")
    run_here("evaluate.py", *flags, cwd=tmp_path)
    assert "the history has changed since the run was trained" in (tmp_path / "report" / "report.html").read_text()
    assert {path.name for path in (tmp_path / "report").iterdir()} == set(FILES)
    assert {path: path.read_bytes() for path in run.glob("*.json")} == before
    done = run_here("evaluate.py", *flags, cwd=tmp_path, check=False)
    assert "report/evaluation.json exists already" in done.stderr


def test_decisions_keep_to_what_was_eligible_last():
    history, _ = simulate_history(Market(MarketConfig(users=400, days=14)))
    d, e = history.decisions, history.events
    silent = replace(history, decisions=replace(d, eligible=None))
    end = history.span[1]
    mask, silent_mask = (without_churned(last_eligible(h, end), h, end) for h in (history, silent))
    churned = set(e.user[e.event == history.event_names.index("unsubscribed")].tolist())
    assert churned
    for user in range(history.n_users):
        if user in churned:
            assert not mask[user, 1:].any()
            assert not silent_mask[user, 1:].any()
        else:
            assert (mask[user] == d.eligible[np.flatnonzero(d.user == user)[-1]]).all()
            assert silent_mask[user].all()


def decided(run: Path, folder: Path, *arguments: str, log: Path | None = None) -> pd.DataFrame:
    arguments = (*(("--history.path", str(log)) if log else ()), *arguments)
    run_here("decide.py", str(run), "--out", str(folder / "out.parquet"), "--force", *arguments, cwd=folder)
    return pd.read_parquet(folder / "out.parquet")


def test_decisions_keep_to_a_file_of_what_is_eligible(small_run, tmp_path):
    run, _ = small_run
    listed = ["user-000003", "user-000004", "user-000005"]
    pd.DataFrame({"user_id": listed, "eligible_channel": ["none|sms", "push|sms", "none"]}).to_csv(
        tmp_path / "now.csv", index=False
    )
    table = decided(run, tmp_path, "--eligible", str(tmp_path / "now.csv")).set_index("user_id")
    assert (table.channel[~table.index.isin(listed)] == "none").all()
    assert table.eligible_channel[listed].tolist() == ["none|sms", "none|push|sms", "none"]
    assert table.eligible_channel["user-000001"] == "none"
    assert table.channel["user-000003"] in ("none", "sms")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,eligible_chanel\nuser-000001,sms", "column 'eligible_chanel': the column is unknown"),
        ("user_id,eligible_channel\nuser-1,sms", "row 1, value 'user-1': the log has no such user"),
        ("user_id,eligible_channel\nuser-000001,fax", "'fax' is not an action of the module 'channel'"),
        ("user_id,eligible_channel\nuser-000001,sms\nuser-000001,sms", "row 2, value 'user-000001': the user has"),
        ("user,eligible_channel\nuser-000001,sms", "column 'user_id': the column is missing"),
        ("user_id\nuser-000001", "no module has a column"),
    ],
)
def test_a_wrong_file_of_what_is_eligible_is_explained(text, message, tmp_path):
    (tmp_path / "now.csv").write_text(text)
    history, _ = simulate_history(Market(MarketConfig(users=20, days=2)))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_eligible(tmp_path / "now.csv", history)
    assert "now.csv" in str(caught.value)


def test_decisions_in_the_past_see_nothing_of_what_came_later(small_run, tmp_path):
    """The same decisions from the whole log and from one that ends at their time."""
    run, _ = small_run
    history, _ = simulate_history(Market(MarketConfig(users=400, days=8)))
    at = int(history.decisions.time.min()) + 2 * DAY + HOUR
    known, _ = split_time(history, at)
    write_history(history, tmp_path / "whole")
    write_history(known, tmp_path / "known")
    moment = str(pd.Timestamp(at, unit="us"))
    whole, early = (
        decided(run, tmp_path, "--history.path", str(tmp_path / n), "--at", moment) for n in ("whole", "known")
    )
    pd.testing.assert_frame_equal(whole, early)
    assert (whole.channel != "none").any()


def test_decisions_keep_to_the_guardrails(small_run, tmp_path):
    """No channel but e-mail, and nobody within three days after a message, the last slot's included."""
    run, _ = small_run
    history, _ = simulate_history(Market(MarketConfig(users=400, days=8)))
    write_history(replace(history, decisions=replace(history.decisions, eligible=None)), tmp_path / "log")
    guardrails = ("--guardrails.min-gap", "3d", "--guardrails.weekly-caps", "{push: 0, sms: 0, in_app: 0}")
    log = ("--history.path", str(tmp_path / "log"), "--at", "2024-01-22T06:00:00")
    table = decided(run, tmp_path, *log, *guardrails).set_index("user_id")
    at = int(pd.Timestamp("2024-01-22T06:00:00").as_unit("us").to_datetime64().astype(np.int64))
    d = history.decisions
    recent = (d.actions[:, 0] > 0) & (d.time > at - 3 * DAY) & (d.time <= at)
    tired = set(history.user_ids[d.user[recent]])
    assert {name for name in table.index if table.eligible_channel[name] == "none"} >= tired
    assert set(table.channel) == {"none", "email"}
    assert len(tired) > 20


def test_decisions_need_a_log_that_reaches_their_time(small_run, tmp_path):
    run, _ = small_run
    for at in ("2023-01-01", "2030-01-01"):
        output = ("--out", str(tmp_path / "x.csv"))
        done = run_here("decide.py", str(run), *output, "--at", at, cwd=tmp_path, check=False)
        assert done.returncode != 0
        assert "is not covered by the log" in done.stderr
        assert not list(tmp_path.iterdir())


def test_decisions_and_their_log_are_a_history_again(small_run, tmp_path):
    run, _ = small_run
    table = decided(run, tmp_path)
    history, _ = simulate_history(Market(MarketConfig(users=400, days=8)))
    both = pd.concat([history.decisions_frame(), table], ignore_index=True)
    again = History.from_tables(both, history.events_frame(), history.modules, history.users)
    assert len(again.decisions) == len(history.decisions) + 400
    assert again.propensity_source == "logged"


def test_half_learned_policies_are_neither_judged_nor_used(small_run, tmp_path):
    run, _ = small_run
    half = tmp_path / "half"
    shutil.copytree(run, half)
    (half / "metrics.json").unlink()
    for program, arguments in (("evaluate.py", []), ("decide.py", ["--out", "x.csv"])):
        done = run_here(program, str(half), *arguments, cwd=tmp_path, check=False)
        assert done.returncode != 0
        assert f"run {half} is not finished; resume it with: python {ROOT / 'train.py'} --resume {half}" in done.stderr


def test_a_changed_history_is_noticed(tmp_path):
    """A run does not go on with another log, and an evaluation on another log says so."""
    for seed in (0, 1):
        history, _ = simulate_history(Market(MarketConfig(users=400, days=8, seed=seed)))
        write_history(history, tmp_path / f"log{seed}")
    changed = tmp_path / "changed"
    log = (f"--history.path={tmp_path / 'log'}", "--history.source=folder")
    shutil.move(tmp_path / "log0", tmp_path / "log")
    run_here("train.py", *QUICK, *log, "--out", str(changed), cwd=tmp_path)
    shutil.rmtree(tmp_path / "log")
    shutil.move(tmp_path / "log1", tmp_path / "log")
    done = run_here("evaluate.py", str(changed), cwd=tmp_path)
    assert "the history has changed since the run was trained" in done.stderr
    assert "the history has changed since the run was trained" in (changed / "report.html").read_text()
    (changed / "metrics.json").unlink()
    done = run_here("train.py", "--resume", str(changed), cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "has changed: restore it, or train a new run" in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ["--agent.settings.memberz", "3"],
        ["--reward.min-controls", "100000"],
        ["--history.source", "folder", "--history.path", "none"],
        ["--evaluation.market-users", "1"],
    ],
)
def test_a_run_that_cannot_begin_leaves_nothing_behind(flags, tmp_path):
    done = run_here("train.py", *SMALL, *flags, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert "error" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_goals_without_an_organic_level_have_no_lift(tmp_path):
    """Nobody unsubscribes without a message: a lift over nothing is no number."""
    path = tmp_path / "some.yaml"
    config = yaml.safe_load(Path(SMALL[1]).read_text())
    config["reward"]["goals"] = [{"event": "unsubscribed", "weight": -1.0}]
    path.write_text(yaml.safe_dump(config))
    run_here("train.py", "--config", str(path), *QUICK[2:], cwd=tmp_path)
    truth = json.loads((tmp_path / "runs" / "market" / "metrics.json").read_text())["truth"]
    assert {row["lift"] for row in truth} == {None}


def test_validation_users_without_a_reward_are_no_obstacle():
    config = read_config(Path(SMALL[1]))
    prepared = prepare(config)
    few = replace(prepared, model=make_reward("did", replace(prepared.model.spec, min_controls=1000)))
    assert Validation.build(config, few) is None
    assert Validation.build(config, prepared) is not None


def test_every_reward_that_is_learned_from_is_known_when_the_log_ends():
    prepared = prepare(read_config(Path(SMALL[1])))
    known = prepared.train.rewards.identified
    assert known.any()
    assert (prepared.train.rewards.available_at[known] <= prepared.history.span[1]).all()


def test_names_that_are_taken_get_a_number_and_ended_runs_are_not_repeated(small_run):
    run, _ = small_run
    done = run_here("train.py", "--resume", str(run), cwd=run.parent.parent)
    assert "is finished: its metrics are in" in done.stdout


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("train.py", ["--config", "none.yaml"], "none.yaml: there is no such configuration file"),
        ("train.py", ["--resume", "runs/none"], "runs/none is not a run"),
        ("train.py", [*SMALL, "--agent.name", "thomson"], "unknown agent 'thomson'"),
        ("train.py", [*SMALL, "--agent.name", "no_such_module:Mine"], "No module named 'no_such_module'. Install its"),
        ("train.py", [*SMALL, "--history.source", "folder"], "needs a folder: add --history.path"),
        ("evaluate.py", ["runs/none"], "runs/none is not a run"),
        ("decide.py", ["runs/none", "--out", "x.xlsx"], "written as .parquet or .csv"),
    ],
)
def test_errors_are_one_clear_line(program, arguments, message, tmp_path):
    done = run_here(program, *arguments, cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_is_learned_from_as_a_market_is(tmp_path):
    """The native folder round: write a market's log, train from it, without any truth at hand."""
    history, _ = simulate_history(Market(MarketConfig(users=400, days=8)))
    write_history(history, tmp_path / "log")
    done = run_here("train.py", *QUICK, "--history.source=folder", f"--history.path={tmp_path / 'log'}", cwd=tmp_path)
    assert "Off-policy estimate" in done.stdout
    assert "Truth" not in done.stdout


TABLES = """
source: tables
path: null
tables:
  decisions: {path: FOLDER/sends.csv, columns: {decision_id: id, user_id: customer, time: at}}
  events: [{path: FOLDER/events.csv}]
  users: {path: FOLDER/users.csv}
  modules: MODULES
"""


@pytest.mark.parametrize("source", ["folder", "tables"])
def test_decisions_joined_to_a_log_without_propensities_are_a_valid_history(source, tmp_path):
    """The round of a day: learn from a log without propensities, decide on it, append the file, learn from both.

    The new rows keep their exact propensities, the old rows get estimated ones.
    """
    history, _ = simulate_history(Market(MarketConfig(users=250, days=8)))
    unknown = np.full_like(history.decisions.propensity, np.nan)
    history = history.with_propensities(unknown, unknown[:, 0], "missing")
    write_history(history, tmp_path / "log")
    names = {"decision_id": "id", "user_id": "customer", "time": "at"}
    history.decisions_frame().rename(columns=names).to_csv(tmp_path / "sends.csv", index=False)
    history.events_frame().to_csv(tmp_path / "events.csv", index=False)
    history.users.to_csv(tmp_path / "users.csv", index=False)
    mapping = TABLES.replace("FOLDER", str(tmp_path)).replace("MODULES", json.dumps(history.modules.to_dict()))
    config = yaml.safe_load(Path(SMALL[1]).read_text())
    config["train"]["offline_updates"] = 2
    config["history"] = (
        yaml.safe_load(mapping) if source == "tables" else {"source": "folder", "path": str(tmp_path / "log")}
    )
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = tmp_path / "run"
    run_here("train.py", "--config", str(tmp_path / "c.yaml"), "--out", str(run), cwd=tmp_path)
    run_here("decide.py", str(run), "--out", str(tmp_path / "decisions.csv"), cwd=tmp_path)
    table = pd.read_csv(tmp_path / "decisions.csv", dtype={"user_id": str}, keep_default_na=False)
    if source == "tables":
        old = pd.read_csv(tmp_path / "sends.csv", dtype=str, keep_default_na=False)
        joined = pd.concat([old, table.rename(columns=names)], ignore_index=True)
        joined.to_csv(tmp_path / "sends.csv", index=False)
    else:
        joined = pd.concat([history.decisions_frame(), table], ignore_index=True)
        write_history(
            History.from_tables(joined, history.events_frame(), history.modules, history.users, span=history.span),
            tmp_path / "log",
        )
    built = prepare(read_config(run / "config.yaml")).history
    d = built.decisions
    new = np.isin(d.id, table["decision_id"])
    assert new.sum() == 250
    assert len(d) == len(history.decisions) + 250
    assert (d.propensity_source == np.where(new, LOGGED, ESTIMATED)).all()
    exact = table.set_index("decision_id").loc[d.id[new], "propensity"].astype(float)
    np.testing.assert_allclose(d.joint[new], exact, rtol=1e-12)
    assert f"propensities logged for 250 decisions, estimated for {len(history.decisions):,}" in built.summary()
