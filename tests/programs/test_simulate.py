"""A simulated deployment: valid files, permanent arms, marketers' changes, and the same bits after any kill."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY
from crosschannel.histories import held_out
from crosschannel.histories.arms import AGENT, HOLDOUT
from crosschannel.histories.history import History
from crosschannel.histories.propensities.checks import check_propensities
from crosschannel.histories.readers.folder import read_history
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.reading import build_history
from crosschannel.pipeline.run_files import RunLock
from crosschannel.pipeline.run_folder import Run
from crosschannel.pipeline.simulation import simulating
from crosschannel.programs import evaluate, simulate, train, trial
from tests import ROOT

CONFIG = Path(__file__).resolve().parent / "closed_loop.yaml"
DAYS = 5


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "crosschannel", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A simulated deployment of five days, and what it printed."""
    folder = tmp_path_factory.mktemp("loop")
    return folder / "run", run("simulate", "--config", CONFIG, "--out", folder / "run", cwd=folder).stdout


@pytest.fixture(scope="module")
def history(loop: tuple[Path, str]) -> History:
    return read_history(loop[0] / "log", loop[0] / "decisions")


def test_what_it_prints_is_what_the_days_hold(loop: tuple[Path, str]) -> None:
    days = pd.read_csv(loop[0] / "days.csv")
    assert days["day"].tolist() == list(range(DAYS))
    assert f"{DAYS} days" in loop[1]
    assert f"{days['value/agent'].sum():.3f}" in loop[1]
    assert (days["value/holdout"] == 0).all()
    assert (days["regret/agent"] >= 0).all()


def test_tensorboard_has_a_point_a_day(loop: tuple[Path, str]) -> None:
    found = EventAccumulator(str(loop[0] / "tensorboard")).Reload()
    days = pd.read_csv(loop[0] / "days.csv")
    for name in ("value/agent", "sent/business_as_usual", "unsubscribed/agent", "regret/agent", "probability"):
        read = [one.value for one in found.Scalars(f"loop/{name}")]
        np.testing.assert_allclose(read, days[name], rtol=1e-6)


def test_the_documented_figures_are_those_that_are_written(loop: tuple[Path, str]) -> None:
    page = (ROOT / "docs" / "simulation.md").read_text()
    documented = {tag.partition("/<")[0] for tag in re.findall(r"`loop/([\w/<>]+)`", page)} - {"<name>"}
    tags = EventAccumulator(str(loop[0] / "tensorboard")).Reload().Tags()["scalars"]
    assert documented == {tag.split("/")[1] for tag in tags}


def test_its_log_is_a_valid_history_with_the_policies_own_propensities(history: History) -> None:
    d = history.decisions
    assert d.arm is not None
    mine = d.arm == AGENT
    assert np.isfinite(d.joint[mine]).all()
    np.testing.assert_allclose(d.joint[mine], d.propensity[mine].prod(1), rtol=1e-12)
    assert held_out(d, history.modules).sum() == (d.arm == HOLDOUT).sum() > 0
    sent = history.modules.sends(d.actions)
    assert not sent[d.arm == HOLDOUT].any()
    assert sent[mine].any()
    check_propensities(history).refuse_contradictions()


def test_policies_follow_each_other_and_every_decision_names_its_own(loop: tuple[Path, str], history: History) -> None:
    d = history.decisions
    mine = np.asarray(d.arm == AGENT)
    day = (d.time - d.time.min()) // DAY
    used = [set(np.asarray(d.policy)[mine & (day == k)].tolist()) for k in range(DAYS)]
    assert [len(each) for each in used] == [1] * DAYS
    assert [each.pop() for each in used] == pd.read_csv(loop[0] / "days.csv")["policy"].tolist()
    assert Policies(loop[0]).current == pd.read_csv(loop[0] / "days.csv")["policy"].iloc[-1]


def test_what_marketers_add_and_retire_is_chosen_on_its_days_only(history: History) -> None:
    d, modules = history.decisions, history.modules
    day = (d.time - d.time.min()) // DAY
    sent = modules.sends(d.actions)
    offer, tone = (modules.names.index(name) for name in ("offer", "tone"))
    retired = sent & (d.actions[:, offer] == modules["offer"].actions.index("percent_20"))
    added = sent & (d.actions[:, tone] == modules["tone"].actions.index("playful"))
    assert set(day[retired].tolist()) <= {0, 1}
    assert retired.any()
    assert set(day[added].tolist()) <= {3, 4}
    assert added.any()


def test_users_join_and_leave(history: History) -> None:
    d = history.decisions
    first, last = np.full(history.n_users, 2**62), np.zeros(history.n_users)
    np.minimum.at(first, d.user, d.time)
    np.maximum.at(last, d.user, d.time)
    assert (first[first < 2**62] > d.time.min()).any()
    assert (history.observed_until < history.span[1]).any()
    # Nothing is known of a user before he or she joins, and nothing is decided for who has left.
    e = history.events
    assert (e.time >= history.observed_from[e.user]).all()
    assert (e.time < history.observed_until[e.user]).all()
    assert (d.time <= history.observed_until[d.user]).all()


def test_an_update_of_the_whole_log_has_the_bits_of_the_daily_ones(loop: tuple[Path, str], tmp_path: Path) -> None:
    """The last policy of the loop has learned up to its last but one day; so does one that learns it all at once."""
    from crosschannel.histories.observation.slicing import until
    from crosschannel.pipeline.loop.starting import start
    from crosschannel.pipeline.loop.updating import update
    from crosschannel.pipeline.run_folder import ExitStack

    whole = Run.open_in_use(loop[0])
    history, _ = build_history(whole.config)
    begin = int(history.decisions.time.min())
    with ExitStack() as locks:
        fresh = Run.create(whole.config, tmp_path / "run", locks)
    found = update(start(fresh, until(history, begin)), until(history, begin + (DAYS - 1) * DAY))
    assert found.version == whole.version


def test_programs_work_on_the_folder(loop: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(loop[0], tmp_path / "run")
    done = run("update", "run", "--history.path", "run/log", cwd=tmp_path)
    version = Policies(tmp_path / "run").current
    assert f"policy {version}" in done.stdout
    earlier = Policies(loop[0]).current
    assert earlier is not None
    assert earlier != version
    assert earlier in run("update", "run", "--use", earlier, cwd=tmp_path).stdout
    assert Policies(tmp_path / "run").current == earlier


def files(folder: Path) -> dict[str, bytes]:
    """Every file but TensorBoard's, whose names and times differ, locks, and what is kept to spare reading.

    The latter names the log's files by their times of change.
    """
    spared = (folder / "days", folder / "learning" / "log")
    inside = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "tensorboard")
    inside = (path for path in inside if path.parent not in spared)
    return {str(path.relative_to(folder)): path.read_bytes() for path in inside if path.name != ".lock"}


def killed(folder: Path, kills: int, took: float, seed: int) -> None:
    """Simulate, killed at random moments."""
    rng = random.Random(seed)
    for _ in range(kills):
        arguments = ("--resume", "run") if Run.is_at(folder / "run") else ("--config", CONFIG, "--out", "run")
        process = subprocess.Popen(
            command("simulate", *arguments), cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=-1
        )
        try:
            process.communicate(timeout=rng.uniform(0.3, 0.9) * took)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    arguments = ("--resume", "run") if Run.is_at(folder / "run") else ("--config", CONFIG, "--out", "run")
    run("simulate", *arguments, cwd=folder)


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_a_killed_simulation_goes_on_to_the_same_bits(tmp_path: Path, kills: int) -> None:
    one, other = tmp_path / "undisturbed", tmp_path / "killed"
    one.mkdir()
    other.mkdir()
    began = time.monotonic()
    run("simulate", "--config", CONFIG, "--out", "run", cwd=one)
    killed(other, kills, time.monotonic() - began, seed=kills)
    wanted, found = files(one / "run"), files(other / "run")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if wanted[name] != found[name]] == []


def kill_once(*arguments: object, cwd: Path, after: float) -> bool:
    """Start a program and kill it after some seconds; return whether it was still running."""
    process = subprocess.Popen(command(*arguments), cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=-1)
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("kills", [40])
def test_a_killed_update_learns_to_the_same_bits(loop: tuple[Path, str], tmp_path: Path, kills: int) -> None:
    """Half of the times a day is added to the stored sums, and half of the times all is computed from the log alone."""
    rng = random.Random(kills)
    done = 0
    for rounds in range(10 * kills):
        if done >= kills:
            break
        for name in ("undisturbed", "killed"):
            # Both have the run's own name, which the card has as well.
            folder = Path(shutil.copytree(loop[0], tmp_path / f"{name}{rounds}" / loop[0].name))
            if rounds % 2:
                shutil.rmtree(folder / "learning")
        one, other = (tmp_path / f"{name}{rounds}" for name in ("undisturbed", "killed"))
        began = time.monotonic()
        run("update", loop[0].name, cwd=one)
        took = time.monotonic() - began
        for _ in range(min(3, kills - done)):
            # The first half is imports.
            done += kill_once("update", loop[0].name, cwd=other, after=rng.uniform(0.4, 1.0) * took)
        run("update", loop[0].name, cwd=other)
        wanted, found = files(one / loop[0].name), files(other / loop[0].name)
        assert found.keys() == wanted.keys()
        assert [name for name in wanted if wanted[name] != found[name]] == []
        assert Policies(other / loop[0].name).current is not None
        for folder in (one, other):
            shutil.rmtree(folder)
    assert done >= kills, "the program ends before it is killed"


def test_a_finished_simulation_is_simulated_to_its_end_again(loop: tuple[Path, str]) -> None:
    before = files(loop[0])
    run("simulate", "--resume", loop[0], cwd=loop[0].parent)
    assert files(loop[0]) == before


def test_a_run_that_is_no_simulation_is_left_alone(loop: tuple[Path, str], tmp_path: Path) -> None:
    """Such as that of a shop, whose log is elsewhere: here a copy, whose log is that of the simulation."""
    shutil.copytree(loop[0], tmp_path / "shop")
    before = files(tmp_path / "shop")
    done = subprocess.run(
        command("simulate", "--resume", "shop"), cwd=tmp_path, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 2
    assert "not that of a simulation" in done.stderr
    assert files(tmp_path / "shop") == before


def test_no_training_resumes_what_learns_by_updates(
    loop: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a simulation, also one that was stopped before its first day, nor a run from `start`."""
    monkeypatch.chdir(tmp_path)
    simulated = Path(shutil.copytree(loop[0], loop[0].name))
    before = files(simulated)
    with pytest.raises(ConfigError, match=r"is the folder of a simulation.*crosschannel simulate --resume"):
        train.main(["--resume", str(simulated)])
    with pytest.raises(ConfigError, match=r"has no training.*learns by `crosschannel update"):
        evaluate.main([str(simulated)])
    assert files(simulated) == before
    for name in ("policies", "decisions", "learning", "log"):
        shutil.rmtree(simulated / name, ignore_errors=True)
    with pytest.raises(ConfigError, match="is the folder of a simulation"):
        train.main(["--resume", str(simulated)])
    # A run from `start` has its log elsewhere.
    shop = Path(shutil.copytree(loop[0], "shop"))
    with pytest.raises(ConfigError, match=r"has no training.*learns by `crosschannel update"):
        train.main(["--resume", str(shop)])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.assign(user_id=["nobody", *t.user_id[1:]]), "row 1, value 'nobody': the app has no such user"),
        (lambda t: t.assign(channel=["pigeon", *t.channel[1:]]), "column 'channel', row 1, value 'pigeon'"),
        (lambda t: t.drop(columns="channel"), "column 'channel'"),
    ],
)
def test_decisions_that_were_edited_are_not_executed(
    loop: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = Path(shutil.copytree(loop[0], loop[0].name))
    file = sorted((copy / "decisions").iterdir())[-1] / "decisions.parquet"
    edit(pd.read_parquet(file)).to_parquet(file, index=False)
    with pytest.raises(InputError, match=message):
        simulate.main(["--resume", str(copy)])


def test_decisions_for_users_of_business_as_usual_are_not_executed(
    loop: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = Path(shutil.copytree(loop[0], loop[0].name))
    day = sorted((copy / "decisions").iterdir())[-1]
    table, arms = (pd.read_parquet(day / f"{name}.parquet") for name in ("decisions", "arms"))
    user = arms.user_id[arms.arm == "business_as_usual"].iloc[0]
    table.assign(user_id=[user, *table.user_id[1:]]).to_parquet(day / "decisions.parquet", index=False)
    with pytest.raises(InputError, match="whose arm is business_as_usual"):
        simulate.main(["--resume", str(copy)])


def test_a_trial_does_not_start_when_an_edited_summary_says(loop: tuple[Path, str], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(loop[0], tmp_path / "run"))
    file = min((copy / "decisions").glob("2*")) / "decide.json"
    file.write_text(re.sub(r'"at": "2024-01-..', '"at": "2024-01-06', file.read_text()))
    flags = ("--config", copy / "config.yaml", "--history.path", copy / "log", "--history.decided", copy / "decisions")
    with pytest.raises(ConfigError, match=r"decide\.json is damaged or was edited"):
        trial.main([str(each) for each in flags])


def test_a_simulation_has_one_process_at_a_time(loop: tuple[Path, str]) -> None:
    with RunLock(loop[0] / "log"):
        done = subprocess.run(
            command("simulate", "--resume", loop[0]),
            cwd=loop[0].parent,
            capture_output=True,
            text=True,
            env=environment(),
        )
    assert done.returncode == 1
    assert "is in use" in done.stderr


def test_of_two_simulations_of_a_folder_one_is_refused_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins when the first has just made the run, and holds the log not yet."""
    monkeypatch.chdir(tmp_path)
    settings = ("--config", str(CONFIG), "--seed=7", "--history.market.days=2", "--history.market.users=60")
    make_run, refused = simulating.RunLock, list[str]()

    def second(folder: Path) -> RunLock:
        if folder == Path("run/log") and not refused:
            config = simulate.parse([*settings, "--out", "other"])[0]
            with pytest.raises(ConfigError) as error:
                next(simulating.simulate(config, Path("run")))
            refused.append(str(error.value))
        return make_run(folder)

    monkeypatch.setattr(simulating, "RunLock", second)
    assert simulate.main([*settings, "--out", "run"]) == 0
    assert re.fullmatch(r"run is in use by process \d+: wait until it has ended, or stop it", refused[0])
    assert len(pd.read_csv("run/days.csv")) == 2


def test_force_starts_over(loop: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the simulation that stood there is left; one that is being written is not replaced."""
    settings = ("--config", str(CONFIG), "--seed=7", "--history.market.days=2", "--history.market.users=60")
    for name in ("fresh", "again"):
        (tmp_path / name).mkdir()
    shutil.copytree(loop[0], tmp_path / "again" / "run")
    before = files(tmp_path / "again" / "run")
    monkeypatch.chdir(tmp_path / "again")
    with RunLock(Path("run/log")), pytest.raises(ConfigError, match="run/log is in use by process"):
        simulate.main([*settings, "--out", "run", "--force"])
    assert files(Path("run")) == before
    assert simulate.main([*settings, "--out", "run", "--force"]) == 0
    monkeypatch.chdir(tmp_path / "fresh")
    assert simulate.main([*settings, "--out", "run"]) == 0
    assert files(tmp_path / "again" / "run") == files(Path("run"))
