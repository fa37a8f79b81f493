"""A run folder is data: what is damaged, edited, foreign or in use is refused with one clear error."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import crosschannel
from crosschannel.core import ConfigError, CrosschannelError
from crosschannel.pipeline.run_files import AFTER_TRAINING, RunLock, read_json, write_json
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import decide, evaluate, train
from tests import ROOT
from tests.programs.samples import QUICK, SMALL, run_here, run_program


@pytest.fixture
def run(small_run, tmp_path, monkeypatch) -> Path:
    """A copy of a finished run, which a test may spoil."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py")])
    shutil.copytree(small_run[0], tmp_path / "run")
    return tmp_path / "run"


def refusal(main: Callable[[list[str]], int], *arguments: object) -> str:
    """The one error with which a program ends."""
    with pytest.raises(CrosschannelError) as caught:
        main([str(one) for one in arguments])
    return str(caught.value)


def edit(run: Path, name: str, value: object) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    *sections, last = name.split(".")
    section = config
    for part in sections:
        section = section[part]
    section[last] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def resealed(path: Path, change: Callable[[dict], None]) -> None:
    """Changes a file as somebody can who knows the format: its checksum fits again."""
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    data = path.read_bytes()[:-2] + struct.pack("<H", 71)
    path.write_bytes(data + b"sha256:" + hashlib.sha256(data).hexdigest().encode())


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("seed", 7, "seed is 7, but the run was trained with 0"),
        ("split.train", 0.5, "split.train is 0.5, but the run was trained with 0.6"),
        ("reward.goals", [{"event": "order:*", "weight": 2.0}], "reward.goals is [{"),
        ("evaluation.min_ess", 50.0, "evaluate takes other settings as flags"),
        ("guardrails.weekly_cap", 3, "decide takes other guardrails as flags"),
        ("agent.settings.members", 4, "agent.settings.members is 4, but the run was trained with 3"),
        ("history.churn_events", ["unsubscribed"], "history.churn_events is ['unsubscribed'], but the run was"),
    ],
)
def test_an_edited_configuration_is_refused_with_the_key_and_both_values(run, name, value, shown):
    if name == "split.train":
        edit(run, "split.test", 0.4)
    if name == "guardrails.weekly_cap":
        edit(run, "history.source", "folder")  # a market refuses guardrails
    edit(run, name, value)
    if name.partition(".")[0] not in AFTER_TRAINING:
        for main, flags in ((evaluate.main, ()), (decide.main, ("--out", "x.csv"))):
            message = refusal(main, run, *flags)
            assert shown in message
            assert "config.yaml" in message
    (run / "metrics.json").unlink()
    assert shown in refusal(train.main, "--resume", run)
    assert not Path("x.csv").exists()


def test_an_ended_run_may_be_judged_with_other_settings_of_the_evaluation(run):
    """Nothing was learned with them; the result of the training's own settings is not taken for theirs."""
    edit(run, "evaluation.min_ess", 1e6)
    assert Run.open_ended(run).stored_result() is None
    assert evaluate.main([str(run)]) == 0
    estimates = json.loads((run / "evaluation.json").read_text())["evaluation"]["estimates"]
    assert not any(one["identified"] for one in estimates)


def test_no_user_is_judged_that_was_trained_on(run, monkeypatch):
    """The fault that was found: another seed in the file made other users test users."""
    stored = Run.open_ended(run).trained_with("policy")
    edit(run, "seed", 1)
    assert "seed is 1" in refusal(evaluate.main, run, "--out", "elsewhere")
    edit(run, "seed", 0)
    assert Run.open_ended(run).config.seed == stored.config.seed


@pytest.mark.parametrize("change", [("name", "other"), ("run_dir", "elsewhere"), ("device", "auto")])
def test_where_a_run_is_and_what_computes_it_may_change(run, change):
    edit(run, *change)
    assert evaluate.main([str(run)]) == 0


SEALED = ("policy.pt", "checkpoint.pt", "metrics.json", "evaluation.json")


@pytest.mark.parametrize("flips", [4, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SEALED)
def test_every_bit_flip_is_refused(run, name, flips):
    rng = random.Random(name)
    path = run / name
    whole = path.read_bytes()
    for _ in range(flips):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        assert name in damaged(run, name)


@pytest.mark.parametrize("name", [*SEALED, "config.yaml"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: data[:-20], id="cut"),
        pytest.param(lambda data: data + data, id="doubled"),
        pytest.param(lambda data: b"[" * 100_000, id="nested"),
        pytest.param(lambda data: b'{"seed": ' + b"9" * 5000 + b"}", id="huge number"),
        pytest.param(lambda data: bytes(range(256)) * 40, id="noise"),
        pytest.param(lambda data: b"[1, 2, 3]", id="another type"),
        pytest.param(lambda data: b"null\n", id="nothing"),
        pytest.param(lambda data: b"a: &a [x,x]\nb: &b [*a,*a,*a,*a,*a,*a]\n" + b"\n".join(
            b"%c: &%c [%s]" % (99 + i, 99 + i, b",".join([b"*%c" % (98 + i)] * 9)) for i in range(15)), id="aliases"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_error_that_names_it(run, name, damage):
    path = run / name
    path.write_bytes(damage(path.read_bytes()))
    began = time.monotonic()
    message = damaged(run, name)
    assert name in message
    assert time.monotonic() - began < 10
    assert len(message.splitlines()) <= 30


def damaged(run: Path, name: str) -> str:
    if name == "evaluation.json":
        return refusal(evaluate.main, run)
    if name == "checkpoint.pt":
        (run / "metrics.json").unlink(missing_ok=True)
        return refusal(train.main, "--resume", run)
    message = refusal(evaluate.main, run)
    assert refusal(decide.main, run, "--out", "x.csv") == message
    return message


@pytest.mark.parametrize("name", ["policy.pt", "metrics.json"])
def test_a_file_of_another_run_is_refused(run, name):
    flags = ("--seed=1", "--train.offline-updates=0", "--out", "other")
    train.main([*SMALL, *flags])
    shutil.copy(Path("other") / name, run / name)
    message = refusal(decide.main, run, "--out", "x.csv")
    assert "metrics.json is not of the policy" in message
    if name == "policy.pt":  # with what marks the run as finished of the other run as well
        shutil.copy(Path("other") / "metrics.json", run / "metrics.json")
        assert "seed is 0, but the run was trained with 1" in refusal(decide.main, run, "--out", "x.csv")
    shutil.copy(Path("other") / "checkpoint.pt", run / "checkpoint.pt")
    (run / "metrics.json").unlink()
    assert "seed is 0, but the run was trained with 1" in refusal(train.main, "--resume", run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("agent"), "lacks agent"),
        (lambda state: state.update(agent={}), "is not a policy that this program can use"),
        (lambda state: state.update(modules="channel"), "policy.pt"),
        (lambda state: state.update(extra={}), "does not hold what a run has learned with"),
        (lambda state: state["extra"]["run"].update(features=7), "does not hold what a run has learned with"),
        (lambda state: state["extra"]["run"].update(history=" "), "' ' is not the fingerprint of a history"),
        (lambda state: state["extra"]["run"].update(config={"sede": 1}), "unknown key 'sede'"),
        (lambda state: state["agent_spec"].update(name="uniform", settings={}), "policy.pt"),
        (lambda state: state["agent_spec"].update(seeds=3), "is not a policy that this program can use"),
    ],
)
def test_content_of_another_shape_is_one_error(run, change, message):
    resealed(run / "policy.pt", change)
    metrics = read_json(run / "metrics.json", "", 99)
    write_json(
        {**metrics, "policy": hashlib.sha256((run / "policy.pt").read_bytes()).hexdigest()}, run / "metrics.json"
    )
    assert message in refusal(decide.main, run, "--out", "x.csv")


@pytest.mark.parametrize("lost", ["evaluation.estimates", "truth"])
def test_a_stored_evaluation_without_what_a_report_needs_is_refused(run, lost):
    """Its checksum fits, but its whole action, or the oracle of its market, is absent."""
    stored = read_json(run / "evaluation.json", "", 99)
    if lost == "truth":
        stored["truth"] = [row for row in stored["truth"] if row["policy"] != "oracle"]
    else:
        kept = [one for one in stored["evaluation"]["estimates"] if one["module"] is not None]
        stored["evaluation"]["estimates"] = kept
    write_json(stored, run / "evaluation.json")
    assert "evaluation.json is not an evaluation" in refusal(evaluate.main, run)


def test_weights_that_are_not_finite_decide_nothing(run):
    def spoil(state: dict) -> None:
        def walk(value: object) -> bool:
            parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel():
                value.view(-1)[0] = float("nan")
                return True
            return any(walk(part) for part in parts)

        assert walk(state["agent"])

    resealed(run / "policy.pt", spoil)
    metrics = read_json(run / "metrics.json", "", 99)
    write_json(
        {**metrics, "policy": hashlib.sha256((run / "policy.pt").read_bytes()).hexdigest()}, run / "metrics.json"
    )
    message = refusal(decide.main, run, "--out", "x.csv")
    assert re.search(r"policy\.pt cannot decide: .+ of the policy is not a finite number", message)
    assert not Path("x.csv").exists()


def test_the_same_run_writes_the_same_bytes(small_run, tmp_path):
    run, _ = small_run
    run_program("train.py", *SMALL, cwd=tmp_path)
    jsons, card = ("metrics.json", "evaluation.json"), "MODEL_CARD.md"
    for name in ("checkpoint.pt", "policy.pt", *jsons, "policy.csv", card, "config.yaml"):
        assert (run / name).read_bytes() == (tmp_path / "runs" / "market" / name).read_bytes(), name


CODE = """
from pathlib import Path
Path({mark!r}).touch()
from crosschannel.agents.baselines import Uniform
class Mine(Uniform):
    def __init__(self, modules, context_dim, settings, seed, device):
        super().__init__(modules, context_dim, settings, seed, device)
"""


@pytest.fixture(scope="module")
def made_by_others(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A run with a class of its maker's own, where the class comes from, and what shows that its code was run."""
    folder = tmp_path_factory.mktemp("others")
    code, mark = folder / "code", folder / "was_run"
    code.mkdir()
    (code / "their_agent.py").write_text(CODE.format(mark=str(mark)))
    flags = [flag for flag in QUICK if not flag.startswith("--agent.name")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{code}"}
    command = [sys.executable, str(ROOT / "train.py"), *flags, "--agent.name=their_agent:Mine", "--out", "run"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return folder / "run", code, mark


@pytest.fixture
def foreign(made_by_others, tmp_path) -> tuple[Path, Path, Path]:
    """The same with a copy of the run, before its code was run."""
    run, code, mark = made_by_others
    shutil.copytree(run, tmp_path / "run")
    mark.unlink(missing_ok=True)
    return tmp_path / "run", code, mark


def python(*arguments: object, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    found = str(ROOT) if path is None else f"{ROOT}{os.pathsep}{path}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": found}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


#: What opens a run, and from where it is asked to: working directory and path of imports, by the names below.
OPENS = {
    "evaluate": [("run", "code")],
    "decide": [("code", None), ("empty", "run")],
}
OPENS_MORE = {"decide": [("run", "code")], "evaluate": [("code", None), ("empty", "run")]}


@pytest.mark.parametrize("places", [OPENS, pytest.param(OPENS_MORE, marks=pytest.mark.slow)])
def test_no_code_that_a_run_names_is_run_unless_the_command_names_it_too(foreign, tmp_path, places):
    run, code, mark = foreign
    shutil.copy(code / "their_agent.py", run)
    (tmp_path / "empty").mkdir()
    folders = {"run": run, "code": code, "empty": tmp_path / "empty", None: None}
    commands = {"evaluate": ["evaluate", run], "decide": ["decide", run, "--out", tmp_path / "x.csv"]}
    for name, found in places.items():
        # Not asked for: wherever the code can be found. The programs open a run in the same way.
        for cwd, path in found:
            done = python("-m", "crosschannel", *commands[name], cwd=folders[cwd], path=folders[path])
            assert done.returncode == 1
            assert "names the class 'their_agent:Mine', which would be imported and run" in done.stderr
            assert "--allow-class their_agent:Mine" in done.stderr
    allowed = ("-m", "crosschannel", *commands["decide"], "--allow-class", "their_agent:Mine")
    # Asked for, but it lies in the run's folder, or only in the working directory.
    done = python(*allowed, cwd=tmp_path / "empty", path=run)
    assert "lies in the run's own folder" in done.stderr
    done = python(*allowed, cwd=code)
    assert done.returncode == 1
    assert "cannot be imported: No module named 'their_agent'" in done.stderr
    assert not mark.exists()
    # Asked for, and from where the user has it.
    done = python(*allowed, cwd=tmp_path / "empty", path=code)
    assert done.returncode == 0, done.stderr
    assert mark.exists()


def test_resuming_runs_no_code_that_only_the_run_names(foreign):
    run, code, mark = foreign
    (run / "metrics.json").unlink()
    done = python(ROOT / "train.py", "--resume", run, cwd=code, path=code)
    assert "names the class 'their_agent:Mine'" in done.stderr
    assert not mark.exists()


def test_a_policy_file_cannot_name_another_class_than_the_configuration(foreign, tmp_path):
    """The file that decides is not a second way in."""
    _, code, mark = foreign
    run_here("train.py", *QUICK, "--out", "plain", cwd=tmp_path)
    plain = tmp_path / "plain"
    resealed(plain / "policy.pt", lambda state: state["agent_spec"].update(name="their_agent:Mine"))
    metrics = read_json(plain / "metrics.json", "", 99)
    write_json(
        {**metrics, "policy": hashlib.sha256((plain / "policy.pt").read_bytes()).hexdigest()}, plain / "metrics.json"
    )
    done = python(ROOT / "decide.py", plain, "--out", "x.csv", cwd=tmp_path, path=code)
    assert "policy.pt names the class 'their_agent:Mine'" in done.stderr
    assert not mark.exists()


def test_files_of_the_working_directory_do_not_replace_modules(small_run, tmp_path):
    """With `python -m` the working directory comes first: a run folder that holds a `torch.py` must not be imported."""
    run = tmp_path / "run"
    shutil.copytree(small_run[0], run)
    for name in ("torch", "scipy", "jinja2", "matplotlib", "pyarrow"):
        (run / f"{name}.py").write_text("raise SystemExit('this file was run')")
    done = python("-m", "crosschannel", "evaluate", ".", cwd=run)
    assert done.returncode == 0, done.stderr


def test_a_second_program_on_a_run_refuses_and_a_crash_releases_it(run):
    with RunLock(run):
        (run / "metrics.json").rename(run / "kept")
        for main, arguments in ((train.main, ("--resume", run)), (train.main, (*QUICK, "--out", run, "--force"))):
            message = refusal(main, *arguments)
            assert f"run is in use by process {os.getpid()}: wait until it has ended" in message
        (run / "kept").rename(run / "metrics.json")
        assert "is in use by process" in refusal(evaluate.main, run)
        decide.main([str(run), "--out", "x.csv"])  # reads one file, which is replaced as a whole
        evaluate.main([str(run), "--out", "elsewhere"])
    holder = "import os, time\nfrom pathlib import Path\nfrom crosschannel.pipeline.run_files import RunLock\n"
    holder += f"lock = RunLock(Path({str(run)!r}))\nprint('held', flush=True)\ntime.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", holder], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"in use by process {process.pid}"):
            RunLock(run)
        process.kill()
    with RunLock(run):
        pass


def test_the_lock_does_not_follow_a_link(run, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (run / ".lock").unlink()
    (run / ".lock").symlink_to(tmp_path / "precious")
    assert ".lock cannot be written" in refusal(evaluate.main, run)
    assert (tmp_path / "precious").read_text() == "mine"


def test_what_a_killed_process_left_before_the_run_began_is_used(tmp_path):
    (tmp_path / "runs" / "market").mkdir(parents=True)
    (tmp_path / "runs" / "market" / ".lock").write_text("process 1\n")
    (tmp_path / "runs" / "market" / ".config.yaml.part").write_text("name: ma")
    run_here("train.py", *QUICK, cwd=tmp_path)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"market"}
    assert (tmp_path / "runs" / "market" / "metrics.json").is_file()
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / ".lock").touch()
    run_here("train.py", *QUICK, "--out", "named", "--force", cwd=tmp_path)
    run_here("train.py", *QUICK, cwd=tmp_path)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"market", "market-2"}


def test_a_name_that_looks_like_a_number_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train.main([*QUICK, "--name", "1e3"])
    assert Run.open_ended(Path("runs/1e3")).config.name == "1e3"
    assert evaluate.main(["runs/1e3"]) == 0


def test_an_evaluation_that_is_only_read_is_not_written_again(run):
    before = (run / "evaluation.json").stat().st_mtime_ns
    result = crosschannel.evaluate(run)
    assert (run / "evaluation.json").stat().st_mtime_ns == before
    crosschannel.evaluate(run, out=Path("elsewhere"))
    one, other = (json.loads((folder / "evaluation.json").read_text()) for folder in (run, Path("elsewhere")))
    assert one == other
    assert np.isfinite([value.per_user for value in result.truth]).all()
