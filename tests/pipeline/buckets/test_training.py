"""Training on buckets: one policy for every division and engine, also after an interruption, judged on a sample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crosschannel import agents, pipeline
from crosschannel.core.errors import ConfigError
from crosschannel.engines import make_engine, run_locally
from crosschannel.histories.buckets import write_buckets
from crosschannel.histories.history import History
from crosschannel.pipeline.buckets import training
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import reads_buckets
from crosschannel.pipeline.building import agent_spec, prepare
from crosschannel.pipeline.run_files import TrainedWith
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import decide, evaluate, train
from tests.pipeline.buckets.samples import Interrupted, Stops, configuration, market_log, write_log


@pytest.fixture(scope="module")
def log() -> History:
    return market_log()


@pytest.fixture
def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judging takes most of the time, and changes no policy."""
    monkeypatch.setattr(training, "_judge", lambda *_: None)


def learn(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: object = run_locally,
    resume: bool = False,
    **settings: object,
) -> Path:
    """Train in a folder on its log; return the policy."""
    monkeypatch.chdir(folder)
    out, passes = Path("run"), Passes(engine, shows=False)  # type: ignore[arg-type]
    if resume:
        training.train_on_buckets(configuration(**settings), resume=Run.open(out), passes=passes)
    else:
        training.train_on_buckets(configuration(**settings), out, passes=passes)
    return folder / "run" / "policy.pt"


@pytest.mark.usefixtures("unjudged")
def test_the_policy_has_one_set_of_bytes(log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = [learn(write_log(log, tmp_path / f"{n}", n), monkeypatch).read_bytes() for n in (1, 4, 16)]
    assert policies[0] == policies[1] == policies[2]
    assert not (tmp_path / "4" / "run" / "scratch").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_engines_give_the_same_bytes(
    log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    if engine == "ray":
        pytest.importorskip("ray.data", reason="Ray is not installed")
    folders = [write_log(log, tmp_path / name, 4) for name in ("here", "there")]
    here = learn(folders[0], monkeypatch).read_bytes()
    assert here == learn(folders[1], monkeypatch, make_engine(engine, 2)).read_bytes()


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize(
    "calls", [pytest.param(2, marks=pytest.mark.slow), 13, pytest.param(27, marks=pytest.mark.slow)]
)
def test_what_was_interrupted_resumes_to_the_same_bytes(
    log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """4 buckets are read, passed twice for rewards and once for rows; 8 groups of leaves are passed three times."""
    wanted = learn(write_log(log, tmp_path / "whole", 4), monkeypatch).read_bytes()
    folder = write_log(log, tmp_path / "cut", 4)
    with pytest.raises(Stops):
        learn(folder, monkeypatch, Interrupted(calls))
    assert not (folder / "run" / "policy.pt").exists()
    assert learn(folder, monkeypatch, resume=True).read_bytes() == wanted


@pytest.mark.usefixtures("unjudged")
def test_another_log_is_not_resumed(log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_log(log, tmp_path, 4)
    with pytest.raises(Stops):
        learn(folder, monkeypatch, Interrupted(10))
    write_log(log.select_users(np.arange(log.n_users) > 5), tmp_path, 4)
    with pytest.raises(ConfigError, match=r"the history of run run has changed: restore it, or train a new run"):
        learn(folder, monkeypatch, resume=True)


@pytest.mark.usefixtures("unjudged")
def test_it_is_the_policy_of_all_users_in_memory(log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small log is its own sample: contexts, rewards and pace are equal, and policies up to rounding."""
    learned, extra = agents.load_policy(learn(write_log(log, tmp_path, 4), monkeypatch))
    trained_with = TrainedWith.from_dict(extra["run"], tmp_path)
    config = configuration()
    data = prepare(config)  # reads all buckets as one history
    assert trained_with.features.state_dict() == data.features.state_dict()
    assert trained_with.pace == data.pace
    split = data.train
    rows = np.flatnonzero(split.rewards.identified)
    parts = split.rewards.components
    assert parts is not None
    kept = parts.select(rows)
    agent = agents.make_agent(modules=log.modules, device="cpu", **agent_spec(config, data))
    agent.observe(
        agents.Batch(
            observations=split.observations[rows],
            actions=split.history.decisions.actions[rows],
            rewards=split.rewards.reward[rows],
            se=split.rewards.se[rows],
            keys=split.history.decisions.key[rows],
            components=agents.Components(kept.engaged, kept.value, kept.cost, kept.cost_names, kept.cost_weights),
        )
    )
    agent.update(1)
    some = data.test.observations[np.arange(500)]
    for found, wanted in zip(learned.action_probabilities(some), agent.action_probabilities(some), strict=True):
        assert np.abs(found - wanted).mean() < 0.02


@pytest.fixture(scope="module")
def judged(log: History, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of `crosschannel train` on a log in buckets, judged on 150 test users."""
    folder = write_log(log, tmp_path_factory.mktemp("judged"), 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pipeline.write_config(configuration(**{"evaluation.max_users": 150}), Path("config.yaml"))
        assert train.main(["--config", "config.yaml", "--out", "run"]) == 0
    return folder


def test_a_run_says_on_whom_it_was_judged(judged: Path) -> None:
    data = json.loads((judged / "run" / "evaluation.json").read_text())
    note = next(text for text in data["notes"] if "evaluation.max_users" in text)
    assert "the log has 600 users in buckets: the policy is judged on 150 of its test users" in note
    names = {item.name for item in (judged / "run").iterdir()}
    assert {"config.yaml", "policy.pt", "metrics.json", "evaluation.json", "policy.csv", "tensorboard"} <= names
    assert "scratch" not in names


def test_evaluate_accepts_the_run(
    judged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(judged)
    before = (judged / "run" / "evaluation.json").read_bytes()
    assert evaluate.main(["run"]) == 0
    assert (judged / "run" / "evaluation.json").read_bytes() == before
    assert "judged on 150 of its test users" in capsys.readouterr().out
    assert "150 of its test users" in (judged / "run" / "report.html").read_text()
    assert evaluate.main(["run", "--evaluation.max-users=160", "--out", "more"]) == 0
    assert "judged on 160 of its test users" in (judged / "more" / "evaluation.json").read_text()
    assert not (judged / "more" / "scratch").exists()


def test_decide_accepts_the_run(judged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(judged)
    assert decide.main(["run", "--out", str(tmp_path / "decisions.csv")]) == 0
    assert len((tmp_path / "decisions.csv").read_text().splitlines()) == 601


def test_another_log_is_named_in_an_evaluation(
    log: History, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(judged)
    write_buckets(log.select_users(np.arange(log.n_users) % 3 > 0), tmp_path / "other", 2)
    assert evaluate.main(["run", f"--history.path={tmp_path / 'other'}", "--out", str(tmp_path / "found")]) == 0
    notes = json.loads((tmp_path / "found" / "evaluation.json").read_text())["notes"]
    assert any("the history has changed" in note for note in notes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agent.name": "beta_thompson"}, "beta_thompson does not learn from buckets"),
        ({"reward.kind": "did_dr"}, "rewards over buckets are of the kind 'did'"),
        ({"history.decided": "days"}, "history.decided: decisions by date do not join buckets yet"),
        ({"context.events": ("no_such_event",)}, "no_such_event"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing_behind(
    log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], message: str
) -> None:
    folder = write_log(log.select_users(np.arange(log.n_users) < 200), tmp_path, 2)
    with pytest.raises(ConfigError, match=message):
        learn(folder, monkeypatch, **settings)
    assert not (folder / "run").exists() or not list((folder / "run").iterdir())


def test_a_history_is_bucketed_by_its_folder(log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_log(log.select_users(np.arange(log.n_users) < 20), tmp_path, 2))
    assert reads_buckets(configuration())
    assert not reads_buckets(pipeline.load_config("market"))
